"""What the page says, as plain values for JSON.

It reads the index and the engine. Nothing here changes the program, except `Facts.cancel`.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from mars.calls.held import HeldCall
from mars.calls.maps import MapCall
from mars.engine import Engine
from mars.errors import MarsError
from mars.logs import LogSource, escape_control
from mars.observe.forecast import Active, time_left
from mars.observe.observation import EndedAttempt, Observation, RunFacts, WorkerFacts
from mars.observe.states import FAILED, QUEUED, RUNNING, UNDER_WAY, WAITING, state_in, title_of
from mars.sessions.session import Session
from mars.settings import (
    PAGE_FLOOD_LISTED,
    PAGE_LISTED,
    PAGE_LOG_BYTES,
    PAGE_OBJECTS,
    PAGE_REPORT_ROWS,
    PAGE_STEP_ROWS,
    PAGE_TICK_S,
)
from mars.task import Call, Stage
from mars.web.graph import Json, graph_of, mark_running
from mars.web.index import Index, is_flood

_BEFORE: Final = frozenset({Stage.WAITING, Stage.READY, Stage.ASSIGNED, Stage.RETRYING})


def shown(text: str, limit: int = 300) -> str:
    """A text of the program for people: control characters are visible, and it is not endless."""
    text = escape_control(text.replace("\n", " ").replace("\t", " "))
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Facts:
    """All that the page tells of one session.

    Parameters
    ----------
    session : Session
        The session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.engine: Engine = session.engine
        self.index = Index(self.engine)
        self.zero = time.monotonic()
        self._lock = threading.Lock()
        self._made: tuple[float, Json] | None = None
        self._cpu: dict[int, tuple[float, float, float, int]] = {}  # of workers, at the last look
        self._report: tuple[int, Json] | None = None

    def answer(self, path: str, query: dict[str, str]) -> object:
        """What is asked for, by its path; None: there is nothing of that kind, or no such call.

        Parameters
        ----------
        path : str
            As in an address of the page, such as ``/api/calls``.
        query : dict of str to str
            ``key`` of a call, ``worker``, ``since`` or ``run``, where a path needs one.
        """
        number = query.get("worker", "") or query.get("since", "") or "0"
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            return None
        key = query.get("key", "")
        makers: dict[str, Callable[[], object]] = {
            "/api/overview": self.overview,
            "/api/calls": lambda: self.calls(int(number)),
            "/api/call": lambda: self.call(key),
            "/api/graph": lambda: self.graph(query.get("run", ""), query.get("by", "")),
            "/api/objects": self.objects,
            "/api/stack": lambda: self.stack(int(number)),
            "/api/timeline": lambda: self.timeline(int(number)),
            "/api/report": lambda: self.report("now" in query),
            "/api/cancel": lambda: dict(zip(("cancelled", "told"), self.cancel(key), strict=True)),
        }
        make = makers.get(path)
        return None if make is None else make()

    @property
    def busy(self) -> bool:
        """Whether a run of the program is under way."""
        return bool(self.session.runs.under_way)

    # -- the first screen ---------------------------------------------------------------------

    def overview(self) -> Json:
        """How far, how long still, what runs, what failed, and what the workers do.

        Several windows share one look.
        """
        with self._lock:
            now = time.monotonic()
            if self._made is not None and now - self._made[0] < PAGE_TICK_S * 0.8:
                return self._made[1]
            seen = self.engine.observe()
            if seen.runs:
                runs = self.index.runs
                self.index.keep_up(seen.next, all(one.number in runs for one in seen.runs
                                                  if not one.depth))  # fmt: skip
            else:
                self.index.advance(0.25)
            made = self._overview(seen)
            self._made = now, made
            return made

    def _overview(self, seen: Observation) -> Json:
        index = self.index
        index.behind = max(0, seen.next - index.seen)
        tops = [one for one in seen.runs if not one.depth]
        total, done, failed = (
            sum(getattr(one, what) for one in tops) for what in ("total", "done", "failed")
        )
        began = [index.runs[one.number][3] for one in tops if one.number in index.runs]
        elapsed_s = seen.now - min(began) if began else 0.0
        busy = [one for one in seen.workers if one.call]
        left = self._left(seen, tops, elapsed_s) if tops else None
        ended = sum(kind.done for kind in index.kinds.values())
        cores, free = self.index.cores, sum(one.free for one in seen.groups)
        shows = seen.workers[:500]
        usage = self.engine.usage(shows)
        if len(self._cpu) > 2 * len(shows) + 100:  # of workers that have ended
            self._cpu = {one.number: self._cpu[one.number] for one in shows
                         if one.number in self._cpu}  # fmt: skip
        return {
            "now": seen.now - self.zero,
            "session": self.session.session_id,
            "closed": self.session.closed,
            "runs": len(tops),
            "total": total,
            "done": done,
            "failed": failed,
            "elapsed": elapsed_s,
            "left": left,
            "ended": ended,
            "failures": len(index.failed),
            "behind": index.behind,
            "cores": cores,
            "busy": max(0.0, sum(one.cpus for one in seen.groups) - free) if seen.groups
            else float(len(busy)),
            "running": [self._running(one, seen.now) for one in busy[:200]],
            "failing": [self._failing(one) for one in list(index.failed.values())[-50:]],
            "functions": [
                [shown(kind.name, 80), kind.total, kind.done, kind.failed, kind.mean_s,
                 kind.longest_s]
                for kind in sorted(index.kinds.values(), key=lambda one: -one.spent_s)[:100]
            ],
            "workers": [self._worker(one, seen.now, usage) for one in shows],
            "holds": self._holds(seen, tops, busy, free),
        }  # fmt: skip

    def _left(
        self, seen: Observation, tops: list[RunFacts], elapsed_s: float
    ) -> tuple[float, float | None] | None:
        if is_flood(self.index.behind) or self.index.uncounted:
            return _by_rate(tops, elapsed_s)
        kinds = self.index.kinds
        functions = self.index.functions
        running = [
            Active(
                one.name,
                seen.now - one.sent,
                kinds.get(functions.get(one.name, one.name)),
                1 if one.items is None else one.items[1],
                max((part or 0.0 for part in one.progress), default=0.0),
            )
            for one in seen.workers
            if one.call and not one.blocked
        ]
        return time_left(kinds.values(), running, elapsed_s)

    @staticmethod
    def _running(one: WorkerFacts, now: float) -> Json:
        part = max((part or 0.0 for part in one.progress), default=0.0)
        return {
            "key": one.call, "name": shown(one.name, 120), "worker": one.number,
            "for": max(0.0, now - one.sent), "expected": one.expected_s, "part": part,
            "blocked": one.blocked, "items": one.items,
        }  # fmt: skip

    def _failing(self, one: EndedAttempt) -> Json:
        return {
            "key": one.call, "name": shown(one.name, 120), "ending": one.ending,
            "attempt": one.attempt, "items": one.failed_items,
            "why": self._why(one.call), "ended": one.ended - self.zero,
        }  # fmt: skip

    def _why(self, key: str) -> str:
        call = self.index.find(key)
        error = None if call is None else self._error(call)
        return "" if error is None else shown(f"{type(error).__name__}: {error}")

    def _error(self, call: Call) -> BaseException | None:
        task = call.task_in(self.session.realm)
        if task is None or self.session.closed or state_in(call, self.session.realm).word != FAILED:
            return None
        if isinstance(call, MapCall):  # the error is that of the first block with one
            failed = (
                one
                for one in list(task.parts or ())
                if one.stage is Stage.FAILED or (one.stage is Stage.DONE and one.result[1])
            )
            task = next(failed, task)
        try:
            return self.engine.failure(task)
        except Exception as error:  # the program's own error class may not come back
            return error

    @staticmethod
    def _holds(
        seen: Observation, tops: list[RunFacts], busy: list[WorkerFacts], free: float
    ) -> str:
        """What holds the runs up, in one sentence; empty: nothing in particular."""
        if not tops:
            return "Nothing runs at the moment."
        starting = sum(not one.ready for one in seen.workers)
        waiting = sum(one.total - one.done - one.failed for one in tops)
        if not busy and starting:
            return "The workers are starting."
        blocked = sum(one.blocked for one in busy)
        if blocked:
            return f"{blocked} of {len(busy)} running calls wait for calls of their own."
        if free >= 1 and waiting > len(busy):
            return "Cores are free, but the calls that are left wait for inputs or for memory."
        if free >= 1 and busy:
            last = "The last call runs" if len(busy) == 1 else f"The last {len(busy)} calls run"
            idle = "1 core has" if free == 1 else f"{free:g} cores have"
            return f"{last}; {idle} nothing to do."
        if waiting > len(busy):
            return "All cores are busy; more of them would help."
        return "All cores are busy."

    # -- workers ------------------------------------------------------------------------------

    def _worker(
        self, one: WorkerFacts, now: float, usage: Mapping[int, tuple[float, float, int]]
    ) -> Json:
        cpu, memory = self._measure(one, usage)
        return {
            "number": one.number, "node": shown(one.node, 80), "pid": one.pid, "ready": one.ready,
            "queued": one.queued, "call": one.call, "name": shown(one.name, 120),
            "for": max(0.0, now - one.sent) if one.call else 0.0, "blocked": one.blocked,
            "cpu": cpu, "memory": memory,
        }  # fmt: skip

    def _measure(
        self, one: WorkerFacts, usage: Mapping[int, tuple[float, float, int]]
    ) -> tuple[float | None, int | None]:
        """The part of a core that a process has taken since the last look, and its memory."""
        found = usage.get(one.number)
        if found is None:  # it has ended, or nobody tells
            return None, None
        at, used_s, memory = found
        before = self._cpu.get(one.number)
        if before is None or before[3] != one.pid:
            self._cpu[one.number] = before = at, used_s, 0.0, one.pid
        elif at - before[0] > 0.2:
            share = max(0.0, used_s - before[1]) / (at - before[0])
            self._cpu[one.number] = before = at, used_s, share, one.pid
        return before[2], memory

    def stack(self, number: int) -> Json | None:
        """What a worker does now, with its Python stack. None: there is no such worker."""
        if not any(one.number == number for one in self.engine.observe().workers):
            return None
        lines = self.engine.stack(number)
        if lines is None:
            return {"text": "The node of this worker does not answer."}
        return {"text": escape_control("\n".join(lines))}

    # -- calls --------------------------------------------------------------------------------

    def calls(self, since: int = 0) -> Json:
        """All calls: those that are under way first, then those that have ended, newest first.

        Of those that have ended only the ones from a number on: ``next`` of an answer before. A row
        is: key, name, function, state, attempt, calls, worker, begin, seconds, CPU seconds,
        log bytes, bytes written. Names and functions are numbers in a list.
        """
        words: dict[str, int] = {}

        def word(text: str) -> int:
            return words.setdefault(text, len(words))

        now = time.monotonic()
        rows: list[list[object]] = []
        seen = self.engine.observe()
        most = PAGE_FLOOD_LISTED if is_flood(seen.next - self.index.seen) else PAGE_LISTED
        running = set()
        for busy in seen.workers:
            if busy.call:
                running.add(busy.call)
                function = self.index.functions.get(busy.name, busy.name)
                state = "blocked" if busy.blocked else RUNNING
                rows.append([busy.call, word(busy.name), word(function), state, 1,
                             busy.items[1] if busy.items else 1, busy.number,
                             busy.sent - self.zero, now - busy.sent, None, None, None])  # fmt: skip
        more = 0
        for call, state in self._under_way():
            if call.key in running:
                continue
            if len(rows) >= most:
                more = sum(one.total - one.done - one.failed for one in seen.runs) - len(rows)
                break
            first = [call.key, word(call.name), word(call.function.name), state, 0]
            rows.append([*first, getattr(call, "count", 1), *[None] * 6])
        under_way = len(rows)
        ended, following = self.index.since(since)
        for one in reversed(ended):
            if one.ending == "lost":
                continue
            times = one.times
            rows.append([
                one.call, word(one.name), word(one.function), one.ending, one.attempt, one.size,
                one.worker, round((times.called if times else one.sent) - self.zero, 6),
                round(times.running_s if times else max(0.0, one.ended - one.sent), 6),
                round(one.cpu_s, 6), one.log_bytes, one.written_bytes,
            ])  # fmt: skip
        return {
            "words": [shown(one, 200) for one in words],
            "rows": rows,
            "under_way": under_way,
            "next": following,
            "more": max(0, more),
            "behind": self.index.behind,
            "dropped": self.index.taken - len(self.index.rows),
        }

    def _under_way(self) -> Iterator[tuple[Call, str]]:
        realm = self.session.realm
        for call in self.index.unended():
            task = call.task_in(realm)
            if task is None:
                yield call, WAITING
            elif task.stage in _BEFORE and (not task.runs or any(one.live for one in task.runs)):
                yield call, WAITING if task.stage is Stage.WAITING else QUEUED

    def call(self, key: str) -> Json | None:
        """One call: its state, attempts, inputs, readers, error. None: nobody knows it."""
        attempts = [one for one in self.index.latest() if one.call == key]
        call = self.index.find(key)
        worker = next((one for one in self.engine.observe().workers if one.call == key), None)
        if call is None and not attempts and worker is None:
            return None
        found: Json = {"key": key, "attempts": [self._attempt(one) for one in attempts[-200:]]}
        now = time.monotonic()
        if call is None:
            name = attempts[-1].name if attempts else worker.name if worker else key
            last = RUNNING if worker else attempts[-1].ending
            around = self._around(attempts[-1].serial if attempts else 0)
            return found | {
                "name": shown(name), "state": last, "held": False, "live": False, **around,
            }  # fmt: skip
        state = state_in(call, self.session.realm)
        found |= {
            "name": shown(title_of(call)), "function": shown(call.function.name),
            "state": state.word, "told": shown(state.told(now)), "held": True,
            "live": state.word in UNDER_WAY and not self.session.closed,
            "arguments": len(call.payload) + _stored_bytes(call),
            "items": getattr(call, "count", None),
            "inputs": [
                [one.key, shown(title_of(one)), state_in(one, self.session.realm).word]
                for one in dict.fromkeys(source for source, _ in call.inputs)
            ][:500],
            "readers": self._readers(call),
        }  # fmt: skip
        error = self._error(call)
        if error is not None:
            lines = traceback.format_exception(error)
            found["error"] = escape_control("".join(lines))[-100_000:]
        return found

    def _readers(self, call: Call) -> list[list[str]]:
        found = []
        for other in self.index.unended():
            if any(source is call for source, _ in other.inputs):
                word = state_in(other, self.session.realm).word
                found.append([other.key, shown(title_of(other)), word])
                if len(found) == 200:
                    return found
        known = {key for key, _, _ in found}
        others = self._around(call.serial)["readers"]
        return [*found, *(one for one in others if one[0] not in known)][:200]

    def _around(self, serial: int) -> dict[str, list[list[str]]]:
        """Inputs and readers of a call that have ended, as the table knows them."""
        low = serial & 0xFFFFFFFF
        reads = self.index.reads()
        sources = set(reads.get(low, ()))
        readers = {one for one, inputs in reads.items() if low in inputs}
        told: dict[str, dict[str, list[str]]] = {"inputs": {}, "readers": {}}
        if sources or readers:
            for one in self.index.latest():
                at = one.serial & 0xFFFFFFFF
                for what, some in (("inputs", sources), ("readers", readers)):
                    if at in some:
                        told[what][one.call] = [one.call, shown(one.name), one.ending]
        return {what: list(rows.values())[:500] for what, rows in told.items()}

    def _attempt(self, one: EndedAttempt) -> Json:
        times = one.times
        return {
            "attempt": one.attempt, "ending": one.ending, "worker": one.worker, "pid": one.pid,
            "node": shown(one.node, 80), "size": one.size, "cpu": one.cpu_s,
            "peak": one.peak_bytes, "read": one.read_bytes, "written": one.written_bytes,
            "log": one.log_bytes, "failed": one.failed_items,
            "times": [moment - self.zero for moment in times] if times else None,
        }  # fmt: skip

    def graph(self, run: str, by: str) -> Json:
        """Which call reads the result of which; see `mars.web.graph`."""
        number = int(run) if run.isascii() and run.isdigit() and len(run) < 19 else 0
        self.index.reads()  # runs of calls inside calls may have begun
        workers = self.engine.observe().workers
        told = graph_of(self.index, self.session.realm, shown, workers, number, by)
        busy = [
            (one.call, self.index.functions.get(one.name, one.name),
             1 if one.items is None else one.items[1])
            for one in workers
            if one.call and told["run"] in one.runs
        ]  # fmt: skip
        mark_running(told, busy)
        return told

    # -- values -------------------------------------------------------------------------------

    def objects(self) -> Json:
        """What takes the memory: the largest values, who has made them, and who holds them.

        A row is: key and name of the call, what it is, bytes, whether it is on disk, who made it,
        who has it mapped, objects of the program, and calls that will read it.
        """
        tasks = self.index.held(self.session.realm)
        seen = self.engine.kept_values(tasks, PAGE_OBJECTS)
        read: Counter[Call] = Counter()  # places in the arguments of calls that are not done
        for task in tasks:
            if not task.call.satisfied:
                read.update(source for source, _ in task.call.inputs)
        rows: list[list[object]] = []
        for one in seen.stored:
            made, readers = one.maker, list(one.readers)
            if one.task < 0:
                rows.append(["", "", one.what or "value", one.size_bytes, one.on_disk, made,
                             readers, 0, 0])  # fmt: skip
                continue
            task = tasks[one.task]
            call = task.call
            what = "value of put()" if isinstance(call, HeldCall) else "result"
            name = "put()" if isinstance(call, HeldCall) else shown(title_of(call), 120)
            rows.append([call.key, name, what, one.size_bytes, one.on_disk, made, readers,
                         max(0, call.handles - read[call]), max(0, task.consumers)])  # fmt: skip
        return {
            "used": seen.used_bytes, "limit": seen.limit_bytes, "disk": seen.disk_bytes,
            "small": seen.small_bytes, "rows": rows, "more": seen.others,
            "more_bytes": seen.others_bytes,
        }  # fmt: skip

    def cancel(self, key: str) -> tuple[bool, str]:
        """Cancel one call; whether it was, and a sentence."""
        call = self.index.find(key)
        if call is None:
            return False, "This call is not known any more."
        try:
            cancelled = self.session.withdraw(call)
        except MarsError as error:
            return False, str(error)
        return cancelled, "Cancelled." if cancelled else "It has ended already."

    # -- what happened ------------------------------------------------------------------------

    def timeline(self, since: int) -> Json:
        """Attempts as bars, from a number on.

        A row: worker, name, begin, called, returned, end, ending, key.
        """
        names: dict[str, int] = {}
        rows = []
        latest, following = self.index.since(since)
        for one in latest:
            begin = one.times.received if one.times is not None else one.sent
            if one.ending == "lost" or not begin:
                continue
            called, returned = (
                (one.times.called, one.times.returned) if one.times else (begin, one.ended)
            )
            moments = (begin, called, returned, max(begin, one.ended))
            rows.append([one.worker, names.setdefault(one.name, len(names)),
                         *[round(moment - self.zero, 6) for moment in moments],
                         one.ending, one.call])  # fmt: skip
        return {
            "next": following,
            "rows": rows,
            "names": [shown(one, 80) for one in names],
            "now": time.monotonic() - self.zero,
        }

    def report(self, now: bool = False) -> Json:
        """The numbers of `Session.report`.

        To add up many attempts takes time from calls that run. Then it says how many there are,
        unless ``now`` is given.
        """
        seen = self.engine.observe()
        count = seen.next
        with self._lock:
            if self._report is not None and self._report[0] == count:
                return self._report[1]
        if seen.runs and count > PAGE_REPORT_ROWS and not now:
            return {"many": count}
        report = self.session.report()
        made: Json = {
            "wall": report.wall_s, "work": report.work_s, "cores": report.cores,
            "path": report.critical_path_s, "limit": report.limit_s,
            "efficiency": report.efficiency, "losses": list(report.losses.items()),
            "advice": list(report.advice),
            "functions": [
                [shown(row.function, 120), row.calls, row.work_s, row.mean_s, row.longest_s,
                 row.cpu_s, row.failed]
                for row in report.functions[:200]
            ],
            "critical": [[one.call, shown(one.name, 120), one.times.running_s if one.times else 0.0]
                         for one in report.critical_path[:100]],
        }  # fmt: skip
        with self._lock:
            self._report = count, made
        return made


def _by_rate(tops: list[RunFacts], elapsed_s: float) -> tuple[float, float | None] | None:
    """The time left of many calls that nobody has looked at one by one. None: it is too early."""
    done = sum(one.done + one.failed for one in tops)
    left = sum(one.total for one in tops) - done
    if elapsed_s < 1 or done < PAGE_STEP_ROWS:
        return None
    left_s = left * elapsed_s / done
    return 0.7 * left_s, 1.5 * left_s


def log_part(source: LogSource, start: int) -> tuple[bool, str, int]:
    """What a log has from a place on: whether its call has ended, the text, and the next place.

    Parameters
    ----------
    source : LogSource
        The log.
    start : int
        The place.
    """
    over = source.finished()  # first: what is read afterwards is then all there is
    start = source.kept_from(start)
    data = source.read(start, PAGE_LOG_BYTES)
    if data and not over:
        cut = data.rfind(b"\n") + 1  # whole lines, so that no character is cut in two
        data = data[:cut] if cut else data if len(data) >= PAGE_LOG_BYTES else b""
    text = escape_control(data.decode("utf-8", "replace").replace("\r\n", "\n"))
    return over, text, start + len(data)


def _stored_bytes(call: Call) -> int:
    """The size of the parts of the arguments beside the payload."""
    parts: Iterable[object] = call.stored or ()
    return sum(len(part) if isinstance(part, bytes) else int(getattr(part, "nbytes", 0))
               for part in parts if part is not call.payload)  # fmt: skip


__all__ = ["Facts", "log_part", "shown"]
