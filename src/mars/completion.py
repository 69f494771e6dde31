"""Results as they come: which calls of a run have ended, and an iterator over their objects.

A run tells `Ends` of each call that ends, and `Completed` gives the objects of these calls to the
program, each once. It lets go of an object as it gives it, so that the value can be freed once the
program has dropped it, too. Nothing runs here. `mars.sessions.runs` makes `Ends`; `mars.execution`
and `as_completed` make `Completed`.

::

    engine's thread ── put(task) ──► Ends ── wake ──► Completed ──► for obj in run
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from mars.engine import Run
from mars.task import Call, Handle, Output, Task
from mars.tracebacks import trim

if TYPE_CHECKING:
    import asyncio

    class _Map(Protocol):
        """A map, as `mars.calls.objects.MapObjects` is one."""

        @property
        def whole(self) -> Call: ...
        @property
        def own_items(self) -> set[int]: ...
        def __len__(self) -> int: ...
        def __getitem__(self, index: int, /) -> object: ...


class Ends:
    """The calls of a run that have ended and that nobody has read yet.

    Attributes
    ----------
    unread : deque of tuple
        Each is a call and which of its items have ended; None: all of the call.
    numbers : deque of tuple
        Of calls that are a run each: the number of the call, and what has ended its run early.
    wake : callable or None
        Called when something was added, in the engine's thread.
    """

    __slots__ = ("numbers", "unread", "wake")

    def __init__(self) -> None:
        self.unread: deque[tuple[Call, Sequence[int] | None]] = deque()
        self.numbers: deque[tuple[int, BaseException | None]] = deque()
        self.wake: Callable[[], object] | None = None

    def put(self, task: Task) -> None:
        """A task of the run has ended; called in the engine's thread. It keeps no value."""
        self.unread.append((task.call, None if task.source is None else task.items))
        if self.wake is not None:
            self.wake()

    def put_call(self, call: Call) -> None:
        """A call was done before the run began."""
        self.unread.append((call, None))

    def put_number(self, number: int, error: BaseException | None) -> None:
        """A call has ended that is a run of its own."""
        self.numbers.append((number, error))
        self.tell()

    def tell(self, _: object = None) -> None:
        """Wake whoever waits: the run has ended."""
        if self.wake is not None:
            self.wake()


class Completed:
    """The objects of a run, each as soon as its call has ended, well or not.

    It is an iterator, and an async iterator. ``len`` is the number of objects that are still to
    come. ``mars.remote.as_completed`` and the iteration over a run make it.

    Raises
    ------
    TimeoutError
        The next call has not ended when the time is over. The calls go on.
    BaseException
        The run has ended before its calls: the failure that ended a run of ``on_error="raise"``,
        after all objects whose calls have ended; or a CancelledError.
    """

    __module__ = "mars.remote"  # where programs find it

    def __init__(
        self,
        run: Run,
        ends: Ends,
        leaves: Iterable[Handle],
        *,
        listen: Callable[[Callable[[float | None], bool], float | None], bool],
        over: Callable[[], object],
        progress: Callable[[], str],
    ) -> None:
        self._begin(ends, listen)
        self._run, self._over, self._progress = run, over, progress
        self._pending: dict[Call, list[Output]] = {}
        self._maps: dict[Call, tuple[_Map, set[int]]] = {}  # and the items that are still to come
        self._told = False  # how the run has ended
        self._left = 0
        for leaf in leaves:
            if isinstance(leaf, Output):
                self._pending.setdefault(leaf.call, []).append(leaf)
                self._left += 1
                continue
            items = cast("_Map", leaf)
            if items.whole not in self._maps:
                self._maps[items.whole] = items, set(range(len(items)))
                self._left += len(items)
        # Nobody of these holds this iterator: if the program drops it, the objects go with it.
        run.on_end(ends.tell)

    def _begin(
        self,
        ends: Ends,
        listen: Callable[[Callable[[float | None], bool], float | None], bool],
    ) -> None:
        """Have what waiting needs."""
        self._ends, self._listen = ends, listen
        self._stop: Callable[[], object] | None = None
        self._timeout_s: float | None = None
        self._deadline: float | None = None
        self._ready: deque[object] = deque()
        self._woken = threading.Event()
        self._awaited: asyncio.Event | None = None
        ends.wake = self._woken.set

    def limit(self, timeout_s: float | None, stop: Callable[[], object] | None) -> None:
        """Say until when all have to come, and what to do if Ctrl-C comes first.

        Parameters
        ----------
        timeout_s : float or None
            Seconds from now. None: no limit.
        stop : callable or None
            What Ctrl-C calls while the program waits here.
        """
        self._timeout_s, self._stop = timeout_s, stop
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def __len__(self) -> int:
        return self._left

    def __iter__(self) -> Completed:
        return self

    def __aiter__(self) -> Completed:
        return self

    def __next__(self) -> Any:
        try:
            while not self._step():
                if not self._listen(self._woken.wait, self._time_left()):
                    self._late()
        except KeyboardInterrupt as error:
            if self._stop is not None:
                self._stop()
                error.args = error.args or (f"{self._progress()}. execute() runs the rest",)
            trim(error)
            raise
        except BaseException as error:
            trim(error)
            raise
        if not self._ready:
            raise StopIteration
        return self._give()

    async def __anext__(self) -> Any:
        import asyncio

        if self._awaited is None:
            loop, event = asyncio.get_running_loop(), asyncio.Event()
            self._awaited, woken = event, self._woken

            def wake() -> None:
                woken.set()
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(event.set)

            self._ends.wake = wake
            wake()
        while not self._step():
            try:
                await asyncio.wait_for(self._awaited.wait(), self._time_left())
            except TimeoutError:
                self._late()
            self._awaited.clear()
        if not self._ready:
            raise StopAsyncIteration
        return self._give()

    def _give(self) -> object:
        """The next object, which is ready."""
        self._left -= 1
        return self._ready.popleft()

    def _step(self) -> bool:
        """Whether there is something to give, or no more will come."""
        run = self._run
        if self._ready or self._told or not (self._left or run.stop_on_error):
            return True
        self._woken.clear()
        over = run.ended  # before the look: what ended until then is found now
        self._take()
        if self._ready:
            return True
        if not over:
            return False
        self._told = True
        self._over()  # raises what ended the run, also if all objects have been given
        for objects in self._pending.values():  # calls of calls are told at the end
            self._ready.extend(objects)
        self._pending.clear()
        for whole, left in self._maps.values():
            self._ready.extend(whole[index] for index in sorted(left))
        self._maps.clear()
        return True

    def _take(self) -> None:
        """Make ready what has ended since the last look."""
        unread = self._ends.unread
        while unread:
            call, items = unread.popleft()
            if items is None:
                self._ready.extend(self._pending.pop(call, ()))
                items = (call.index,) if call.whole is not None else None  # type: ignore[attr-defined]
            known = self._maps.get(call if call.whole is None else call.whole)
            if known is None:
                continue
            whole, left = known
            # A map that has ended as a whole: all of its items, but for calls of their own.
            for index in left - whole.own_items if items is None else items:
                if index in left:
                    left.discard(index)
                    self._ready.append(whole[index])

    def _time_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _late(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimeoutError(
                f"{self._what_is_left()} after {self._timeout_s:g} s: "
                f"{self._progress()}. The calls go on"
            )

    def _what_is_left(self) -> str:
        left = len(self)
        return "1 object is still to come" if left == 1 else f"{left} objects are still to come"


__all__ = ["Completed", "Ends"]
