"""What a session keeps in its checkpoint, and finds there instead of running it.

Before a run: every call that it needs gets an identity, in the order in which an undisturbed run
would go, so that places for random numbers and equal calls are counted alike however much is
there already. What the journal has becomes a task that is done; its result is read when somebody
asks. During a run the engine says what has landed, and the journal's thread writes it down.
Called by `mars.session`; knows engines by their contract only.

::

    prepare ─ identity of each call ─► Index ─► KeptTask, or the call is missing
    landed  ─ engine's thread ─► Writer ─► records
"""

from __future__ import annotations

import array
import inspect
import marshal
import os
import pickle
import platform
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final

from mars.attempt.capture import Log
from mars.checkpoint import identity, journal
from mars.checkpoint.framing import ALIGN, framed, framed_bytes
from mars.checkpoint.identity import Arrays, Code, Identity, Unidentified
from mars.checkpoint.index import Index
from mars.checkpoint.journal import NO_ITEM, Block, Kept
from mars.checkpoint.opening import close_journal, open_journal
from mars.checkpoint.reading import Damaged, body_of, is_whole, result_of, values_of
from mars.checkpoint.writer import Entry
from mars.code.modules import text_of
from mars.engine import Engine, Run
from mars.engines.outcome import TaskLog
from mars.items import ItemCall, MapCall
from mars.logs import last_bytes
from mars.settings import (
    CHECKPOINT_ARGUMENT_BYTES,
    CHECKPOINT_CHECK_BYTES,
    CHECKPOINT_LARGE_COST,
    CHECKPOINT_LOG_BYTES,
)
from mars.task import TIMING, Call, Stage, Task


class MapIdentity:
    """What the items of a map are.

    Attributes
    ----------
    code : Code
        Of their function.
    keys, arguments : bytearray
        16 bytes, and a digest of its arguments, for each item; zeros for one without.
    """

    __slots__ = ("arguments", "code", "keys")

    def __init__(self, code: Code, keys: bytearray, arguments: bytearray) -> None:
        self.code, self.keys, self.arguments = code, keys, arguments

    def key(self, item: int) -> bytes:
        """Of one item."""
        return bytes(self.keys[16 * item : 16 * item + 16])


class KeptTask(Task):
    """A call that is done because a checkpoint has its result, which is read when it is needed."""

    __slots__ = ("_loaded", "_value", "checkpoint", "found")

    def __init__(self, call: Call, checkpoint: Checkpoint, found: Kept | Block) -> None:
        self._value: Any = None
        self._loaded = False
        super().__init__(call, checkpoint.realm)
        self.checkpoint = checkpoint
        self.found = found
        self.stage = Stage.DONE
        self.queued_at = self.ready_at = self.sent_at = found.started + checkpoint.offset_s
        if found.sizes[1]:
            # Looks like what a worker printed to whoever reads logs.
            segment: Any = _KeptLog(checkpoint.index, found.raw, found.sizes)
            self.logs = (Log(segment, 0, found.sizes[1]),)

    @property
    def result(self) -> Any:
        """The result as its engine keeps it."""
        if not self._loaded and self._value is None:
            self.load()
        return self._value

    @result.setter
    def result(self, value: Any) -> None:
        self._value = value

    @property
    def timing(self) -> bytes | None:
        """When it went through its stages, in the time of this process."""
        moments = [self.sent_at]
        for span in self.found.spans:
            moments.append(moments[-1] + span)
        return TIMING.pack(*[int(moment * 1e9) for moment in moments])

    @timing.setter
    def timing(self, value: bytes | None) -> None:
        """Its times are those of the journal."""

    def load(self) -> None:
        """Read the result.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        with self.checkpoint.lock:
            if not self._loaded:
                self.checkpoint.install(self)
                self._loaded = True

    def wrap(self, marks: Sequence[int] | None) -> None:
        """Give the result the form that it has for some items of a map."""
        self._value = (self._value, {}, marks, {})


class _KeptLog:
    """What a call printed in an earlier run."""

    def __init__(self, index: Index, raw: journal.Raw, sizes: tuple[int, int, int]) -> None:
        self._index, self._raw, self._sizes = index, raw, sizes

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        try:
            body = body_of(self._index.folder, self._raw)
        except Damaged:
            return b""
        begin, size = self._sizes[0], self._sizes[1]
        return body[begin : begin + size][start : start + limit]

    def kept_from(self, start: int) -> int:
        """``start``: nothing is left out of what was kept."""
        return start


class Checkpoint:
    """What one session keeps.

    Attributes
    ----------
    where : str
        Folder or URL.
    reused, executed : int
        Calls of this session so far that were found, and that were run.
    saved_s : float
        Seconds that the found ones took when they ran.
    """

    def __init__(
        self, where: str, realm: Any, engine: Engine, tell: Callable[[str], object]
    ) -> None:
        self.where = where
        self.realm = realm
        self.reused = self.executed = 0
        self.saved_s = 0.0
        self.lock = threading.RLock()
        self.offset_s = time.monotonic() - time.time()
        self._engine = engine
        self._tell = tell
        self._journal = open_journal(where, tell)
        self.index = self._journal.index
        self._writer = self._journal.writer
        self._argument_bytes = self.index.folder.inline_bytes // 16  # in a record; beyond, a file
        self._ordinals: dict[bytes, int] = {}
        self._told: set[str] = set()
        # Large parts of arguments that are written, by the object that has them: most objects can
        # be asked whether they live, others are held until no run needs them.
        self._buffers: dict[tuple[int, int], tuple[bytes | None, Callable[[], object]]] = {}
        self._runs = 0  # that are not over
        self._last: tuple[int, Any] = (-1, None)  # the block that was read last, and its values
        self._began = False
        self._closed = False

    # -- before a run -------------------------------------------------------------------------

    def identify(self, calls: Iterable[Call], entropy: int | None) -> None:
        """Give calls their identities; inputs come first."""
        arrays = Arrays()
        identity.look_again()
        with self.lock:
            for call in calls:
                self._identify(call, entropy, arrays)

    def _identify(self, call: Call, entropy: int | None, arrays: Arrays) -> None:
        if hasattr(call, "identity"):  # not the first time
            known = self._of(call)
            if known is not _UNKNOWN and not (known is not None and known.code.draws):
                return
        for source, _ in call.inputs:
            if self._of(source) is _UNKNOWN:  # done before this session had the checkpoint
                self._identify_all(source, entropy, arrays)
        found: Identity | MapIdentity | None = None
        if call.options.cache:
            try:
                found = self._made(call, entropy, arrays)
            except Unidentified as error:
                self._not_kept(call, error)
        call.identity = (self, found)

    def _identify_all(self, last: Call, entropy: int | None, arrays: Arrays) -> None:
        pending = [last]
        while pending:
            call = pending[-1]
            missing = [one for one, _ in call.inputs if self._of(one) is _UNKNOWN]
            if missing:
                pending.extend(missing)
                continue
            pending.pop()
            if self._of(call) is _UNKNOWN:
                self._identify(call, entropy, arrays)

    def _of(self, call: Call) -> Any:
        known = getattr(call, "identity", None)
        return known[1] if known is not None and known[0] is self else _UNKNOWN

    def _not_kept(self, call: Call, error: Unidentified) -> None:
        name = call.function.name
        if name not in self._told:
            self._told.add(name)
            self._tell(
                f"mars: calls of {name} are not kept in the checkpoint: {error}. Pass what it is "
                f"made from, or say cache=False if they are to run each time."
            )

    def _made(
        self, call: Call, entropy: int | None, arrays: Arrays
    ) -> Identity | MapIdentity | None:
        if type(call) is Call:
            pass  # of most programs all
        elif isinstance(call, MapCall):
            return self._map(call, entropy, arrays)
        elif isinstance(call, ItemCall) and not call.inputs:
            whole = call.map
            if self._of(whole) is _UNKNOWN:
                self._identify(whole, entropy, arrays)
            of_map = self._of(whole)
            if of_map is None:
                return None
            key = of_map.key(call.index)
            if key == NO_ITEM:
                return None
            digests = bytes(of_map.arguments[8 * call.index : 8 * call.index + 8])
            return Identity(key, of_map.code, digests, (), (), 0, _place(call))
        inputs = []
        for source, at in call.inputs:
            of_source = self._of(source)
            if not isinstance(of_source, Identity):
                return None  # what it is made from runs each time
            inputs.append((of_source.key, at))
        code = identity.code_of(call.function)
        arguments, names, draws = identity.arguments_of(call, arrays)
        draws |= code.draws
        place = _place(call)
        draw = marshal.dumps((entropy, place), 2) if draws else b""
        depends = call.options.depends
        declared = b"" if depends is None else identity.value_digest(depends)
        of_inputs = tuple(inputs)
        base = identity.base_key(code, arguments, names, of_inputs, call.n_output, declared, draw)
        # One that draws has a place of its own already.
        ordinal = 0 if draws else self._next(base)
        key = identity.key_of(base, ordinal) if ordinal else base
        return Identity(key, code, arguments, names, of_inputs, ordinal, place)

    def _next(self, base: bytes) -> int:
        ordinal = self._ordinals.get(base, 0)
        self._ordinals[base] = ordinal + 1
        return ordinal

    def _map(self, call: MapCall, entropy: int | None, arrays: Arrays) -> MapIdentity:
        code = identity.code_of(call.function)
        depends = call.options.depends
        declared = b"" if depends is None else identity.value_digest(depends)
        (first,) = _place(call) or (0,)
        keys, digests = bytearray(16 * call.count), bytearray(8 * call.count)
        for index in range(call.count):
            if index in call.own:  # it holds objects, and is a call of its own
                continue
            arguments, _, draws = identity.digests_of(call.arguments(index), {}, arrays)
            draws |= code.draws
            draw = marshal.dumps((entropy, (first, index)), 2) if draws else b""
            base = identity.base_key(code, arguments, (), (), None, declared, draw)
            key = base if draws else identity.key_of(base, self._next(base))
            keys[16 * index : 16 * index + 16] = key
            digests[8 * index : 8 * index + 8] = (
                arguments if len(arguments) == 8 else blake2b(arguments, digest_size=8).digest()
            )
        return MapIdentity(code, keys, digests)

    def recall(self, call: Call) -> bool:
        """Whether a call that has no task here is done; then it has one from now on."""
        of_call = self._of(call)
        if isinstance(of_call, MapIdentity):
            return self._recall_map(call, of_call)  # type: ignore[arg-type]
        if of_call is None or of_call is _UNKNOWN:
            return False
        found = self.index.find(of_call.key)
        if found is None or found[0].kind != journal.CALL:
            if found is not None and isinstance(call, ItemCall):
                return self._recall_item(call, *found)
            return False
        kept = journal.kept(found[0])
        if not self._sound(kept):
            return False
        self._settle(call, KeptTask(call, self, kept))
        return True

    def _settle(self, call: Call, task: Task) -> None:
        task.elsewhere, call.task = call.task, task
        call.satisfy()

    def _sound(self, found: Kept | Block) -> bool:
        """Whether a result can be read. One that is a file is looked at when it is needed."""
        if not found.flags & journal.AS_FILE and found.raw.body_size <= CHECKPOINT_CHECK_BYTES:
            return True  # its check fitted when the journal was opened
        folder = self.index.folder
        try:
            if isinstance(found, Block):  # many objects will want it, and none can do without
                result_of(folder, found, body_of(folder, found.raw))
                return True
            body = body_of(folder, found.raw)
        except Damaged:
            return False
        return is_whole(folder, found, body)

    def _recall_map(self, call: MapCall, of_map: MapIdentity) -> bool:
        """Take the items that are there as blocks of the map; the others are missing."""
        blocks: dict[int, tuple[Block, dict[int, int]]] = {}
        parts: list[Task] = []
        count = 0
        for index in range(call.count):
            if index in call.made or index in call.own:
                continue
            found = self.index.find(of_map.key(index))
            if found is None:
                continue
            raw, offset = found
            if offset < 0:  # then it was a call of its own
                kept = journal.kept(raw)
                if raw.kind == journal.CALL and self._sound(kept):
                    single = KeptTask(call, self, kept)
                    single.items = range(index, index + 1)
                    parts.append(single)
                    count += 1
                continue
            there = blocks.get(raw.position)
            if there is None:
                there = blocks[raw.position] = (journal.block(raw), {})
            there[1][offset] = index
        for block, offsets in blocks.values():
            if self._sound(block):
                parts.append(self._block(call, block, offsets))
                count += len(offsets)
        own = len(call.made) + len(call.own - call.made.keys())
        task = Task(call, self.realm)
        task.parts = parts
        task.size = call.count
        done = count + own == call.count and not own
        # Not done: the next task of the map begins with these parts.
        task.stage = Stage.DONE if done else Stage.ABANDONED
        if parts or done:
            task.elsewhere, call.task = call.task, task
        return done

    def _block(self, call: Call, block: Block, offsets: dict[int, int]) -> Task:
        task = KeptTask(call, self, block)
        # Places of the block that are no items of this map have numbers that nobody asks for.
        task.items = [offsets.get(offset, -1 - offset) for offset in range(block.size)]
        if task.items == list(range(task.items[0], task.items[0] + block.size)):
            task.items = range(task.items[0], task.items[0] + block.size)
        return task

    def _recall_item(self, call: ItemCall, raw: journal.Raw, offset: int) -> bool:
        if self._last[0] != raw.position:
            block = journal.block(raw)
            if not self._sound(block):
                return False
            try:
                self._last = raw.position, values_of(self.index.folder, block)[0]
            except Damaged:
                return False
        task = Task(call, self.realm)
        task.stage = Stage.DONE
        self._engine.install(task, self._last[1][offset])
        self._settle(call, task)
        return True

    def install(self, task: KeptTask) -> None:
        """Read a result and hand it to the engine.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        found = task.found
        values = values_of(self.index.folder, found)
        if task.items is not None:  # some of a map
            items = values[0] if isinstance(found, Block) else values
            self._engine.install(task, items)
            task.wrap(found.marks or None if isinstance(found, Block) else (0, found.sizes[1]))
            whole = task.call.task_in(self.realm)
            if whole is not None and task.stored:
                whole.stored = True
        else:
            self._engine.install(task, values[0] if task.call.n_output is None else values)

    def forget(self, task: KeptTask) -> None:
        """A result turned out to be damaged: its call is missing again."""
        of_call = self._of(task.call)
        if isinstance(of_call, Identity):
            self.index.calls.pop(of_call.key, None)
        task.call.leave(task)
        self._tell(
            f"mars: the result of {task.call.name} in the checkpoint {self.where} is damaged; the "
            f"call runs again"
        )

    def load_inputs(self, missing: Iterable[Call]) -> bool:
        """Read what calls are about to need; False: something is damaged, look again."""
        sound = True
        for call in missing:
            for source, _ in call.inputs:
                task = source.task_in(self.realm) if source.task is not None else None
                if isinstance(task, KeptTask):
                    try:
                        task.load()
                    except Damaged:
                        self.forget(task)
                        sound = False
        return sound

    def count(self, needed: Sequence[Call], missing: Sequence[Call], run: Run) -> None:
        """Note what a run finds here."""
        if not self._began:
            self._began = True
            self._add_record(journal.SESSION, _about_us)
        absent = set(missing)
        used: dict[int, None] = {}
        found = total = 0
        saved_s = 0.0
        for call in needed:
            of_call = self._of(call)
            if isinstance(of_call, MapIdentity):
                total += call.count  # type: ignore[attr-defined]
                task = call.task_in(self.realm)
                for part in (task.parts or ()) if task is not None else ():
                    if isinstance(part, KeptTask):
                        used[part.found.raw.position] = None
                        there = sum(index >= 0 for index in part.items)
                        found += there
                        saved_s += part.found.spans[2] * there / len(part.items)
                continue
            total += 1
            if call in absent or not isinstance(of_call, Identity) or of_call.counted:
                continue
            of_call.counted = True
            task = call.task_in(self.realm) if call.task is not None else None
            if isinstance(task, KeptTask) and isinstance(task.found, Kept):
                found += 1
                used[task.found.raw.position] = None
                saved_s += task.found.spans[2]
                continue
            place = self.index.find(of_call.key)  # an input of one that is there
            if place is not None:
                found += 1
                used[place[0].position] = None
                if place[0].kind == journal.CALL:
                    saved_s += journal.kept(place[0]).seconds
        run.reused, run.saved_s = found, saved_s
        self.reused += found
        self.saved_s += saved_s
        positions = sorted(used)
        deltas = array.array("Q", [b - a for a, b in pairwise([0, *positions])])
        facts = {
            "at": time.time(), "calls": total, "reused": found, "saved_s": saved_s,
            "entropy": run.entropy, "used": zlib.compress(deltas.tobytes(), 1),
        }  # fmt: skip
        self._add_record(journal.TALLY, lambda: facts)

    def _add_record(self, kind: int, facts: Callable[[], dict[str, Any]]) -> None:
        self._writer.add(
            Entry(lambda: [journal.record(kind, b"", [journal.packed(facts())])], (), _nothing, 256)
        )

    # -- during a run -------------------------------------------------------------------------

    def landed(self, task: Task) -> None:
        """A call, or some items of a map, are done; called by the engine.

        The engine has counted one more handle of the call, so that its result stays.
        """
        call = task.call
        of_call = self._of(call)
        if of_call is None or of_call is _UNKNOWN or self._closed:
            call.drop()
            return
        self.executed += 1 if task.items is None else len(task.items)
        if isinstance(of_call, MapIdentity):
            result = task.result[0]
            encode: Callable[..., list[list[Any]]] = self._block_record
        else:
            key = of_call.key
            if key in self.index.calls:
                call.drop()
                return
            result = task.result
            encode = self._call_record
        cost = len(result) + 256 if type(result) is bytes else CHECKPOINT_LARGE_COST
        self._writer.add(Entry(encode, (task, of_call), call.drop, cost))

    def failed(self, calls: Iterable[Call]) -> None:
        """Keep what is needed to run failed calls again by hand; never their errors as results."""
        for call in calls:
            of_call = self._of(call)
            task = call.task_in(self.realm) if call.task is not None else None
            if task is None or task.stage is not Stage.FAILED or task.failed_input is not None:
                continue
            if isinstance(of_call, Identity):
                about = (task, of_call, journal.FAILED)
                self._writer.add(Entry(self._call_record, about, _nothing, 4096))

    def flush(self) -> None:
        """Return when all that has landed is written."""
        self._writer.flush()

    def close(self) -> None:
        """Have all on the disk, and let others use the folder; idempotent."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
        close_journal(self._journal)
        if self._writer.lost:
            self._tell(
                f"mars: {self._writer.lost} result(s) of this program are not in the checkpoint "
                f"{self.where}; a rerun makes them again"
            )

    # -- records, in the journal's thread -----------------------------------------------------

    def _code_record(self, call: Call, code: Code) -> list[list[Any]]:
        """What is known of a function, before its first call."""
        digest = code.digest[:8]
        if digest in self._writer.codes:
            return []
        function = call.function
        packed, flags = self._arguments(function.data, function.buffers)
        facts = {
            "name": function.name, "parameters": code.parameters, "parts": code.parts,
            "draws": code.draws,
            "sources": _sources(code), "pickle": packed, "flags": flags,
            "modules": self._kept_modules(code),
        }  # fmt: skip
        self._writer.codes.add(digest)
        return [journal.record(journal.CODE, digest, [journal.packed(facts)])]

    def _kept_modules(self, code: Code) -> list[bytes]:
        """Keep the files of the modules that a function imports; what they are called here."""
        kept = []
        for source in code.sources:
            text = text_of(source.digest)
            if text is not None and self._kept_buffer(text) == source.digest:
                kept.append(source.digest)
        return kept

    def _call_record(
        self, task: Task, known: Identity, kind: int = journal.CALL
    ) -> list[list[Any]]:
        """A call as a record, with that of its function when it is the first of it."""
        call = task.call
        if kind == journal.CALL:
            result, flags = self._result(known.key, task)
        else:
            failure = task.result if isinstance(task.result, bytes) else b""
            result, flags = [failure], 0
        arguments, stored = call.payload, call.stored
        if stored is not None or len(arguments) > self._argument_bytes:
            buffers = [x for x in stored or () if x is not arguments]
            arguments, more = self._arguments(arguments, buffers)
            flags |= more
        log = _log(task) if task.logs else b""
        started, spans = _moments(task)
        place = known.place
        digests = known.arguments
        given, inputs = known.names, known.inputs
        if len(digests) > 8 * 255:
            digests, given = b"", ()
        if len(inputs) > journal.INPUTS_KEPT:
            arguments, inputs = b"", ()
            flags |= journal.NO_ARGUMENTS
        function = known.code.digest[:8]
        meta = journal.CALL_META.pack(
            known.key, function, len(arguments), len(log), started, *spans,
            place[0], place[1] if len(place) > 1 else journal.WHOLE, known.ordinal,
            len(digests) // 8, len(given), len(inputs), call.n_output or 0, flags,
        ) + digests  # fmt: skip
        if inputs:
            meta += b"".join([key[:8] + at.to_bytes(2, "little") for key, at in inputs])
        if given:
            meta += marshal.dumps(given, 2)
        body = [arguments, log, *result] if log else [arguments, *result]
        own = journal.record(kind, meta, body)
        if function in self._writer.codes:
            return [own]
        return [*self._code_record(call, known.code), own]

    def _result(self, key: bytes, task: Task) -> tuple[list[Any], int]:
        """A call's result as it stands in the record."""
        if task.call.n_output is not None:
            return self._stored(key, [self._parts(value) for value in task.result])
        data, buffers = self._engine.pickled(task.result)
        if type(data) is bytes and not buffers and len(data) <= self.index.folder.inline_bytes:
            return framed_bytes(data), 0
        return self._stored(key, [[data, *buffers]])

    def _block_record(self, task: Task, of_map: MapIdentity) -> list[list[Any]]:
        call: Any = task.call
        packed, failures, marks, _ = task.result
        items = task.items
        keys = b"".join(
            NO_ITEM if offset in failures else of_map.key(index)
            for offset, index in enumerate(items)
        )
        digests = b"".join(bytes(of_map.arguments[8 * i : 8 * i + 8]) for i in items)
        result, flags = self._stored(journal.block_key(keys), [self._parts(packed)])
        data, buffers = call.block(items)
        arguments, more = self._arguments(data, buffers)
        log = _log(task)
        ends = [] if not log or marks is None else _relative(marks, len(log))
        started, spans = _moments(task)
        place = _place(call) or (0,)
        meta = journal.BLOCK_META.pack(
            of_map.code.digest[:8], len(arguments), len(log), started, *spans, place[0],
            len(items), flags | more | _form_of(call),
        )  # fmt: skip
        meta += keys + digests + array.array("I", [*items, *ends]).tobytes()
        body = [arguments, log, *result]
        return [
            *self._code_record(call, of_map.code),
            journal.record(journal.BLOCK, meta, [part for part in body if len(part)]),
        ]

    def _parts(self, value: Any) -> list[Any]:
        data, buffers = self._engine.pickled(value)
        return [data, *buffers]

    def _stored(self, key: bytes, values: list[list[Any]]) -> tuple[list[Any], int]:
        """A result as it stands in the record, or a note about the file that it is in."""
        folder = self.index.folder
        if len(values) == 1 and len(values[0]) == 1:
            size = len(values[0][0])
        else:
            size = sum(memoryview(part).nbytes for parts in values for part in parts)
        if size <= folder.inline_bytes:
            return framed(values), 0
        parts = framed(values, ALIGN)
        check = size = 0
        for part in parts:
            check = zlib.crc32(part, check)
            size += len(part)
        folder.write_file(journal.result_file(key), parts)
        return [journal.file_note(size, check)], journal.AS_FILE

    def _arguments(self, payload: bytes, buffers: Sequence[Any]) -> tuple[bytes, int]:
        """Arguments as they stand in a record; large parts are files, each content once."""
        if not buffers and len(payload) <= self._argument_bytes:
            return payload, 0
        digests = [self._kept_buffer(buffer) for buffer in buffers]
        held: bytes | None = payload
        if len(payload) > self._argument_bytes:
            held = None
            digests.insert(0, self._kept_buffer(payload))
        if None in digests:
            return b"", journal.NO_ARGUMENTS
        return pickle.dumps((held, digests), 5), journal.PARTED

    def _kept_buffer(self, buffer: Any) -> bytes | None:
        view = buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)
        view = view.cast("B")
        key = (id(view.obj), view.nbytes)
        known = self._buffers.get(key)
        if known is None or known[1]() is not view.obj:
            digest = None
            if view.nbytes <= CHECKPOINT_ARGUMENT_BYTES:
                digest = blake2b(view, digest_size=16).digest()
                name = journal.argument_file(digest)
                if self.index.folder.file_size(name) != view.nbytes:
                    self.index.folder.write_file(name, [view])
            known = self._buffers[key] = (digest, _reference(view.obj))
        return known[0]

    def run_begins(self) -> None:
        """A run begins whose calls are kept."""
        with self.lock:
            self._runs += 1

    def run_over(self, _: object = None) -> None:
        """It is over: what its calls had is let go of as soon as it is written."""
        self._writer.add(Entry(self._let_go, (), _nothing, 0))

    def _let_go(self) -> list[list[Any]]:
        with self.lock:
            self._runs -= 1
            if not self._runs:
                self._buffers.clear()
        return []


_UNKNOWN: Final = object()


def _nothing() -> None:
    pass


def _reference(one: object) -> Callable[[], object]:
    try:
        return weakref.ref(one)
    except TypeError:  # such as bytes
        return lambda: one


def _form_of(call: Any) -> int:
    """How a map's arguments stand in a record."""
    if call.taken is not None:
        return journal.ROWS
    return journal.SPREAD if call.spread else 0


def _place(call: Call) -> tuple[int, ...]:
    place = call.place
    if place is None:
        return (0,)
    return place if isinstance(place, tuple) else (place,)


def _log(task: Task) -> bytes:
    """What a call printed; of very much, the end."""
    if not task.logs:
        return b""
    return last_bytes(TaskLog(task, lambda _: None), CHECKPOINT_LOG_BYTES)


def _relative(marks: Sequence[int], size: int) -> list[int]:
    """Where items' logs begin in the log that is kept, of which the end is there."""
    first = marks[-1] - size
    return [min(max(mark - first, 0), size) for mark in marks]


def _moments(task: Task) -> tuple[float, tuple[float, float, float, float]]:
    if task.timing is None:
        return time.time(), (0.0, 0.0, 0.0, 0.0)
    a, b, c, d, e = TIMING.unpack(task.timing)
    spans = ((b - a) * 1e-9, (c - b) * 1e-9, (d - c) * 1e-9, (e - d) * 1e-9)
    return a * 1e-9 + time.time() - time.monotonic(), spans


def _sources(code: Code) -> dict[str, tuple[str, int, str]]:
    """Source text of a function's parts, where it can be found."""
    found = {}
    for part, one in code.codes.items():
        try:
            lines, first = inspect.getsourcelines(one)
        except (OSError, TypeError, IndexError, SyntaxError):
            continue
        if len(lines) <= _SOURCE_LINES:
            found[part] = (one.co_filename, max(first, 1), "".join(lines))
    return found


_SOURCE_LINES: Final = 2000


def _about_us() -> dict[str, Any]:
    from mars._version import __version__

    return {
        "at": time.time(), "pid": os.getpid(), "host": platform.node(), "program": sys.argv[:1],
        "arguments": sys.argv[1:], "folder": os.getcwd(), "python": platform.python_version(),
        "mars": __version__,
    }  # fmt: skip


__all__ = ["Checkpoint", "Damaged", "KeptTask"]
