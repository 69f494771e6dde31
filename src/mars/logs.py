"""Reading a call's log: as the original does it, live, or its end only.

A log is bytes that grow at one end while the call runs. What is read here are slices of them,
made text without ever cutting a character in two. This module knows no engine: an engine hands
in a `LogSource`. Called by the session for ``fetch_log`` and by whoever shows the end of a log.

::

    LogSource ─► whole characters ─► LogReader ─► LogFetcher ─► user
                                 └─► Lines ─► follow, echo ─► user
"""

from __future__ import annotations

import codecs
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from mars.settings import KIB, LOG_FOLLOW_S, LOG_READ_BYTES

Offsets = int | str | Mapping[str, int | str] | Sequence[int | str]
"""Forms in which ``offsets`` and ``sizes`` may be given."""

_CHARACTER_BYTES: Final = 4  # longest UTF-8 sequence
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
# Texts, which `re` compiles when they are first needed, and keeps.
_SIZE: Final = r"(?i)([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmgtpe]?)(?:i?b)?"

# C0 but newline and tab, DEL, C1, the marks that turn text around or end lines unseen, and
# surrogates, which no terminal encoding takes.
_CONTROL: Final = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class LogSource(Protocol):
    """The log of one call, somewhere."""

    def size(self) -> int:
        """Bytes written so far."""

    def read(self, start: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``start`` on; fewer or none where the log ends now.

        Never beyond bytes that were left out: `kept_from` says where it goes on.
        """

    def kept_from(self, start: int) -> int:
        """``start``, or where the log goes on if what stood there was left out."""

    def finished(self) -> bool:
        """Whether no more bytes will come."""


def parse_size(size: int | float | str) -> int:
    """Turn a size such as ``10``, ``"0.5k"``, ``"-0.02K"`` or ``"2 MiB"`` into bytes.

    Parameters
    ----------
    size : int, float or str
        A number of bytes, or text with a unit K, M, G, T, P or E, each 1024 times the one before.

    Returns
    -------
    int
        Bytes; fractions are cut off towards zero.

    Raises
    ------
    ValueError
        Not a size.
    TypeError
        Neither a number nor text.

    Examples
    --------
    >>> parse_size("0.5k"), parse_size("-0.02K"), parse_size("2GiB")
    (512, -20, 2147483648)
    """
    if isinstance(size, str):
        match = re.fullmatch(_SIZE, size.strip())
        if match is None:
            raise ValueError(f"not a size: {size!r}; sizes look like 1024, '0.5k' or '2 MiB'")
        number, unit = match.groups()
        scale: int = KIB ** _UNITS[unit.lower()]
        # Whole numbers stay whole: a float would lose the last bits of large ones.
        return (
            int(number) * scale
            if number.lstrip("+-").isdigit()
            else _whole(float(number) * scale, size)
        )
    if isinstance(size, bool) or not hasattr(size, "__int__"):
        raise TypeError(f"a size is a number or text such as '0.5k', got {size!r}")
    return _whole(size, size)


def _whole(number: float, given: object) -> int:
    if not math.isfinite(number):
        raise ValueError(f"not a size: {given!r}")
    return int(number)


def escape_control(text: str) -> str:
    r"""Make control characters visible, so that showing a log cannot steer a terminal.

    Newline and tab stay; ESC becomes ``\x1b``.

    Examples
    --------
    >>> print(escape_control("\x1b[31mred"))
    \x1b[31mred
    """
    return re.sub(_CONTROL, lambda found: ascii(found[0])[1:-1], text)


class LogFetcher(str):
    r"""What one read of a call's log has found: a text, with what is known of its place in the log.

    It is a `str`, so it can be searched, split, compared and written to a file. It never changes:
    the next ``fetch_log`` gives another one, with what was printed since. Two things are not as for
    other texts. To iterate over it gives its lines, without their newlines. ``len`` is 1 once the
    call has printed anything, and 0 before, as in the original; ``len(str(log))`` counts
    characters.

    Parameters
    ----------
    text : str, default ""
        What was read.
    key : str, default ""
        Name of the call's log, as in `chunk_op_keys`.
    raw : bytes, default b""
        The bytes that were read.
    offset : int or None, default None
        Byte at which the next read starts. None: there was no output yet.

    Notes
    -----
    Source: ``LogFetcher`` of Mars, ``mars/core/custom_log.py``. It counts characters in sizes and
    bytes in offsets; here both are bytes. There, one object is changed by each read.
    docs/differences.md says more.

    Examples
    --------
    >>> log = LogFetcher("loss 0.5\nloss 0.25\n", offset=19)
    >>> "0.25" in log, list(log), len(log)
    (True, ['loss 0.5', 'loss 0.25'], 1)
    """

    _key: str
    _raw: bytes
    _offset: int | None

    def __new__(
        cls, text: str = "", key: str = "", raw: bytes = b"", offset: int | None = None
    ) -> LogFetcher:
        made = super().__new__(cls, text)
        made._key, made._raw, made._offset = key, raw, offset
        return made

    @property
    def raw(self) -> bytes:
        """The bytes that were read, as they were written."""
        return self._raw

    @property
    def results(self) -> list[str]:
        """The text that was read: one item, or none if there was no output yet."""
        return [] if self._offset is None else [str(self)]

    @property
    def offsets(self) -> list[int]:
        """Byte at which the next read starts: one item, or none if there was no output yet."""
        return [] if self._offset is None else [self._offset]

    @property
    def chunk_op_keys(self) -> list[str]:
        """Name of the log: one item, or none if there was no output yet."""
        return [] if self._offset is None else [self._key]

    def __len__(self) -> int:
        return 0 if self._offset is None else 1

    def __iter__(self) -> Iterator[str]:
        *ended, last = str(self).split("\n")
        lines = [line.removesuffix("\r") for line in ended]  # as `follow` gives them
        return iter([*lines, last] if last else lines)

    def __reduce__(self) -> tuple[object, ...]:
        return LogFetcher, (str(self), self._key, self._raw, self._offset)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(escape_control(str(self)))}</pre>"


class LogReader:
    """Reads the log of one call. Reading again goes on where the last read ended.

    Parameters
    ----------
    key : str
        Name of the call's log.
    source : callable
        Gives the log, or None as long as there is none because the call was not executed.
        Asked at every read, so it may change from None to a log.
    """

    def __init__(self, key: str, source: Callable[[], LogSource | None]) -> None:
        self._key = key
        self._source = source
        self._offset: int | None = None  # None: nothing was ever there

    def read(self, offsets: Offsets | None = None, sizes: Offsets | None = None) -> LogFetcher:
        """Read the next part of the log, or the one asked for.

        Parameters
        ----------
        offsets : int, str, dict or list, optional
            Where to start, in bytes; negative: from the end; text such as ``"-0.5k"``; a dict by
            key; a list with one item. None: where the last read ended.
        sizes : int, str, dict or list, optional
            How much to read at the most, in bytes, default 1 MiB; negative: all there is.

        Returns
        -------
        LogFetcher
            A new one each time.

        Raises
        ------
        TypeError, ValueError
            ``offsets`` or ``sizes`` has none of these forms.
        """
        asked = self._chosen(offsets, "offsets")
        limit = self._chosen(sizes, "sizes")
        source = self._source()
        if source is None:
            return LogFetcher("", self._key, b"", self._offset)
        # Asked before the size: bytes that come in between are then still read next time.
        ended = source.finished()
        size = source.size()
        if size <= 0 and self._offset is None:
            return LogFetcher("", self._key)
        if asked is None:
            # If the log is shorter than what was read, the call was started anew.
            start = self._offset or 0
            start = start if start <= size else 0
        else:
            start = min(max(asked + size, 0) if asked < 0 else asked, size)
            start = _character_start(source, start)
        if limit is None:
            limit = LOG_READ_BYTES
        elif limit < 0:
            limit = size - start
        raw, text, self._offset = _read_on(source, start, limit, size, ended)
        return LogFetcher(text, self._key, raw, self._offset)

    def _chosen(self, given: Offsets | None, name: str) -> int | None:
        """The one number for this log out of any form in which it may be given."""
        if isinstance(given, Mapping):
            given = given.get(self._key)
        elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
            given = given[0] if given else None
        if given is None:
            return None
        try:
            return parse_size(given)  # type: ignore[arg-type]  # checks its argument itself
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None


def whole_text(source: LogSource) -> str:
    """All that a log has now, as text.

    Parameters
    ----------
    source : LogSource
        The log.
    """
    ended = source.finished()
    size = source.size()
    return _read_on(source, 0, size, size, ended)[1]


def _read_on(
    source: LogSource, start: int, limit: int, size: int, ended: bool
) -> tuple[bytes, str, int]:
    """What was read from ``start`` on, over gaps, and where the next read starts."""
    raw, text = _read_characters(source, start, min(limit, size - start), ended)
    offset = start + len(raw)
    while (kept := min(source.kept_from(offset), size)) > offset:
        text += gap_line(kept - offset, text)
        more, its_text = _read_characters(source, kept, min(limit - len(raw), size - kept), ended)
        raw, text, offset = raw + more, text + its_text, kept + len(more)
    return raw, text, offset


class JoinedLog:
    """Several logs, read as one.

    Parameters
    ----------
    sources : sequence of LogSource
        In the order in which they are read.
    """

    def __init__(self, sources: Sequence[LogSource]) -> None:
        self._sources = sources

    def size(self) -> int:
        """Bytes so far."""
        return sum(source.size() for source in self._sources)

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        pieces = []
        for source in self._sources:
            size = source.size()
            if start < size and limit > 0:
                wanted = min(limit, size - start)
                piece = source.read(start, wanted)
                pieces.append(piece)
                limit -= len(piece)
                if len(piece) < wanted:  # something was left out there
                    break
            start = max(0, start - size)
        return b"".join(pieces)

    def kept_from(self, start: int) -> int:
        """``start``, or where the log goes on if what stood there was left out."""
        passed = 0
        for source in self._sources:
            size = source.size()
            if passed <= start < passed + size:
                start = passed + min(source.kept_from(start - passed), size)
            passed += size
        return start

    def finished(self) -> bool:
        """Whether no more will come."""
        return all(source.finished() for source in self._sources)


def gap_line(count: int, before: str = "\n") -> str:
    r"""What stands in a log in the place of bytes that were left out: a line of its own.

    Parameters
    ----------
    count : int
        How many bytes were left out.
    before : str, default newline
        The text that it follows.

    Examples
    --------
    >>> gap_line(5 * 1024**2)
    '[mars: 5 MiB are left out here; new_session(log_limit=...) says how much of a log is kept]\n'
    """
    size = next(
        (f"{count / scale:.3g} {unit}" for unit, scale in _GAP_UNITS if count >= scale),
        f"{count} bytes",
    )
    start = "" if not before or before.endswith("\n") else "\n"
    return (
        f"{start}[mars: {size} are left out here; new_session(log_limit=...) says how much of a "
        f"log is kept]\n"
    )


_GAP_UNITS: Final = (("GiB", KIB**3), ("MiB", KIB**2), ("KiB", KIB))


def last_bytes(source: LogSource, limit: int) -> bytes:
    """The end of a log: ``limit`` bytes at the most, and none from before a gap.

    Parameters
    ----------
    source : LogSource
        The log.
    limit : int
        Bytes.
    """
    end = source.size()
    start = max(end - limit, 0)
    data = source.read(start, end - start) if end else b""
    while start + len(data) < end and (kept := source.kept_from(start + len(data))) > start:
        start = kept
        data = source.read(start, end - start)
    return data


class Lines:
    """The lines of a log, each once, as they become complete.

    Parameters
    ----------
    source : LogSource
        The log.
    start : int, default 0
        The byte to begin at.

    Attributes
    ----------
    source : LogSource
        May be replaced by another view of the same log, such as a longer one.
    """

    __slots__ = ("_begun", "_decoder", "_start", "source")

    def __init__(self, source: LogSource, start: int = 0) -> None:
        self.source = source
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun: list[str] = []  # parts of the line that has no end yet
        self._start = start

    def new(self) -> tuple[list[str], bool]:
        """Lines that have come since the last time, without newlines, and whether bytes came."""
        source, begun = self.source, self._begun
        lines: list[str] = []
        kept = source.kept_from(self._start)
        if kept > self._start:
            lines += self.rest()
            lines.append(gap_line(kept - self._start).removesuffix("\n"))
            self._start = kept
        data = source.read(self._start, LOG_READ_BYTES)
        self._start += len(data)
        *complete, rest = self._decoder.decode(data).split("\n")
        for line in complete:
            begun.append(line)
            lines.append("".join(begun).removesuffix("\r"))
            begun.clear()
        if rest:
            begun.append(rest)
        return lines, bool(data)

    def rest(self) -> list[str]:
        """What stands after the last newline, if anything does; for when no more will come."""
        self._begun.append(self._decoder.decode(b"", final=True))
        last = "".join(self._begun)
        self._begun.clear()
        return [last] if last else []


def follow(
    source: LogSource,
    *,
    poll_s: float = LOG_FOLLOW_S,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[str]:
    """Yield a log's lines as they are written, until it ends.

    Parameters
    ----------
    source : LogSource
        The log.
    poll_s : float, default 0.05
        Pause between two looks when nothing new came, in seconds.
    sleep : callable, default time.sleep
        Waits that long; tests hand in something faster.

    Yields
    ------
    str
        One complete line without its newline; at the end what stands after the last newline.
    """
    return (line for _, line in follow_several([("", source)], poll_s=poll_s, sleep=sleep))


def follow_several(
    sources: Iterable[tuple[str, LogSource]],
    *,
    poll_s: float = LOG_FOLLOW_S,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[tuple[str, str]]:
    """Yield the lines of several logs as they are written, until all have ended.

    Parameters
    ----------
    sources : iterable of (str, LogSource)
        The logs, each with a name.
    poll_s, sleep
        As of `follow`.

    Yields
    ------
    tuple of (str, str)
        The name of a log, and a line of it. A line is never cut in two by those of other logs.
    """
    left = [(name, source, Lines(source)) for name, source in sources]
    while left:
        going, came = [], False
        for one in left:
            name, source, lines = one
            ended = source.finished()  # before the read: afterwards it would miss the last bytes
            new, more = lines.new()
            for line in new:
                yield name, line
            if ended and not more:
                for line in lines.rest():
                    yield name, line
                continue
            going.append(one)
            came |= more
        left = going
        if left and not came:
            sleep(poll_s)


def _read_characters(source: LogSource, start: int, limit: int, ended: bool) -> tuple[bytes, str]:
    """Read whole characters only: at most ``limit`` bytes, but at least one character."""
    data = source.read(start, limit) if limit > 0 else b""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    if limit > 0 and not text:
        # A limit below the length of one character would otherwise never get past it.
        for _ in range(_CHARACTER_BYTES - len(data)):
            more = source.read(start + len(data), 1)
            if not more:
                break
            data += more
            if text := decoder.decode(more):
                break
    pending = decoder.getstate()[0]
    if not pending:
        return data, text
    offset = start + len(data)
    if (ended and offset >= source.size()) or source.kept_from(offset) > offset:
        return data, text + decoder.decode(b"", final=True)  # its other bytes will never come
    return data[: len(data) - len(pending)], text


def _character_start(source: LogSource, start: int) -> int:
    """``start``, moved on to the next character if it points into the middle of one."""
    back = min(start, _CHARACTER_BYTES - 1)
    around = source.read(start - back, back + _CHARACTER_BYTES - 1)
    for first in range(back):
        for stop in range(back + 1, len(around) + 1):
            try:
                if len(around[first:stop].decode()) == 1:
                    return start + stop - back
            except UnicodeDecodeError:
                continue
    return start
