"""What a checkpoint holds, for people: its calls, and the programs that have used it.

``mars runs`` calls such a use a run; it may have many `execute`s. Reads a journal, whether somebody
writes to it or not, and takes no lock. Called by ``mars runs`` and ``mars replay``.
"""

from __future__ import annotations

import marshal
import pickle
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from mars.attempt import rows
from mars.checkpoint import journal
from mars.checkpoint.folder import Folder
from mars.checkpoint.index import Index
from mars.checkpoint.journal import Block, Kept, Raw
from mars.checkpoint.loader import function_of, load
from mars.checkpoint.opening import open_folder
from mars.checkpoint.reading import Damaged, body_of, values_of
from mars.errors import CheckpointUnusable

if TYPE_CHECKING:
    from mars.checkpoint.folder import Facts
    from mars.task import Buffer


class PastRun:
    """One program's use of a checkpoint.

    Attributes
    ----------
    number : int
        Counted from 1.
    facts : dict
        When and where it ran, and what program it was. Empty if that record is damaged.
    executed, reused : int
        How many calls it ran and kept, and how many it found.
    saved_s : float
        How many seconds the found ones took when they ran.
    entropy : int or None
        The seed of its random numbers.
    used : list of int
        Positions of the records that it found.
    """

    def __init__(self, number: int, facts: Facts) -> None:
        self.number, self.facts = number, facts
        self.executed = self.reused = 0
        self.saved_s = 0.0
        self.entropy: int | None = 0
        self.used: list[int] = []


class PastCall:
    """One call that a checkpoint knows.

    Attributes
    ----------
    key : bytes
        Its identity.
    name : str
        Name of its function; "?" if the record of the function is damaged.
    run : PastRun
        The run that made it.
    failed : bool
        Whether it has no result. It is there for ``mars replay``.
    """

    def __init__(self, key: bytes, run: PastRun, found: Kept | Block, offset: int) -> None:
        self.key, self.run, self.found, self.offset = key, run, found, offset
        self.name = "?"
        self.code: Facts = {}
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
        """How long its function ran, in seconds; of an item of a map, its share of the block."""
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
        """Beginnings of the keys of the calls that make its inputs, and which value of each."""
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
        """Names of the arguments that were given by name."""
        if isinstance(self.found, Block) or not self.found.names:
            return ()
        used = journal.CALL_META.size + len(self.found.arguments) + len(self.found.inputs)
        names: tuple[str, ...] = marshal.loads(self.found.raw.meta[used:])
        return names

    def label(self, position: int) -> str:
        """Return the name of an argument."""
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
        self.runs: list[PastRun] = []
        self.entries: dict[bytes, PastCall] = {}
        self.failures: list[PastCall] = []
        self.index = Index(self.folder)
        self._codes: dict[bytes, Facts | None] = {}
        self._beginnings: dict[bytes, PastCall] = {}
        current = PastRun(0, {})
        for raw in records_of(self.folder):
            if raw.kind == journal.SESSION:
                current = PastRun(len(self.runs) + 1, self._facts(raw))
                self.runs.append(current)
            elif raw.kind == journal.TALLY:
                _count(current, self._facts(raw))
            elif raw.kind in (journal.CALL, journal.FAILED):
                self._take(PastCall(raw.meta[:16], current, journal.kept(raw), -1))
            elif raw.kind == journal.BLOCK:
                block = journal.block(raw)
                for offset in range(block.size):
                    key = block.keys[16 * offset : 16 * offset + 16]
                    if any(key):
                        self._take(PastCall(key, current, block, offset))

    def _facts(self, raw: Raw) -> Facts:
        try:
            return journal.unpacked(body_of(self.folder, raw))
        except Damaged:
            return {}

    def _take(self, entry: PastCall) -> None:
        code = self._code(entry.found.function)
        if code is not None:
            entry.code, entry.name = code, code["name"]
        if entry.failed:
            self.failures.append(entry)
        else:
            self.entries[entry.key] = entry
            entry.run.executed += 1

    def _code(self, digest: bytes) -> Facts | None:
        if digest not in self._codes:
            self._codes[digest] = self.index.code(digest)
        return self._codes[digest]

    def find(self, text: str) -> list[PastCall]:
        """Find the calls that a text means: the beginning of a key, a name, or ``name#place``.

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

    def input(self, beginning: bytes) -> PastCall | None:
        """Find the call whose key begins like that."""
        if not self._beginnings:
            self._beginnings = {key[:8]: entry for key, entry in self.entries.items()}
        return self._beginnings.get(beginning)

    def body(self, entry: PastCall) -> bytes:
        """Read the body of a call's record.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        return body_of(self.folder, entry.found.raw)

    def log(self, entry: PastCall) -> bytes:
        """Return what the call printed."""
        start, size = entry.found.sizes[:2]
        text = self.body(entry)[start : start + size]
        if isinstance(entry.found, Block) and entry.found.marks:
            begin, end = entry.found.marks[entry.offset : entry.offset + 2]
            return text[begin:end]
        return text

    def size(self, entry: PastCall) -> int:
        """Return the size of the call's result in bytes."""
        if isinstance(entry.found, Block):
            return entry.found.sizes[2] // entry.found.size
        if entry.found.flags & journal.AS_FILE:
            return self.folder.file_size(journal.result_file(entry.key)) or 0
        return entry.found.sizes[2]

    def trust(self, what: str, *, given: bool) -> None:
        """Get ready to unpickle what is there. That runs whatever code the pickles name.

        Parameters
        ----------
        what : str
            The command that is to unpickle, for messages.
        given : bool
            Whether the user of the command trusts the owner of the checkpoint.

        Raises
        ------
        CheckpointUnusable
            It belongs to somebody else who is not trusted, or anybody may have written to it.
        """
        written, owner = self.folder.strangers()
        runs = f"`{what}` runs code that it finds there, with your rights"
        if written:
            raise CheckpointUnusable(self.where, f"{written}; {runs}, and that may be anybody's")
        if owner and not given:
            raise CheckpointUnusable(self.where, f"{owner}; {runs}; if you trust them, add --trust")
        self.folder.trusting = given

    def value(self, entry: PastCall, index: int = 0) -> Any:
        """Read a value of the call.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        values = values_of(self.folder, entry.found)
        if entry.offset < 0:
            return values[index]
        items: Sequence[object] = values[0]  # type: ignore[assignment]  # of a block
        return items[entry.offset]

    def function(self, entry: PastCall) -> Callable[..., object]:
        """Read the call's function.

        Raises
        ------
        Damaged
            Its record is damaged.
        """
        if not entry.code:
            raise Damaged
        data, buffers = self.unpack(entry.code["pickle"], entry.code["flags"])
        return function_of(data, buffers)

    def module_text(self, digest: bytes) -> bytes | None:
        """Return the file of a module as a run had it; None: it was not kept."""
        try:
            return bytes(self._part(digest))
        except Damaged:
            return None

    def arguments(self, entry: PastCall) -> tuple[tuple[object, ...], dict[str, object]]:
        """Read the call's arguments, with the values of its inputs.

        Raises
        ------
        Damaged
            The arguments or an input are not there.
        """
        found = entry.found
        data, buffers = self.unpack(self.body(entry)[: found.sizes[0]], found.flags)
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
            items: Sequence[Any] = args[0]  # type: ignore[assignment]  # as `MapCall.block` has them
            item = items[entry.offset]
            return (tuple(item) if found.flags & journal.SPREAD else (item,)), {}
        return args, kwargs

    def unpack(self, packed: bytes, flags: int) -> tuple[Buffer, list[Buffer]]:
        """Return the pickle of arguments or of a function, and its large parts.

        Raises
        ------
        Damaged
            They were not kept, or a part is gone or damaged.
        """
        if flags & journal.NO_ARGUMENTS:
            raise Damaged
        if not flags & journal.PARTED:
            return packed, []
        held, digests = pickle.loads(packed)
        parts = [self._part(digest) for digest in digests]
        return (parts.pop(0) if held is None else held), parts

    def _part(self, digest: bytes) -> Buffer:
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


def records_of(folder: Folder) -> Iterator[Raw]:
    """Give all records of a journal that are whole."""
    for number, view in folder.segments():
        for one in journal.scan(number, view):
            if isinstance(one, Raw):
                yield one


def _count(run: PastRun, facts: Facts) -> None:
    if not facts:
        return
    run.reused += facts["reused"]
    run.saved_s += facts["saved_s"]
    run.entropy = facts["entropy"]
    run.used.extend(journal.unpacked_positions(facts["used"]))


__all__ = ["Damaged", "History", "PastCall", "PastRun", "records_of"]
