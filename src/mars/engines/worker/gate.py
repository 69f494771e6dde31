"""Which calls of a process may run at a time, by the code of the program that they came with.

A `World` puts modules of the program in place for the whole process. Most worlds hold nothing but
modules that came by value, such as ``__main__``: threads in several of these run at a time, and
each sees its own modules. A world that changes modules which others see has the process to itself:
its calls run together, and calls of other worlds wait for them. Called by
`mars.engines.worker.in_threads`.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType

from mars.code import world
from mars.code.arriving import new_world
from mars.code.world import World


class _ByThread(ModuleType):
    """A module as it is in the world of the thread that asks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for known in vars(self).keys() - {"__name__"}:
            del vars(self)[known]

    def __getattr__(self, name: str) -> object:
        there = world.of_thread()
        if there is None or self.__name__ not in there.modules:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(there.modules[self.__name__], name)


class Gate:
    """Lets calls into their worlds."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[World, int] = {}  # how many calls each world has
        self._there: dict[World, int] = {}  # the same, with those that wait for nested calls
        self._alone: World | None = None  # that has the process to itself
        self._waiting = 0  # calls that want the process for their world
        self._plain = new_world()
        self._plain.settled = True
        self._shown: dict[str, ModuleType] = {"__main__": _ByThread("__main__")}
        self._share()

    def _share(self) -> None:
        """Have the process as worlds share it."""
        self._alone = None
        world.switch(self._plain)
        sys.modules.update(self._shown)

    def _show(self, code: World) -> None:
        """Have threads in a world find its modules."""
        code.module("__main__", {})
        for name in code.modules.keys() - self._shown.keys():
            sys.modules[name] = self._shown[name] = _ByThread(name)

    def _is_apart(self, code: World) -> bool:
        """Whether a world has to have the process to itself."""
        if code.needs_the_process():
            return True
        alone = () if self._alone is None else self._alone.modules
        return any(
            name in sys.modules and name not in self._shown and name not in alone
            for name in code.modules
        )  # others have imported what came with this one by value

    def enter(self, code: World, *, alone: bool = False, again: bool = False) -> None:
        """Be in a world, in this thread, as soon as those that are there allow it.

        Parameters
        ----------
        code : World
            Where to be.
        alone : bool, default False
            Whether the process has to be its own, whatever is known of it.
        again : bool, default False
            Whether the call was in it before, and left it to wait.
        """
        with self._changed:
            wants = False  # it is counted among those who want the process for themselves
            try:
                while True:
                    apart = alone or self._is_apart(code)
                    if apart is not wants:
                        wants = apart
                        self._waiting += 1 if apart else -1
                    if not self._running:
                        break
                    # Not past those who wait for the process, or they would never get it.
                    if self._alone is (code if apart else None) and self._waiting == apart:
                        break
                    self._changed.wait()
            finally:
                self._waiting -= wants
            if not apart and self._alone is not None:
                self._share()
            elif apart and self._alone is not code:
                world.switch(code)
                self._alone = code
            if not apart:
                self._show(code)
            self._running[code] = self._running.get(code, 0) + 1
            if not again:
                self._there[code] = self._there.get(code, 0) + 1
        world.enter_thread(code)

    def leave(self, code: World, *, over: bool = True) -> None:
        """A call is over, or waits for others."""
        with self._changed:
            _count_down(self._running, code)
            if over and _count_down(self._there, code) and code.used:
                code.end_call()  # what came with arguments: no call that could need it is left
            self._changed.notify_all()


def _count_down(counts: dict[World, int], code: World) -> bool:
    """Count one less; whether none is left."""
    counts[code] -= 1
    if counts[code]:
        return False
    del counts[code]
    return True
