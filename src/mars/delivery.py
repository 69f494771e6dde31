"""The thread that runs what belongs to the program: results of futures, and their callbacks.

Results are unpickled and callbacks are called here, never in the engine's thread: they are code of
the program, which may take long, wait for another call, or never end. What is put here is done in
its order, one after the other. If something takes longer than `DELIVERY_STALL_S`, a second thread
goes on with what waits behind it, so that nothing can hold up everything else.

No thread is here as long as there is nothing to do. Called by `mars.execution`, and by engines
that have something to say to the user.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

from mars.settings import DELIVERY_IDLE_S, DELIVERY_STALL_S, DELIVERY_WAITING

Action = Callable[[], object]


class Delivery:
    """Does actions in order, in as few threads as that takes."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._actions: deque[Action] = deque()
        self._coming = 0  # threads that were started, and have not asked for an action yet
        self._waiting = 0  # threads with nothing to do
        self._watching = False  # one of them looks soon whether the first one stalls
        self._turn: object = None  # of the thread that does an action, unless that stalls
        self._since = 0.0  # when it began with that

    def put(self, action: Action) -> bool:
        """Have something done soon; an exception that it raises is logged.

        Waits for nothing, so an engine's thread may call it. False: the system refuses a thread,
        and the action is not done.
        """
        with self._condition:
            there = self._coming or self._waiting or self._turn is not None
            if there:
                self._actions.append(action)
                if self._turn is None or not self._watching:
                    self._condition.notify()
                return True
        return self._start(action)

    def _start(self, *actions: Action) -> bool:
        """Start a thread; the actions are for it, or another one."""
        with self._condition:
            self._coming += 1
            self._actions.extend(actions)
        try:
            threading.Thread(target=self._serve, name="mars-delivery", daemon=True).start()
        except RuntimeError:
            with self._condition:
                self._coming -= 1
                if not (self._coming or self._waiting or self._turn is not None):
                    for action in actions:
                        self._actions.remove(action)
                    return False
        return True

    def _serve(self) -> None:
        action: Action | None
        with self._condition:
            self._coming -= 1
        while True:
            with self._condition:
                action = self._next()
                if action is None:
                    return
                turn = self._turn = object()
                self._since = time.monotonic()
                alone = not (self._waiting or self._coming)
            if alone:
                self._start()  # if it is refused, an action that stalls holds up the others
            try:
                action()
            except BaseException as error:  # SystemExit, too: it ends nothing here
                log_failure("exception calling callback", error)
            del action
            with self._condition:
                if self._turn is turn:
                    self._turn = None

    def _next(self) -> Action | None:
        """Wait for the next action; None: this thread is not needed. The lock is held."""
        while True:
            stalls_in_s = DELIVERY_STALL_S - (time.monotonic() - self._since)
            if self._actions and (self._turn is None or stalls_in_s <= 0):
                return self._actions.popleft()
            if self._waiting >= DELIVERY_WAITING:
                return None
            watches = bool(self._actions) and not self._watching
            self._waiting += 1
            self._watching |= watches
            told = self._condition.wait(stalls_in_s if watches else DELIVERY_IDLE_S)
            self._waiting -= 1
            self._watching &= not watches
            if not (told or watches or self._actions or self._turn is not None):
                return None


def log_failure(what: str, error: BaseException) -> None:
    """Log an exception that code of the program has raised where nobody can catch it."""
    import logging  # late: it takes 5 ms, and is most often not needed

    logging.getLogger("concurrent.futures").error(what, exc_info=error)


_delivery = Delivery()


def _after_fork() -> None:
    # A child that the program forks has none of its threads, and does not deliver for it.
    global _delivery
    _delivery = Delivery()


os.register_at_fork(after_in_child=_after_fork)


def put(action: Action) -> bool:
    """See `Delivery.put`."""
    return _delivery.put(action)
