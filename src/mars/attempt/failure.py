"""Exceptions that travel: out of a worker with their own type, message, frames and chain.

Any exception class may be hostile without meaning it: its ``__init__`` wants arguments that
pickle does not know, an attribute is a lock, ``__str__`` raises. So the sender tries out each
exception, tells what it could not take along, and sends beside it what a stand-in needs::

    exception ─► whole?  ─no─► without the attributes that do not pickle?  ─no─► stand-in
                  own type      own type, a note names the culprit          nearest base class

Neither direction ever raises. Frames travel as places (file, line, columns), never with values
of variables, and arrive as a real ``__traceback__``, so a reader sees them exactly once, with
the source lines. Called by the attempt (encode) and by whoever reads a result (decode).
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

import functools
import os
import pickle
import sys
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from types import CodeType, TracebackType
from typing import Final, NamedTuple, cast

from mars.code.exceptions import builtin_base, make_exception
from mars.errors import InternalError
from mars.settings import (
    ERROR_CHAIN_LENGTH,
    ERROR_FRAMES_HEAD,
    ERROR_FRAMES_TAIL,
    ERROR_MESSAGE_CHARS,
    ERROR_PICKLE_BYTES,
    MIB,
)

_MARS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class _Frame(NamedTuple):
    """One line of a traceback."""

    file: str
    function: str
    qualname: str
    module: str
    line: int
    columns: tuple[int, int, int] | None  # lines further down, first and last column
    source: str  # the line's text where the sender knows it
    first: int = 0  # line at which the function begins; 0: not known


class _Sent(NamedTuple):
    """One exception of a chain; others are named by their place in the list of all."""

    blob: bytes  # pickle of the exception, or of (class, args, attributes), or empty
    whole: bool
    name: str
    qualname: str
    module: str
    message: str
    bases: tuple[tuple[str, str], ...]  # module and qualified name, nearest first
    frames: tuple[_Frame, ...]
    notes: tuple[str, ...]
    cause: int | None
    context: int | None
    suppress: bool
    members: tuple[int, ...]  # of an exception group


# -- out of the worker ------------------------------------------------------------------------


def encode_failure(
    error: BaseException, *, call: str, notes: Sequence[str] = (), skip_files: Sequence[str] = ()
) -> bytes:
    """Turn an exception into bytes. Never raises, whatever the exception does.

    Parameters
    ----------
    error : BaseException
        The exception, with its traceback, causes and notes. It is not changed.
    call : str
        The call that raised it, as ``name(args…)``.
    notes : sequence of str
        The first completes the note ``task <call> · …``, each other becomes a note of its own.
    skip_files : sequence of str
        Files whose frames are left out, besides mars' own.

    Returns
    -------
    bytes
        For `decode_failure`.
    """
    try:
        sent = _collect(error, frozenset(skip_files))
        ours = (f"task {' · '.join([call, *notes[:1]])}", *notes[1:])
        sent[0] = sent[0]._replace(notes=(*sent[0].notes, *map(_cut, ours)))
        return pickle.dumps([tuple(one) for one in sent], protocol=5)
    except BaseException as trouble:  # noqa: BLE001  # an error must never be lost
        names = _names(type(error))
        lost = _Sent(
            blob=b"",
            whole=False,
            name=names[0],
            qualname=names[1],
            module=names[2],
            message=f"(lost: {type(trouble).__name__} while it was encoded)",
            bases=_bases(type(error)),
            frames=(),
            notes=(_cut(f"task {call}"),),
            cause=None,
            context=None,
            suppress=False,
            members=(),
        )
        return pickle.dumps([tuple(lost)], protocol=5)


def _collect(root: BaseException, skip_files: Collection[str]) -> list[_Sent]:
    """All exceptions that hang on ``root``, which comes first."""
    # type(), because isinstance() also asks the object, which may answer anything.
    if issubclass(type(root), InternalError):
        hidden: Callable[[str], bool] = skip_files.__contains__  # a bug of ours: show where
    else:

        def hidden(file: str) -> bool:
            return file.startswith(_MARS) or file in skip_files

    # Breadth first and by identity: contexts can form a ring, and chains can be long.
    found: list[BaseException] = [root]
    place = {id(root): 0}

    def place_of(other: object) -> int | None:
        if not isinstance(other, BaseException):
            return None
        if id(other) not in place:
            if len(found) >= ERROR_CHAIN_LENGTH:
                return None
            place[id(other)] = len(found)
            found.append(other)
        return place[id(other)]

    sent = []
    for error in found:  # grows meanwhile
        # The getters of BaseException itself: a class may have put its own in their place.
        cause = place_of(_field(error, "__cause__"))
        context = place_of(_field(error, "__context__"))
        members = [place_of(member) for member in _members(error)]
        blob, whole, trouble = _pickled(error)
        traceback = _field(error, "__traceback__")
        sent.append(
            _Sent(
                blob,
                whole,
                *_names(type(error)),
                message=_text(error),
                bases=_bases(type(error)),
                frames=_frames(traceback if isinstance(traceback, TracebackType) else None, hidden),
                notes=(*_own_notes(error), *trouble),
                cause=cause,
                context=context,
                suppress=bool(_field(error, "__suppress_context__")),
                members=tuple(place for place in members if place is not None),
            )
        )
    return sent


def _field(error: BaseException, name: str) -> object:
    return BaseException.__dict__[name].__get__(error)


def _args(error: BaseException) -> tuple[object, ...]:
    args = _field(error, "args")
    return args if isinstance(args, tuple) else ()


def _members(error: BaseException) -> tuple[BaseException, ...]:
    if not issubclass(type(error), BaseExceptionGroup):
        return ()
    members: tuple[BaseException, ...] = BaseExceptionGroup.__dict__["exceptions"].__get__(error)
    return members


def _names(cls: type) -> tuple[str, str, str]:
    """Name, qualified name and module; from `type` itself, as metaclasses can lie."""
    name = type.__dict__["__name__"].__get__(cls)
    qualname = type.__dict__["__qualname__"].__get__(cls)
    module = type.__dict__["__module__"].__get__(cls)
    return name, qualname, module if isinstance(module, str) else "?"


def _bases(cls: type) -> tuple[tuple[str, str], ...]:
    """Where to find the class and what it is made from, nearest first."""
    named = [_names(base) for base in type.__dict__["__mro__"].__get__(cls)]
    return tuple((module, qualname) for _, qualname, module in named[:-1])  # all but object


def _cut(text: str) -> str:
    # str() of a subclass may be anything; an exact str cannot raise any more.
    text = str.__str__(text)
    if len(text) <= ERROR_MESSAGE_CHARS:
        return text
    half = ERROR_MESSAGE_CHARS // 2 - 64  # with the words between, not longer than allowed itself
    return f"{text[:half]} … ({len(text) - 2 * half:,} characters left out) … {text[-half:]}"


def _text(error: BaseException) -> str:
    try:
        return _cut(str(error))
    except BaseException:  # noqa: BLE001
        pass
    try:
        return _cut(", ".join(map(repr, _args(error))))
    except BaseException as trouble:  # noqa: BLE001
        return f"<str() of it raises {type(trouble).__name__}>"


def _own_notes(error: BaseException) -> list[str]:
    try:
        # Not list(): somebody may have set it to an endless generator.
        notes = error.__notes__
        return (
            [_cut(note) for note in notes if isinstance(note, str)]
            if (isinstance(notes, list | tuple))
            else []
        )
    except BaseException:  # noqa: BLE001  # mostly: it has none
        return []


def _pickled(error: BaseException) -> tuple[bytes, bool, list[str]]:
    """The exception as bytes, if they are the whole of it, and notes on what is missing."""
    text = _text(error)
    try:
        if any(type(one) is str and len(one) > ERROR_MESSAGE_CHARS for one in _args(error)):
            raise _TooLarge("its message is too long")
        blob = _dumps(error)
        copy = pickle.loads(blob)
        # A class whose __init__ makes the message of its arguments comes back with the message
        # made of the message. The bare form below has it right.
        if _same_type(copy, error) and _text(copy) == text:
            return blob, True, []
        fallback = blob if _same_type(copy, error) else b""
        reason = "its copy is another one"
    except BaseException as trouble:  # noqa: BLE001
        fallback, reason = b"", _reason(trouble)
    try:
        blob, lost = _dumps_bare(error)
        copy = _rebuilt(*pickle.loads(blob))
        # Where the text names an address no copy has the same.
        if _same_type(copy, error) and (_text(copy) == text or (lost and str(copy))):
            return blob, False, lost
    except BaseException as trouble:  # noqa: BLE001
        reason = _reason(trouble)
    if fallback:
        return fallback, True, []
    where = _culprit(error, "exception") or reason
    return b"", False, [f"{_type_name(error)} itself could not travel: {where}"]


def _same_type(copy: object, error: BaseException) -> bool:
    return isinstance(copy, BaseException) and (
        type(copy) is type(error) or _names(type(copy)) == _names(type(error))
    )


def _reason(trouble: BaseException) -> str:
    return f"{_names(type(trouble))[0]}: {_text(trouble)[:500]}"


def _type_name(value: object) -> str:
    return ".".join(_names(type(value))[:0:-1]).removeprefix("builtins.")


def _culprit(value: object, name: str) -> str:
    from mars.attempt.diagnose import find_unpicklable

    found = find_unpicklable(value, name, _dumps)
    return f"{found[0]} ({found[1]})" if found else ""


class _TooLarge(Exception):
    pass


class _Limited:
    """A file that refuses to grow, so that a huge value is given up before it is copied."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.room = ERROR_PICKLE_BYTES

    def write(self, data: bytes) -> None:
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise _TooLarge(f"larger than {ERROR_PICKLE_BYTES // MIB} MiB")
        self.parts.append(bytes(data))

    def getvalue(self) -> bytes:
        return b"".join(self.parts)


def _dumps(value: object) -> bytes:
    """Pickle as values are, but exceptions as their classes say.

    ``import distributed`` has tblib register a reducer for every exception class there is, which
    loses what is not in ``args``, such as the code of a SystemExit.
    """
    from mars.code.pickling import dumps_apart

    return dumps_apart(value, _Limited, BaseException)


def _dumps_bare(error: BaseException) -> tuple[bytes, list[str]]:
    """Class, arguments and attributes, each tried by itself; and notes on what is left out."""
    lost: list[str] = []

    def tried(value: object, where: str) -> object:
        if isinstance(value, str) and len(value) > ERROR_MESSAGE_CHARS:
            return _cut(value)
        try:
            pickle.loads(_dumps(value))
            return value
        except BaseException as trouble:  # noqa: BLE001
            culprit = _culprit(value, where) or f"{where}: {_type_name(value)} ({_reason(trouble)})"
            lost.append(f"did not travel with the exception: {culprit}")
            raise

    args: list[object] = []
    for place, value in enumerate(_args(error)):
        try:
            args.append(tried(value, f"exception.args[{place}]"))
        except BaseException:  # noqa: BLE001
            args.append(_shown(value))
    state: dict[str, object] = {}
    for name, value in _attributes(error).items():
        try:
            state[name] = tried(value, f"exception.{name}")
        except BaseException:  # noqa: BLE001, S112
            continue
    return _dumps((type(error), tuple(args), state)), lost


def _attributes(error: BaseException) -> dict[str, object]:
    found: dict[str, object] = {}
    for cls in type(error).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else list(slots):
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{cls.__name__.lstrip('_')}{name}"
            try:
                found[name] = object.__getattribute__(error, name)
            except AttributeError:
                continue
    found.update(object.__getattribute__(error, "__dict__"))
    for name in ("__notes__", "__dict__", "__weakref__"):
        found.pop(name, None)
    return found


def _shown(value: object) -> str:
    try:
        return _cut(repr(value))
    except BaseException:  # noqa: BLE001
        return f"<{_names(type(value))[1]}>"


def _frames(traceback: TracebackType | None, hidden: Callable[[str], bool]) -> tuple[_Frame, ...]:
    shown = []
    while traceback is not None:
        if not hidden(traceback.tb_frame.f_code.co_filename):
            shown.append(traceback)
        traceback = traceback.tb_next
    left_out = len(shown) - ERROR_FRAMES_HEAD - ERROR_FRAMES_TAIL
    if left_out <= 1:
        return tuple(map(_frame, shown))
    gap = _Frame(f"<{left_out} frames left out>", "…", "…", "", 0, None, "")
    head, tail = shown[:ERROR_FRAMES_HEAD], shown[-ERROR_FRAMES_TAIL:]
    return (*map(_frame, head), gap, *map(_frame, tail))


def _frame(traceback: TracebackType) -> _Frame:
    frame, code, line = traceback.tb_frame, traceback.tb_frame.f_code, traceback.tb_lineno
    columns = None
    # One entry per two-byte instruction; a frame that a debugger moved has none for its line.
    for number, place in enumerate(code.co_positions()):
        if number == traceback.tb_lasti // 2:
            first_line, last_line, first, last = place
            if first_line == line and None not in (last_line, first, last):
                columns = (last_line - first_line, first, last)  # type: ignore[operator]
            break
    try:
        import linecache  # here: the call may have left no descriptor to load it with

        source = linecache.getline(code.co_filename, line, frame.f_globals).rstrip()[:1_000]
    except BaseException:  # noqa: BLE001  # a module's loader may do anything
        source = ""
    module = frame.f_globals.get("__name__")
    return _Frame(
        code.co_filename,
        code.co_name,
        code.co_qualname,
        module if isinstance(module, str) else "?",
        line or 0,
        columns,  # type: ignore[arg-type]
        source,
        code.co_firstlineno,
    )


# -- into the driver --------------------------------------------------------------------------


def decode_failure(data: bytes) -> BaseException:
    """Turn bytes back into an exception. Never raises.

    Parameters
    ----------
    data : bytes
        From `encode_failure`.

    Returns
    -------
    BaseException
        A fresh one of its own type, or a stand-in: an instance of its nearest base class that
        can be had here, with its name and message. With the remote frames as ``__traceback__``,
        its causes and its notes.
    """
    try:
        sent = [
            _Sent(*fields)._replace(frames=tuple(_Frame(*frame) for frame in fields[7]))
            for fields in pickle.loads(data)
        ]
        errors: dict[int, BaseException] = {}
        for place in range(len(sent)):
            _revive(place, sent, errors)
        for place, error in errors.items():
            _dress(error, sent[place], errors)
        return errors[0]
    except BaseException as trouble:  # noqa: BLE001
        return InternalError(f"the error of a task could not be read ({_reason(trouble)})")


def _revive(place: int, sent: list[_Sent], errors: dict[int, BaseException]) -> None:
    """Make the exception at ``place``; those inside a group come into being with their group."""
    if place in errors:
        return
    one = sent[place]
    error = _loaded(one)
    if error is None and one.members:
        for inner in one.members:
            _revive(inner, sent, errors)
        error = _stand_in(one, [errors[inner] for inner in one.members])
    elif error is None:
        error = _stand_in(one, [])
    errors[place] = error
    waiting = [(error, one)]
    while waiting:
        group, one = waiting.pop()
        members = _members(group)
        if len(members) != len(one.members):
            continue
        for member, inner in zip(members, one.members, strict=True):
            if inner not in errors:
                errors[inner] = member
                waiting.append((member, sent[inner]))


def _loaded(one: _Sent) -> BaseException | None:
    if not one.blob:
        return None
    try:
        value = pickle.loads(one.blob)
        error = value if one.whole else _rebuilt(*value)
        return error if isinstance(error, BaseException) else None
    except BaseException:  # noqa: BLE001  # say, its module is not here
        return None


def _rebuilt(
    cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]
) -> BaseException:
    """Make an exception without the ``__new__`` and ``__init__`` of a user's class."""
    error = make_exception(cls, args)
    BaseException.__dict__["args"].__set__(error, args)
    for name, value in state.items():
        try:
            object.__setattr__(error, name, value)
        except (AttributeError, TypeError):
            continue
    return error


def _dress(error: BaseException, one: _Sent, errors: dict[int, BaseException]) -> None:
    """Give an exception its frames, chain and notes."""
    fields: dict[str, object] = {
        "__traceback__": _traceback(one.frames),
        "__cause__": errors.get(one.cause) if one.cause is not None else None,
        "__context__": errors.get(one.context) if one.context is not None else None,
        "__suppress_context__": one.suppress,  # last: setting a cause sets it
    }
    for name, value in fields.items():
        try:
            BaseException.__dict__[name].__set__(error, value)
        except BaseException:  # noqa: BLE001, S112
            continue
    if one.notes or getattr(error, "__notes__", None):
        try:
            object.__setattr__(error, "__notes__", list(one.notes))
        except BaseException:  # noqa: BLE001, S110
            pass


def _stand_in(one: _Sent, members: list[BaseException]) -> BaseException:
    """Make an exception that is an instance of the nearest base class that works here."""
    for module, qualname in one.bases:
        try:
            found: object = sys.modules.get(module) or __import__(module, fromlist=["_"])
            for name in qualname.split("."):
                found = getattr(found, name)
            base = cast("type[BaseException]", found)
            return _made(base, one.name, one.qualname, one.module, one.message, members)
        except BaseException:  # noqa: BLE001, S112
            continue
    return _made(Exception, one.name, one.qualname, one.module, one.message, [])


def _made(
    base: type[BaseException],
    name: str,
    qualname: str,
    module: str,
    message: str,
    members: list[BaseException],
) -> BaseException:
    def travel(self: BaseException) -> tuple[object, ...]:
        inner = list(_members(self))
        return _made, (base, name, qualname, module, message, inner)

    body = {
        "__module__": module,
        "__qualname__": qualname,
        "__doc__": "Stands in for an exception that could not travel.",
        "__str__": lambda self: message,
        "__repr__": lambda self: f"{name}({message!r})",
        "__reduce__": travel,
        "__init__": lambda self, *args: None,
        "original_type": f"{module}.{qualname}",
    }
    make: Callable[..., type] = type(base)
    cls = make(name, (base,), body)
    builtin = builtin_base(cls)
    made: BaseException
    if members:
        made = builtin.__new__(cls, message.partition(" (")[0], members)
    elif issubclass(cls, UnicodeError) and builtin is not UnicodeError:
        raise TypeError("has a message of its own making")
    else:
        made = builtin.__new__(cls, message)
        BaseException.__dict__["args"].__set__(made, (message,))
    if str(made) != message or base not in cls.__mro__:
        raise TypeError("does not take the message")
    return made


# -- a real traceback out of places -----------------------------------------------------------


class _Here(Exception):
    pass


@functools.cache
def _raising() -> CodeType:
    """A stub; not made before an error comes, as `compile` prepares for 2 ms in each process."""
    return compile("raise here", "", "exec")


def _traceback(frames: Sequence[_Frame]) -> TracebackType | None:
    """Make a traceback as if the frames had been running in this process.

    A frame object comes into being only by running code, so a stub with the frame's name, file
    and position table is run for each; `traceback`, `pdb` and notebooks then render it natively.
    """
    made: list[TracebackType] = []
    raising = _raising()
    for frame in frames:
        try:
            _lend_source(frame)
            stub = raising.replace(
                co_filename=frame.file,
                co_name=frame.function,
                co_qualname=frame.qualname,
                # Notebooks look there for the text of the function.
                co_firstlineno=frame.first or frame.line,
                co_linetable=_position_table(
                    len(raising.co_code) // 2,
                    frame.line - frame.first if frame.first else 0,
                    frame.columns,
                ),
            )
            exec(stub, {"__name__": frame.module, "__file__": frame.file, "here": _Here})  # noqa: S102
        except _Here as here:
            if here.__traceback__ is not None and here.__traceback__.tb_next is not None:
                made.append(here.__traceback__.tb_next)
        except Exception:  # noqa: BLE001, S112  # one odd frame must not cost the others
            continue
    for outer, inner in pairwise(made):
        outer.tb_next = inner
    return made[0] if made else None


def _position_table(instructions: int, down: int, columns: tuple[int, int, int] | None) -> bytes:
    """The code object's table of positions, one and the same for every instruction.

    The line is so many lines ``down`` from the first line of the code. As in CPython's
    Objects/locations.md: entries of up to eight instructions; kind 14 has columns, kind 13 has
    none; numbers in groups of six bits, lowest first.
    """
    table = bytearray()
    while instructions > 0:
        covered = min(instructions, 8)
        table.append(0x80 | (13 if columns is None else 14) << 3 | (covered - 1))
        # How far down from the entry before; the sign is the lowest bit.
        table += _number((-down << 1) | 1 if down < 0 else down << 1)
        down = 0
        if columns is not None:
            lines, first, last = columns
            for number in (lines, first + 1, last + 1):
                table += _number(number)
        instructions -= covered
    return bytes(table)


def _number(number: int) -> bytes:
    """A number in groups of six bits, lowest first."""
    groups = bytearray()
    while number >= 64:
        groups.append(0x40 | (number & 63))
        number >>= 6
    groups.append(number)
    return bytes(groups)


def _lend_source(frame: _Frame) -> None:
    """Let tracebacks show the line when its file is not on this machine."""
    import linecache

    if not frame.source or not 0 < frame.line < 100_000 or frame.file.startswith("<"):
        return
    known = linecache.cache.get(frame.file)
    if known is None:
        if os.path.exists(frame.file):
            return
        # No modification time: never compared with a file, so never thrown out.
        known = linecache.cache[frame.file] = (0, None, [], frame.file)
    if len(known) == 4 and known[1] is None and known[0] == 0:
        lines = known[2]
        lines.extend(["\n"] * (frame.line - len(lines)))
        lines[frame.line - 1] = frame.source + "\n"
