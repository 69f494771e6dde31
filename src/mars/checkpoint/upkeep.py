"""Finds damaged records of a checkpoint, and removes records that no program needs any more.

Called by ``mars runs verify`` and ``mars runs prune``. Only `prune` writes, and takes the lock.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING

from mars.checkpoint import journal
from mars.checkpoint.folder import Folder
from mars.checkpoint.history import History, records_of
from mars.checkpoint.journal import Block, Kept, Raw
from mars.checkpoint.opening import Journal
from mars.checkpoint.reading import Damaged, body_of, values_of

if TYPE_CHECKING:
    from mars.checkpoint.folder import Facts


def damages(history: History) -> list[str]:
    """Look at every byte, and say in words what is damaged or missing."""
    lines = [
        f"{problem.size} bytes at {problem.position} are {'cut off' if problem.torn else 'damaged'}"
        for problem in history.index.problems
    ]
    blocks: set[int] = set()
    for entry in [*history.entries.values(), *history.failures]:
        position = entry.found.raw.position
        if position in blocks:
            continue
        blocks.add(position)
        name = f"{entry.name} ({entry.key.hex()[:8]})"
        try:
            body = history.body(entry)
            if not entry.failed:
                values_of(history.folder, entry.found)
        except Damaged:
            lines.append(f"the result of {name} is damaged or missing")
            continue
        try:
            history.unpack(body[: entry.found.sizes[0]], entry.found.flags & ~journal.NO_ARGUMENTS)
        except Damaged:
            lines.append(f"the arguments of {name} are damaged or missing; only replay needs them")
    unknown = sum(history.index.code(digest) is None for digest in history.index.codes)
    if unknown:
        lines.append(f"the records of {unknown} function(s) are damaged; their calls are unharmed")
    return lines


def _files_of(folder: Folder, raw: Raw, found: Kept | Block | None) -> set[str]:
    """Return the names of the files that a record of a call or of a function refers to."""
    body = body_of(folder, raw)
    names: set[str] = set()
    if found is None:
        facts = journal.unpacked(body)
        packed, flags = facts["pickle"], facts["flags"]
        names.update(map(journal.argument_file, facts.get("modules", ())))
    else:
        packed, flags = body[: found.sizes[0]], found.flags
        if flags & journal.AS_FILE:
            names.add(journal.result_file(journal.file_key(found)))
    if flags & journal.PARTED:
        names.update(journal.argument_file(digest) for digest in pickle.loads(packed)[1])
    return names


def prune(where: str, runs: int, tell: Callable[[str], object]) -> tuple[int, int]:
    """Remove records that the last ``runs`` programs neither used nor made.

    Returns
    -------
    tuple of int
        How many records were removed, and how many bytes are free.

    Raises
    ------
    CheckpointBusy
        A program is using the checkpoint.
    """
    history = History(where)
    try:
        last = {run.number for run in history.runs[-runs:]}
        wanted = {p for run in history.runs[-runs:] for p in run.used}
        wanted |= {
            entry.found.raw.position
            for entry in [*history.entries.values(), *history.failures]
            if entry.run.number in last
        }
    finally:
        history.close()
    held = Journal(where, tell)
    try:
        return _rewrite(held, wanted, last)
    finally:
        held.folder.close()


def _rewrite(held: Journal, wanted: set[int], last: set[int]) -> tuple[int, int]:
    folder = held.folder
    # Listed before the records are read. A file that comes later belongs to a later record.
    there = list(folder.files())
    raws = list(records_of(folder))
    found: dict[int, Kept | Block] = {}
    functions = set()
    for raw in raws:
        if raw.position in wanted:
            one = journal.block(raw) if raw.kind == journal.BLOCK else journal.kept(raw)
            found[raw.position] = one
            functions.add(one.function)
    records: list[bytes] = []
    files: set[str] = set()
    moved: dict[int, int] = {}
    position = gone = run = before = 0
    for raw in raws:
        before += journal.HEADER.size + len(raw.meta) + raw.body_size
        if raw.kind == journal.SESSION:
            run += 1
        keep = raw.position in found or (
            raw.meta[:8] in functions
            if raw.kind == journal.CODE
            else raw.kind in (journal.SESSION, journal.TALLY)
        )
        if not keep:
            gone += raw.kind in (journal.CALL, journal.BLOCK, journal.FAILED)
            continue
        try:
            body = body_of(folder, raw)
        except Damaged:
            gone += 1
            continue
        if raw.kind == journal.TALLY:
            body = _moved_tally(journal.unpacked(body), moved if run in last else {})
        elif raw.kind != journal.SESSION:
            files |= _files_of(folder, raw, found.get(raw.position))
        data = b"".join(journal.record(raw.kind, raw.meta, [body]))
        moved[raw.position] = position
        records.append(data)
        position += len(data)
    folder.replace(iter(records))
    free = before - position
    for name, size in there:
        if name not in files:
            folder.remove(name)
            free += size
    return gone, free


def _moved_tally(facts: Facts, moved: dict[int, int]) -> bytes:
    now = [moved[old] for old in journal.unpacked_positions(facts["used"]) if old in moved]
    return journal.packed({**facts, "used": journal.packed_positions(now)})
