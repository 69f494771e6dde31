"""What a checkpoint holds, for people: its runs and calls, why two calls differ, what is damaged.

Reads a journal that nobody or somebody else writes; only `prune` takes the lock. Called by
``mars runs`` and ``mars replay``.
"""

from __future__ import annotations

import io
import itertools
import marshal
import pickle
import tokenize
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, Final

from mars.attempt import rows
from mars.checkpoint import journal
from mars.checkpoint.folder import Folder
from mars.checkpoint.index import Index
from mars.checkpoint.journal import Block, Kept, Raw
from mars.checkpoint.loader import load
from mars.checkpoint.opening import Journal, open_folder
from mars.checkpoint.reading import Damaged, body_of, values_of
from mars.errors import CheckpointUnusable


class Run:
    """One program's use of a checkpoint.

    Attributes
    ----------
    number : int
        Counted from 1.
    facts : dict
        When, where and what; empty when that record is damaged.
    executed, reused : int
        Calls that it ran and kept, and that it found.
    saved_s : float
        Seconds that those took.
    """

    def __init__(self, number: int, facts: dict[str, Any]) -> None:
        self.number, self.facts = number, facts
        self.executed = self.reused = 0
        self.saved_s = 0.0
        self.entropy: int | None = 0
        self.used: list[int] = []


class Entry:
    """One call that a checkpoint knows.

    Attributes
    ----------
    key : bytes
        Its identity.
    name : str
        Of its function; "?" when the record of that is damaged.
    run : Run
        Who ran it.
    failed : bool
        It has no result, and is there for ``mars replay``.
    """

    def __init__(self, key: bytes, run: Run, found: Kept | Block, offset: int) -> None:
        self.key, self.run, self.found, self.offset = key, run, found, offset
        self.name = "?"
        self.code: dict[str, Any] = {}
        self.failed = isinstance(found, Kept) and found.kind == journal.FAILED

    @property
    def place(self) -> tuple[int, ...]:
        """Where it is among the calls of its session."""
        if isinstance(self.found, Kept):
            item = () if self.found.item == journal.WHOLE else (self.found.item,)
            return (self.found.place, *item)
        return (self.found.place, self.found.items[self.offset])

    @property
    def seconds(self) -> float:
        """How long its function ran; of an item of a map a part of its block's time."""
        share = self.found.size if isinstance(self.found, Block) else 1
        return self.found.spans[2] / share

    @property
    def arguments(self) -> list[bytes]:
        """A digest for each argument."""
        digests = self.found.arguments
        if isinstance(self.found, Block):
            digests = digests[8 * self.offset : 8 * self.offset + 8]
        return [digests[at : at + 8] for at in range(0, len(digests), 8)]

    @property
    def inputs(self) -> list[tuple[bytes, int]]:
        """Beginnings of the keys of its inputs' calls, and which of their values."""
        if isinstance(self.found, Block):
            return []
        step = journal.INPUT_BYTES
        found = self.found.inputs
        return [
            (found[at : at + 8], int.from_bytes(found[at + 8 : at + step], "little"))
            for at in range(0, len(found), step)
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Of arguments given by name."""
        if isinstance(self.found, Block) or not self.found.names:
            return ()
        used = journal.CALL_META.size + len(self.found.arguments) + len(self.found.inputs)
        names: tuple[str, ...] = marshal.loads(self.found.raw.meta[used:])
        return names

    def label(self, position: int) -> str:
        """What an argument is called."""
        count = len(self.arguments) - len(self.names)
        if position >= count:
            return self.names[position - count]
        parameters = self.code.get("parameters", ())
        return parameters[position] if position < len(parameters) else f"args[{position}]"


class History:
    """All that a checkpoint holds.

    Parameters
    ----------
    where : str
        Path or URL.

    Raises
    ------
    CheckpointUnusable
        There is no checkpoint.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.folder = open_folder(where, create=False)
        self.runs: list[Run] = []
        self.entries: dict[bytes, Entry] = {}
        self.failures: list[Entry] = []
        self.index = Index(self.folder)
        self._codes: dict[bytes, dict[str, Any] | None] = {}
        self._beginnings: dict[bytes, Entry] = {}
        current = Run(0, {})
        for raw in _records(self.folder):
            if raw.kind == journal.SESSION:
                current = Run(len(self.runs) + 1, self._facts(raw))
                self.runs.append(current)
            elif raw.kind == journal.TALLY:
                _count(current, self._facts(raw))
            elif raw.kind in (journal.CALL, journal.FAILED):
                self._take(Entry(raw.meta[:16], current, journal.kept(raw), -1))
            elif raw.kind == journal.BLOCK:
                block = journal.block(raw)
                for offset in range(block.size):
                    key = block.keys[16 * offset : 16 * offset + 16]
                    if any(key):
                        self._take(Entry(key, current, block, offset))

    def _facts(self, raw: Raw) -> dict[str, Any]:
        try:
            return journal.unpacked(body_of(self.folder, raw))
        except Damaged:
            return {}

    def _take(self, entry: Entry) -> None:
        code = self._code(entry.found.function)
        if code is not None:
            entry.code, entry.name = code, code["name"]
        if entry.failed:
            self.failures.append(entry)
        else:
            self.entries[entry.key] = entry
            entry.run.executed += 1

    def _code(self, digest: bytes) -> dict[str, Any] | None:
        if digest not in self._codes:
            self._codes[digest] = self.index.code(digest)
        return self._codes[digest]

    def find(self, text: str) -> list[Entry]:
        """Calls that a text means: the beginning of a key, a name, or ``name#place``.

        The latest comes last.
        """
        everything = [*self.entries.values(), *self.failures]
        everything.sort(key=lambda entry: entry.found.raw.position)
        name, _, place = text.partition("#")
        found = [entry for entry in everything if entry.name == name]
        if place:
            wanted = tuple(int(part) for part in place.split(".") if part.isdigit())
            found = [entry for entry in found if entry.place == wanted]
        if not found and len(text) >= _KEY_LETTERS:
            found = [entry for entry in everything if entry.key.hex().startswith(text.lower())]
        return found

    def input(self, beginning: bytes) -> Entry | None:
        """The call whose key begins like that."""
        if not self._beginnings:
            self._beginnings = {key[:8]: entry for key, entry in self.entries.items()}
        return self._beginnings.get(beginning)

    def body(self, entry: Entry) -> bytes:
        """The record's body.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        return body_of(self.folder, entry.found.raw)

    def log(self, entry: Entry) -> bytes:
        """What the call printed."""
        start, size = entry.found.sizes[:2]
        text = self.body(entry)[start : start + size]
        if isinstance(entry.found, Block) and entry.found.marks:
            begin, end = entry.found.marks[entry.offset : entry.offset + 2]
            return text[begin:end]
        return text

    def size(self, entry: Entry) -> int:
        """Bytes of the call's result."""
        if isinstance(entry.found, Block):
            return entry.found.sizes[2] // entry.found.size
        if entry.found.flags & journal.AS_FILE:
            return self.folder.file_size(journal.result_file(entry.key)) or 0
        return entry.found.sizes[2]

    def trust(self, what: str, *, given: bool) -> None:
        """Be ready to unpickle what is there, which runs whatever code it names.

        Parameters
        ----------
        what : str
            The command that is to do so.
        given : bool
            Whether its user trusts whoever the checkpoint belongs to.

        Raises
        ------
        CheckpointUnusable
            It is somebody else's and not trusted, or anybody may have written to it.
        """
        written, owner = self.folder.strangers()
        runs = f"`{what}` runs code that it finds there, with your rights"
        if written:
            raise CheckpointUnusable(self.where, f"{written}; {runs}, and that may be anybody's")
        if owner and not given:
            raise CheckpointUnusable(self.where, f"{owner}; {runs}; if you trust them, add --trust")
        self.folder.trusting = given

    def value(self, entry: Entry, index: int = 0) -> Any:
        """A value of the call.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        values = values_of(self.folder, entry.found)
        return values[index] if entry.offset < 0 else values[0][entry.offset]

    def function(self, entry: Entry) -> Callable[..., Any]:
        """The call's function.

        Raises
        ------
        Damaged
            Its record is damaged.
        """
        if not entry.code:
            raise Damaged
        data, buffers = self._unpack(entry.code["pickle"], entry.code["flags"])
        function: Callable[..., Any] = load(data, buffers)
        return function

    def module_text(self, digest: bytes) -> bytes | None:
        """The file of a module, as a run had it; None: it was not kept."""
        try:
            return bytes(self._part(digest))
        except Damaged:
            return None

    def arguments(self, entry: Entry) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments, with the values of its inputs.

        Raises
        ------
        Damaged
            They are not there, or an input is not.
        """
        found = entry.found
        data, buffers = self._unpack(self.body(entry)[: found.sizes[0]], found.flags)
        inputs = []
        for beginning, index in entry.inputs:
            source = self.input(beginning)
            if source is None:
                raise Damaged
            inputs.append(self.value(source, index))
        if isinstance(found, Block) and found.flags & journal.ROWS:
            shared, kept = rows.unpacked(data, buffers, load)
            row, large = rows.parts(kept[entry.offset])
            args, kwargs = load(row, large, shared)
            return args, kwargs
        args, kwargs = load(data, buffers, inputs)
        if isinstance(found, Block):
            item = args[0][entry.offset]
            return (tuple(item) if found.flags & journal.SPREAD else (item,)), {}
        return args, kwargs

    def _unpack(self, packed: bytes, flags: int) -> tuple[Any, list[Any]]:
        if flags & journal.NO_ARGUMENTS:
            raise Damaged
        if not flags & journal.PARTED:
            return packed, []
        held, digests = pickle.loads(packed)
        parts = [self._part(digest) for digest in digests]
        return (parts.pop(0) if held is None else held), parts

    def _part(self, digest: bytes) -> Any:
        try:
            data = self.folder.read_file(journal.argument_file(digest))
        except FileNotFoundError:
            raise Damaged from None
        if blake2b(data, digest_size=16).digest() != digest:
            raise Damaged
        return data

    def close(self) -> None:
        """Let go of the folder."""
        self.folder.close()


_KEY_LETTERS: Final = 4


def _records(folder: Folder) -> Iterator[Raw]:
    for number, view in folder.segments():
        for one in journal.scan(number, view):
            if isinstance(one, Raw):
                yield one


def _count(run: Run, facts: dict[str, Any]) -> None:
    if not facts:
        return
    run.reused += facts["reused"]
    run.saved_s += facts["saved_s"]
    run.entropy = facts["entropy"]
    run.used.extend(journal.unpacked_positions(facts["used"]))


# -- why two calls differ -------------------------------------------------------------------------


def nearest(history: History, entry: Entry) -> Entry | None:
    """The earlier call that an entry has most in common with; None: there is none of its name."""
    best, best_score = None, (-1, -1)
    for other in history.entries.values():
        if other.name != entry.name or other.found.raw.position >= entry.found.raw.position:
            continue
        if other.run is entry.run:
            continue
        same = sum(a == b for a, b in zip(other.arguments, entry.arguments, strict=False))
        same += 2 * (other.found.function == entry.found.function)
        same += sum(a == b for a, b in zip(other.inputs, entry.inputs, strict=False))
        score = (2 * same + (other.place == entry.place), other.found.raw.position)
        if score > best_score:
            best, best_score = other, score
    return best


def differences(history: History, old: Entry, new: Entry) -> list[str]:
    """What makes two calls two, in words."""
    lines = []
    if old.found.function != new.found.function:
        lines += _code_differences(old.code, new.code)
    before, after = old.arguments, new.arguments
    if len(before) != len(after) or old.names != new.names:
        lines.append(f"it has {len(after)} argument(s) instead of {len(before)}, or other names")
    else:
        lines += [
            f"argument `{new.label(position)}` differs"
            for position, (a, b) in enumerate(zip(before, after, strict=True))
            if a != b
        ]
    for position, pair in enumerate(itertools.zip_longest(old.inputs, new.inputs)):
        if pair[0] != pair[1]:
            source = history.input(pair[1][0]) if pair[1] else None
            name = "?" if source is None else f"{source.name} ({source.key.hex()[:8]})"
            lines.append(f"input {position} comes from another call: {name}")
    one, two = old.found, new.found
    if isinstance(one, Kept) and isinstance(two, Kept):
        if one.n_output != two.n_output:
            lines.append(f"n_output is {two.n_output} instead of {one.n_output}")
        if one.ordinal != two.ordinal:
            lines.append(f"{two.ordinal} equal call(s) stand before it instead of {one.ordinal}")
    if new.code.get("draws") and (old.place != new.place or old.run.entropy != new.run.entropy):
        lines.append(
            "it may draw from mars.remote.rng, and its seed or its place among the calls is another"
        )
    return lines or ["what depends= declares differs, or a seed"]


def _code_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if not old or not new:
        return ["its function, of which no more is known: that record is damaged"]
    before, after = old["parts"], new["parts"]
    lines = []
    for part in sorted(before.keys() | after.keys()):
        if before.get(part) == after.get(part):
            continue
        if part not in after:
            lines.append(f"{part} is not reached any more")
        elif part not in before:
            lines.append(f"{part} is reached now")
        elif part.startswith(("package ", "python")):
            lines.append(f"{part} is {after[part]} instead of {before[part]}")
        elif part in new["sources"] and part in old["sources"]:
            lines.append(f"{part} changed{_where(old['sources'][part], new['sources'][part])}")
        else:
            lines.append(f"{part} changed")
    return lines or ["its function reaches the same parts in another way"]


def _where(old: tuple[str, int, str], new: tuple[str, int, str]) -> str:
    """At which line a source differs, comments aside."""
    before, after = _meaning(old[2]), _meaning(new[2])
    for number, line in after:
        if before and before[0][1] == line:
            before.pop(0)
        else:
            return f" at line {new[1] + number - 1} of {new[0]}"
    return f" at the end, line {new[1] + new[2].count(chr(10))} of {new[0]}" if before else ""


def _meaning(text: str) -> list[tuple[int, str]]:
    """Numbers and tokens of the lines that have any, without comments."""
    lines: dict[int, list[str]] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _SILENT and token.string.strip():
                lines.setdefault(token.start[0], []).append(token.string)
    except (tokenize.TokenError, IndentationError):  # a lambda in the middle of something
        pass
    return [(number, " ".join(words)) for number, words in lines.items()]


_SILENT: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
)


# -- integrity, and less of it --------------------------------------------------------------------


def damages(history: History) -> list[str]:
    """What is damaged or missing, after a look at every byte."""
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
            history._unpack(body[: entry.found.sizes[0]], entry.found.flags & ~journal.NO_ARGUMENTS)
        except Damaged:
            lines.append(f"the arguments of {name} are damaged or missing; only replay needs them")
    unknown = sum(history.index.code(digest) is None for digest in history.index.codes)
    if unknown:
        lines.append(f"the records of {unknown} function(s) are damaged; their calls are unharmed")
    return lines


def _files_of(folder: Folder, raw: Raw, found: Kept | Block | None) -> set[str]:
    """Files that a record of a call, or of a function, refers to."""
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
    """Keep only what the last ``runs`` runs used or made.

    Returns
    -------
    tuple of int
        Records that went, and bytes that are free.

    Raises
    ------
    CheckpointBusy
        A run is using it.
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
    # Before the records are read: a file that comes later is of somebody whose record comes, too.
    there = list(folder.files())
    raws = list(_records(folder))
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
            body: Any = body_of(folder, raw)
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


def _moved_tally(facts: dict[str, Any], moved: dict[int, int]) -> bytes:
    now = [moved[old] for old in journal.unpacked_positions(facts["used"]) if old in moved]
    return journal.packed({**facts, "used": journal.packed_positions(now)})


__all__ = ["Damaged", "Entry", "History", "Run", "damages", "differences", "nearest", "prune"]
