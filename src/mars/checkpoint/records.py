"""Makes the records of calls that are done, and the files of their large parts.

All of this runs in the journal's thread. Called by `mars.checkpoint.checkpoint`.
"""

from __future__ import annotations

import array
import inspect
import marshal
import pickle
import time
import weakref
import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

from mars.checkpoint import journal
from mars.checkpoint.folder import Folder
from mars.checkpoint.framing import ALIGN, framed, framed_bytes
from mars.checkpoint.identity import Code, Identity, MapIdentity, place_of
from mars.checkpoint.journal import NO_ITEM
from mars.checkpoint.writer import Writer
from mars.code.modules import text_of
from mars.engine import Engine
from mars.engines.outcome import TaskLog
from mars.logs import last_bytes
from mars.settings import (
    CHECKPOINT_ARGUMENT_BYTES,
    CHECKPOINT_LOG_BYTES,
    CHECKPOINT_SOURCE_LINES,
)
from mars.task import TIMING, Call, Task

if TYPE_CHECKING:
    from mars.calls.maps import MapCall
    from mars.checkpoint.folder import Data
    from mars.task import Buffer


class Records:
    """Makes records of tasks that are done.

    Parameters
    ----------
    engine : Engine
        Has the results.
    folder : Folder
        Takes large results and large parts of arguments as files.
    writer : Writer
        Knows which functions are written.
    """

    def __init__(self, engine: Engine, folder: Folder, writer: Writer) -> None:
        self._engine, self._folder, self._writer = engine, folder, writer
        self._argument_bytes = folder.inline_bytes // 16  # arguments beyond this become a file
        # Digests of large parts that were looked at, by the object that holds the part. Most
        # objects can be asked whether they still live; the others are held until `forget_parts`.
        self._buffers: dict[tuple[int, int], tuple[bytes | None, Callable[[], object]]] = {}

    def forget_parts(self) -> None:
        """Let go of what large parts of arguments belong to."""
        self._buffers.clear()

    def _code(self, call: Call, code: Code) -> list[list[Data]]:
        """Make the record of a function, if it was not written yet."""
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
        """Keep the files of the modules that a function imports, and return their digests."""
        kept = []
        for source in code.sources:
            text = text_of(source.digest)
            if text is not None and self._kept_buffer(text) == source.digest:
                kept.append(source.digest)
        return kept

    def call(self, task: Task, known: Identity, kind: int = journal.CALL) -> list[list[Data]]:
        """Make the record of a call, after that of its function if this is its first call."""
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
        return [*self._code(call, known.code), own]

    def _result(self, key: bytes, task: Task) -> tuple[list[Data], int]:
        """Return a call's result as it stands in the record, and flags."""
        if task.call.n_output is not None:
            return self._stored(key, [self._parts(value) for value in task.result])
        data, buffers = self._engine.pickled(task.result)
        if isinstance(data, bytes) and not buffers and len(data) <= self._folder.inline_bytes:
            return framed_bytes(data), 0
        return self._stored(key, [[data, *buffers]])

    def block(self, task: Task, of_map: MapIdentity) -> list[list[Data]]:
        """Make the record of some items of a map, after that of its function if it is new."""
        call = cast("MapCall", task.call)
        packed, failures, marks, *_ = task.result
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
        place = place_of(call) or (0,)
        meta = journal.BLOCK_META.pack(
            of_map.code.digest[:8], len(arguments), len(log), started, *spans, place[0],
            len(items), flags | more | _form_of(call),
        )  # fmt: skip
        meta += keys + digests + array.array("I", [*items, *ends]).tobytes()
        body = [arguments, log, *result]
        return [
            *self._code(call, of_map.code),
            journal.record(journal.BLOCK, meta, [part for part in body if len(part)]),
        ]

    def _parts(self, value: object) -> list[Buffer]:
        data, buffers = self._engine.pickled(value)
        return [data, *buffers]

    def _stored(self, key: bytes, values: list[list[Buffer]]) -> tuple[list[Data], int]:
        """Return a result as it stands in the record, or a note about its file, and flags."""
        folder = self._folder
        if len(values) == 1 and len(values[0]) == 1:
            size = memoryview(values[0][0]).nbytes
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

    def _arguments(self, payload: bytes, buffers: Sequence[Buffer]) -> tuple[bytes, int]:
        """Return arguments as they stand in a record, and flags. Large parts become files."""
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

    def _kept_buffer(self, buffer: Buffer) -> bytes | None:
        view = buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)
        view = view.cast("B")
        key = (id(view.obj), view.nbytes)
        known = self._buffers.get(key)
        if known is None or known[1]() is not view.obj:
            digest = None
            if view.nbytes <= CHECKPOINT_ARGUMENT_BYTES:
                digest = blake2b(view, digest_size=16).digest()
                name = journal.argument_file(digest)
                if self._folder.file_size(name) != view.nbytes:
                    self._folder.write_file(name, [view])
            known = self._buffers[key] = (digest, _reference(view.obj))
        return known[0]


def _reference(one: object) -> Callable[[], object]:
    try:
        return weakref.ref(one)
    except TypeError:  # bytes, for example
        return lambda: one


def _form_of(call: MapCall) -> int:
    """Return a flag: how a map's arguments stand in a record."""
    if call.taken is not None:
        return journal.ROWS
    return journal.SPREAD if call.spread else 0


def _log(task: Task) -> bytes:
    """Return what a call printed. If that is very much, only the end is kept."""
    if not task.logs:
        return b""
    return last_bytes(TaskLog(task, lambda _: None), CHECKPOINT_LOG_BYTES)


def _relative(marks: Sequence[int], size: int) -> list[int]:
    """Turn the places where items' logs begin into places in the end of the log that is kept."""
    first = marks[-1] - size
    return [min(max(mark - first, 0), size) for mark in marks]


def _moments(task: Task) -> tuple[float, tuple[float, float, float, float]]:
    if task.timing is None:
        return time.time(), (0.0, 0.0, 0.0, 0.0)
    a, b, c, d, e = TIMING.unpack(task.timing)
    spans = ((b - a) * 1e-9, (c - b) * 1e-9, (d - c) * 1e-9, (e - d) * 1e-9)
    return a * 1e-9 + time.time() - time.monotonic(), spans


def _sources(code: Code) -> dict[str, tuple[str, int, str]]:
    """Return the source text of a function's parts, where it can be found."""
    found = {}
    for part, one in code.codes.items():
        try:
            lines, first = inspect.getsourcelines(one)
        except (OSError, TypeError, IndexError, SyntaxError):
            continue
        if len(lines) <= CHECKPOINT_SOURCE_LINES:
            found[part] = (one.co_filename, max(first, 1), "".join(lines))
    return found
