"""What a task in any engine has come to: its log, its error, and the items of a map.

Called by all engines, so that they say these things alike. That includes what they say when they
are closed.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

from mars.attempt.capture import Log
from mars.attempt.failure import decode_failure
from mars.errors import (
    DependencyFailed,
    InternalError,
    NotExecuted,
    SessionClosed,
    TaskTimeout,
)
from mars.logs import JoinedLog
from mars.task import Call, Ended, Stage, Task

TYPE_CHECKING = False  # known to type checkers; states are looked at when something has no value
if TYPE_CHECKING:
    from mars.observe.states import State

Decode = Callable[..., object]  # of what the engine keeps


def check_open(closed: bool, pid: int) -> None:
    """Refuse the use of an engine that is closed, or that another process started.

    Raises
    ------
    SessionClosed
        Nothing can be asked of it here.
    """
    if closed:
        raise SessionClosed
    if pid != os.getpid():
        raise SessionClosed(
            "this session belongs to the process that this one was forked from; "
            "call mars.new_session() here"
        )


class TaskLog:
    """What one task has printed, attempt after attempt; still growing while it runs.

    Parameters
    ----------
    task : Task
        Whose log.
    running : callable
        The log of its attempt that runs now, if there is one.
    over : callable
        Whether its engine has ended, so that nothing more can come.
    """

    def __init__(
        self,
        task: Task,
        running: Callable[[Task], Log | None],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._task = task
        self._running = running
        self._over = over

    def _parts(self) -> JoinedLog:
        parts = list(self._task.logs)
        running = self._running(self._task)
        if running is not None:
            parts.append(running)
        return JoinedLog(parts)

    def size(self) -> int:
        """Bytes so far."""
        return self._parts().size()

    def read(self, start: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``start``, but none from a gap or beyond it."""
        return self._parts().read(start, limit)

    def kept_from(self, start: int) -> int:
        """``start``, or where the log goes on if what stood there was left out."""
        return self._parts().kept_from(start)

    def finished(self) -> bool:
        """Whether no more will come."""
        return never_again(self._task) or self._over()


def never_again(task: Task) -> bool:
    """Whether a task will not run, or run on: it has ended, or nobody wants it any more."""
    if task.finished:
        return True
    if task.stage is Stage.ASSIGNED or task.blocks:
        return False
    return bool(task.runs) and not any(run.live for run in task.runs)


def failure_of(task: Task) -> BaseException:
    """The error of a task that has no value."""
    call = task.call
    if task.items is not None and task.stage is Stage.DONE:  # a block: its first failure
        return decode_failure(next(iter(task.result[1].values())))
    if task.cancelled:
        return cancelled(call)
    if task.stage is not Stage.FAILED:
        return no_value_of(task)
    if task.failed_input is not None:
        root = task.failed_input
        while root.failed_input is not None:
            root = root.failed_input
        error: BaseException = DependencyFailed(call.name, root.call.name)
        error.__cause__ = failure_of(root)
        return error
    if task.blame == "timeout":
        assert call.options.timeout_s is not None
        stopped = None if not isinstance(task.result, bytes) else decode_failure(task.result)
        where = "" if stopped is None else _where(stopped)
        error = TaskTimeout(call.name, call.options.timeout_s, task.tries, where)
        if stopped is not None:
            # The stack at the moment of the interrupt: it shows what took so long.
            error.__traceback__ = stopped.__traceback__
            for note in getattr(stopped, "__notes__", ()):
                error.add_note(note)
        return error
    if isinstance(task.result, bytes):
        return decode_failure(task.result)
    return InternalError(f"{call.name} failed without saying how")


def _where(stopped: BaseException) -> str:
    """Where a call was stopped: the innermost line of the user's code; empty: not known."""
    last = stopped.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        # Without a line of Python: it was in compiled code, or its worker had to be killed.
        return "in compiled code" if isinstance(stopped, KeyboardInterrupt) else ""
    code = last.tb_frame.f_code
    return f"at line {last.tb_lineno} of {code.co_filename} in {code.co_name}"


def no_value(title: str, state: State) -> NotExecuted:
    """The error of a call that has no value, by its state: why, and what to do."""
    from mars.observe.states import why_no_value

    return NotExecuted(title, why_no_value(state, time.monotonic()), state.word)


def no_value_of(task: Task) -> NotExecuted:
    """The error of a task that has not ended, or whose value is gone."""
    from mars.observe.states import state_of, title_of

    return no_value(title_of(task.call), state_of(task))


def cancelled(call: Call, item: int | None = None) -> BaseException:
    """The error of a call that was cancelled, or of an item of a map."""
    from mars.errors import TaskCancelled
    from mars.observe.states import title_of

    return TaskCancelled(title_of(call) if item is None else f"item {item} of {call.name}")


class Items:
    """Where the items of a map are: which block has which, newest first."""

    def __init__(self, parts: Sequence[Task]) -> None:
        self.count = len(parts)
        self._starts: list[int] = []
        self._blocks: list[tuple[int, Task]] = []
        single: dict[int, tuple[int, Task]] = {}
        ranges = []
        for block in parts:
            if isinstance(block.items, range):
                ranges.append((block.items.start, block))
            else:
                for offset, index in enumerate(block.items):
                    single[index] = (offset, block)
        ranges.sort(key=lambda pair: pair[0])
        self._starts = [start for start, _ in ranges]
        self._blocks = ranges
        self._single = single

    def find(self, index: int) -> tuple[int, Task] | None:
        """The block that has an item, and the item's position in it."""
        found = self._single.get(index)
        if found is not None:
            return found
        place = bisect_right(self._starts, index) - 1
        if place >= 0:
            start, block = self._blocks[place]
            if index in block.items:
                return index - start, block
        return None


def item_of(task: Task, index: int, decode: Decode) -> object:
    """One item's value out of a map's blocks, or its error, raised."""
    found: tuple[int, Task] | None = getattr(task, "place_in_block", None)
    if found is None:
        found = Items(task.parts).find(index)
    if found is None and task.cancelled:
        raise cancelled(task.call, index)
    if found is None:
        raise NotExecuted(f"item {index} of {task.call.name}")
    offset, block = found
    if block.stage is not Stage.DONE:
        raise failure_of(block)
    packed, failures, *_ = block.result
    if offset in failures:
        raise decode_failure(failures[offset])
    return decode(packed)[offset]  # type: ignore[index]


def block_values(block: Task, decode: Decode) -> tuple[Sequence[object], dict[int, BaseException]]:
    """All values of a block, and the errors of its items by position."""
    if block.stage is not Stage.DONE:
        error = failure_of(block)
        return [None] * len(block.items), dict.fromkeys(range(len(block.items)), error)
    packed, failures, *_ = block.result
    errors = {offset: decode_failure(data) for offset, data in failures.items()}
    return decode(packed), errors  # type: ignore[return-value]


def item_attempts(block: Task, offset: int) -> tuple[Ended, ...]:
    """The attempts of one item of a block."""
    told = block.attempts()
    if block.stage is not Stage.DONE or not told:  # all fared alike, or a checkpoint had it
        return told
    *earlier, (node, worker, ending) = told
    _, failures, _, tries, *_ = block.result
    if offset in failures:
        ending = "error"
    again = [(node, worker, "error")] * tries.get(offset, 0)
    return (*earlier, *again, (node, worker, ending))


def item_log(block: Task, offset: int) -> Log | None:
    """The part of a worker's log that one item wrote."""
    if block.stage is not Stage.DONE:
        return block.logs[-1] if block.logs else None
    marks = block.result[2]
    if marks is None or marks[offset] == marks[offset + 1]:
        return None
    loud = offset in block.result[4]
    return Log(block.logs[-1].segment, marks[offset], marks[offset + 1], loud)
