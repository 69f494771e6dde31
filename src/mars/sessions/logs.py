"""The logs of the calls of one session: of single calls, of items of a map, and of many together.

`CallLogs` finds the log of a call, wherever it has run so far. A `Feed` gives the new lines of one
call, or of all items of a map, each time that it is asked; `mars.observe.echo` shows them. Sessions
and runs use both. Nothing here waits or prints, except that `CallLogs.follow` waits between looks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from mars.calls.maps import MapCall
from mars.engine import SessionRealm
from mars.engines.outcome import Items, TaskLog, item_log, never_again
from mars.errors import SessionClosed
from mars.logs import JoinedLog, Lines, LogSource, follow
from mars.settings import LOG_FOLLOW_S
from mars.task import Call, Stage, Task


class Feed(Protocol):
    """What one call, or the items of one map, have printed since the last look."""

    def look(self) -> tuple[list[tuple[str, str]], bool]:
        """New lines, each with the name of its call, and whether no more will come."""

    def failed(self) -> tuple[list[tuple[str, str]], bool]:
        """As `look`, but all lines of the calls that have failed since, and of no others."""

    def loud(self) -> list[str]:
        """The names of the calls that have written to stderr; for when no more will come."""

    def size(self) -> int:
        """How many calls it is about."""


class CallLogs:
    """Finds the logs of calls.

    Parameters
    ----------
    realm : SessionRealm
        The session.
    """

    __slots__ = ("_engine", "_realm")

    def __init__(self, realm: SessionRealm) -> None:
        self._realm = realm
        self._engine = realm.engine

    def source(self, call: Call) -> LogSource | None:
        """What a call has printed so far. None: it was not started."""
        task = self._known(call)
        own: LogSource | None = None
        if task is not None and type(task) is not Task:
            own = TaskLog(task, lambda _: None)  # no engine knows it: an item, or of an earlier run
        elif task is not None:
            own = self._engine.log(task)
        elif call.whole is not None:
            own = self._running_item(call)
        if not call.speaks_for:
            return own
        sources = []
        for other in call.speaks_for:
            # Each log begins when the one before it is complete: what was read may not move.
            source = self.source(other.call)
            if source is not None:
                sources.append(source)
            if not self.silent_from_here(other.call):
                break
        else:
            sources += [] if own is None else [own]
        return JoinedLog(sources)

    def _known(self, call: Call) -> Task | None:
        return call.task_in(self._realm) or call.adopt(self._realm)

    def _running_item(self, call: Call) -> LogSource | None:
        """What an item of a map has printed, while its block runs."""
        assert call.whole is not None
        whole = call.whole.task_in(self._realm)
        if whole is None or whole.finished or self._realm.closed:
            return None
        index = call.index  # type: ignore[attr-defined]
        for at, _, log in self._engine.running_items(whole):
            if at == index:
                return _Growing(log)
        return None

    def silent_from_here(self, call: Call) -> bool:
        """Whether a call is sure to print nothing more."""
        if self._realm.closed:
            return True
        if not all(self.silent_from_here(other.call) for other in call.speaks_for):
            return False
        task = self._known(call)
        if task is None and call.whole is not None:
            task = call.whole.task_in(self._realm)  # the item may run in a block of the map
        if task is None:
            return True
        source = self._engine.log(task)
        return never_again(task) if source is None else source.finished()

    def to_come(self, call: Call) -> LogSource:
        """The log of a call that may not have begun."""
        return _LogToCome(self, call)

    def follow(self, call: Call) -> Iterator[str]:
        """The lines of a call as it prints them, until it has ended."""
        return follow(self.to_come(call))

    def feeds(
        self, named: Iterable[tuple[str, Call]], before: Mapping[Call, Task] | None = None
    ) -> list[Feed]:
        """What gives the lines of calls. A map gives those of its items, by their numbers.

        Parameters
        ----------
        named : iterable of (str, Call)
            The calls, with the names that people know them by.
        before : mapping of Call to Task, optional
            For the calls of a run that begins: what earlier runs have left of them, which is no
            news. Default: whatever they have printed is.
        """
        return [
            (MapFeed if isinstance(call, MapCall) else CallFeed)(name, call, self._realm, before)  # type: ignore[arg-type]
            for name, call in named
        ]

    def follow_all(
        self,
        feeds: Sequence[Feed],
        shape: Callable[[str, str], str],
        sleep: Callable[[float], object] = time.sleep,
    ) -> Iterator[str]:
        """The lines of several calls as they print them, until all have ended."""
        left = list(feeds)
        while left:
            came = False
            going = []
            for feed in left:
                lines, over = feed.look()
                came |= bool(lines)
                for name, line in lines:
                    yield shape(name, line)
                if not over:
                    going.append(feed)
            left = going
            if left and not came:
                sleep(LOG_FOLLOW_S)


class _Growing:
    """A log that goes on growing, and that is read as it is now."""

    __slots__ = ("_log",)

    def __init__(self, log: LogSource) -> None:
        self._log = log

    def size(self) -> int:
        """Bytes so far."""
        return self._log.size()

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        return self._log.read(start, limit)

    def kept_from(self, start: int) -> int:
        """``start``; if what stood there was left out, the place where the log goes on."""
        return self._log.kept_from(start)

    def finished(self) -> bool:
        """False: the item has not ended."""
        return False


class _LogToCome:
    """The log of a call that may not have begun. Each look finds what is there at that moment."""

    def __init__(self, logs: CallLogs, call: Call) -> None:
        self._logs, self._call = logs, call
        self._last: LogSource | None = None

    def _source(self) -> LogSource | None:
        with contextlib.suppress(SessionClosed):  # what was printed before can still be read
            self._last = self._logs.source(self._call) or self._last
        return self._last

    def size(self) -> int:
        """Bytes so far."""
        source = self._source()
        return 0 if source is None else source.size()

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``."""
        source = self._source()
        return b"" if source is None else source.read(start, limit)

    def kept_from(self, start: int) -> int:
        """``start``; if what stood there was left out, the place where the log goes on."""
        source = self._source()
        return start if source is None else source.kept_from(start)

    def finished(self) -> bool:
        """Whether no more will come."""
        return self._logs.silent_from_here(self._call)


class CallFeed:
    """The lines of one call. For the parameters see `CallLogs.feeds`."""

    __slots__ = ("_before", "_call", "_lines", "_logs", "_name", "_realm", "_told")

    def __init__(
        self,
        name: str,
        call: Call,
        realm: SessionRealm,
        before: Mapping[Call, Task] | None = None,
    ) -> None:
        self._name, self._call, self._realm = name, call, realm
        self._before = None if before is None else before.get(call)
        self._logs = CallLogs(realm)
        self._lines: Lines | None = None
        self._told = False  # what it printed as a call that failed

    def look(self) -> tuple[list[tuple[str, str]], bool]:
        """New lines, and whether no more will come."""
        task = self._call.task_in(self._realm)
        if task is not None and task is self._before:
            return [], False  # the engine has not begun with it
        if task is None:  # an item of a map, or not executed here
            over = self._logs.silent_from_here(self._call)
        elif task.stage < Stage.ASSIGNED and not task.logs:  # most of many calls: they wait
            return [], never_again(task)
        elif task.finished and not task.logs and not self._call.speaks_for:
            return [], True  # most of many calls print nothing
        else:
            over = task.finished or self._logs.silent_from_here(self._call)
        if self._lines is None:
            # What earlier runs have printed comes before it in the log.
            start = 0 if self._before is None else sum(log.size() for log in self._before.logs)
            self._lines = Lines(self._logs.to_come(self._call), start)
        lines, more = self._lines.new()
        while over and more:
            others, more = self._lines.new()
            lines += others
        if over:
            lines += self._lines.rest()
        return [(self._name, line) for line in lines], over

    def failed(self) -> tuple[list[tuple[str, str]], bool]:
        """All lines, once the call has failed by itself."""
        task = self._call.task_in(self._realm)
        if task is None:
            return [], self._logs.silent_from_here(self._call)
        if task is self._before:
            return [], False
        if not task.finished:
            return [], never_again(task)
        if task.stage is not Stage.FAILED or task.failed_input is not None or self._told:
            return [], True
        self._told = True
        return self.look()

    def loud(self) -> list[str]:
        """Its name, if it has written to stderr."""
        task = self._call.task_in(self._realm)
        logs = () if task is None or task is self._before else task.logs
        logs = logs[0 if self._before is None else len(self._before.logs) :]
        return [self._name] if any(log.loud for log in logs if hasattr(log, "loud")) else []

    def size(self) -> int:
        """1."""
        return 1


class MapFeed:
    """The lines of all items of a map that run in its blocks.

    Parameters
    ----------
    name : str
        The name of the map. An item is called by it and its number.
    call : MapCall
        The map.
    realm : SessionRealm
        The session.
    before : mapping of Call to Task, optional
        As of `CallLogs.feeds`.
    """

    __slots__ = ("_before", "_begun", "_call", "_logs", "_name", "_realm", "_run_only", "_seen")

    def __init__(
        self,
        name: str,
        call: MapCall,
        realm: SessionRealm,
        before: Mapping[Call, Task] | None = None,
    ) -> None:
        self._name, self._call, self._realm = name, call, realm
        self._run_only = before is not None
        self._before = None if before is None else before.get(call)
        self._logs = CallLogs(realm)
        self._begun: dict[int, tuple[int, Lines | None]] = {}  # items that run, and their attempts
        self._seen = 0  # blocks that have been looked at

    def _whole(self) -> Task | None:
        """The map as it runs. None: the engine has not begun with it."""
        task = self._call.task_in(self._realm)
        return None if task is self._before else task

    def _is_news(self, block: Task, whole: Task) -> bool:
        """Whether a block is one of the run."""
        return not self._run_only or block.source is whole

    def _new_blocks(self, whole: Task) -> list[Task]:
        blocks: list[Task] = whole.parts[self._seen :]
        self._seen += len(blocks)
        return [block for block in blocks if self._is_news(block, whole)]

    def look(self) -> tuple[list[tuple[str, str]], bool]:
        """New lines of all items, and whether no more will come."""
        whole = self._whole()
        if whole is None:
            return [], not self._run_only
        over = self._logs.silent_from_here(self._call)
        found: list[tuple[str, str]] = []
        running = () if over else self._realm.engine.running_items(whole)
        for block in self._new_blocks(whole):
            if not block.logs:
                continue
            for offset, index in enumerate(block.items):
                log = item_log(block, offset)
                if log is None or (offset and block.stage is not Stage.DONE):
                    continue  # of a block that died, one item shows what it printed
                attempt, lines = self._begun.pop(index, _NEVER)
                if lines is None or attempt != block.attempt:
                    lines = Lines(log)
                lines.source = log
                found += self._named(index, _all(lines))
        ended = Items([one for one in whole.parts if one.source is whole] if running else ())
        for index, attempt, printed in running:
            if ended.find(index) is not None:
                continue  # it has ended since we asked, and its block tells the rest
            known = self._begun.get(index, _NEVER)
            if known[1] is None or known[0] != attempt:
                known = self._begun[index] = attempt, Lines(printed)
            assert known[1] is not None
            known[1].source = printed
            found += self._named(index, known[1].new()[0])
        return found, over

    def failed(self) -> tuple[list[tuple[str, str]], bool]:
        """All lines of the items that have failed."""
        whole = self._whole()
        if whole is None:
            return [], not self._run_only
        over = self._logs.silent_from_here(self._call)
        found: list[tuple[str, str]] = []
        for block in self._new_blocks(whole):
            done = block.stage is Stage.DONE
            for offset in block.result[1] if done else range(1):
                log = item_log(block, offset)
                if log is not None:
                    found += self._named(block.items[offset], _all(Lines(log)))
        return found, over

    def loud(self) -> list[str]:
        """The names of the items that have written to stderr."""
        whole = self._whole()
        blocks = [] if whole is None else [one for one in whole.parts if self._is_news(one, whole)]
        items: set[int] = set()
        for block in blocks:
            if block.stage is Stage.DONE:
                items.update(block.items[offset] for offset in block.result[4])
            elif block.logs and block.logs[-1].loud:
                items.add(block.items[0])
        return [f"{self._name} {index}" for index in sorted(items)]

    def size(self) -> int:
        """How many items run in blocks."""
        return int(self._call.count) - len(self._call.made)

    def _named(self, index: int, lines: Iterable[str]) -> list[tuple[str, str]]:
        name = f"{self._name} {index}"
        return [(name, line) for line in lines]


_NEVER: Final = (0, None)
"""In place of an item's attempt and what is read of it: nothing is."""


def _all(lines: Lines) -> list[str]:
    """The lines that are left of a log that has ended."""
    found, more = lines.new()
    while more:
        others, more = lines.new()
        found += others
    return found + lines.rest()


__all__ = ["CallFeed", "CallLogs", "Feed", "MapFeed"]
