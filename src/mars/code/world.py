"""Which world this code runs in: see `mars.code.spawned` for what a world is.

Calls that were spawned at different states of the program run one after the other in one process,
and each sees its own. In the program itself `HOME` stands for a world: what comes back finds the
classes and functions that are there, and nothing is ever written to them.

Pickles are made in `mars.code.pickling`; the functions that they call when they are read ask
`current` for the world.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Final

from mars.code import importing, modules, tags
from mars.code.changes import (
    MISSING,
    Change,
)
from mars.code.home import Home, set_main_file
from mars.code.modules import Source
from mars.code.spawned import World, waiting_reducers

HOME: Final = Home()


class _OfThread(threading.local):
    world: World | None = None


_of_thread = _OfThread()
_of_process: World | None = None


def current() -> World | Home:
    """The world that this code runs in."""
    return _of_thread.world or _of_process or HOME


def of_thread() -> World | None:
    """The world that this thread is visiting, if any."""
    return _of_thread.world


def enter_thread(world: World | None) -> None:
    """From here on this thread visits ``world``, which another thread has entered."""
    _of_thread.world = world


def switch(world: World) -> None:
    """From here on this process runs calls of ``world``; for workers."""
    global _of_process
    if _of_process is world:
        return
    if _of_process is not None:
        _of_process.leave()
    _of_process = world
    world.enter()


def expected(name: str) -> Source | None:
    """What a module of the project was made from, in the world that this code runs in."""
    world = current()
    return world.manifest.get(name) if isinstance(world, World) else None


def settle() -> None:
    """The function is here: what comes from now on belongs to one call."""
    world = current()
    if isinstance(world, World):
        world.settle()


def look_for_reduced() -> None:
    """Have objects of modules that were imported meanwhile pickle as the program wants it."""
    world = current()
    if isinstance(world, World):
        world.look_for_reduced()


def end_call() -> None:
    """A call has ended: what came with its arguments does not stay."""
    world = current()
    if isinstance(world, World) and world.used:
        world.end_call()


def notes() -> list[str]:
    """What a call that failed is told of: values of the program that it had to do without."""
    world = current()
    if not isinstance(world, World):
        return []
    return [
        f"{name} of the program is {lost.partition(':')[0]}, which cannot travel "
        f"({lost.partition(': ')[2]}); the call found what the import of its module made"
        for name, lost in world.lost.items()
    ]


class _Visit:
    """A world that a thread is in for a while."""

    __slots__ = ("around", "generation", "over", "world")

    def __init__(self, world: World, around: World | None) -> None:
        self.world, self.around = world, around
        self.generation = importing.current()  # what was in place before
        self.over = False

    def end(self) -> None:
        """Put everything back."""
        self.world.leave()
        around = self.around
        importing.enter(self.generation, None if around is None else around._imported)


# What a visit puts in place is there for the whole process. So one world at a time is visited, and
# out of it, those of calls that it asks for. They end in the opposite order.
_visits: list[_Visit] = []
_visits_change = threading.Condition(threading.RLock())


def _forget_visits() -> None:
    """In a process that was forked, the threads are gone that were in other worlds."""
    global _visits_change
    _visits_change = threading.Condition(threading.RLock())
    _visits.clear()


os.register_at_fork(after_in_child=_forget_visits)


def _may_enter(outer: World | None) -> bool:
    """Whether a thread that is in ``outer`` may go into another world from there."""
    if not _visits or _visits[-1].world is outer:
        return True
    # A call left this thread behind, and nobody waits for it.
    return outer is not None and all(visit.world is not outer for visit in _visits)


@contextlib.contextmanager
def visiting(world: World, *, unseen: bool = False) -> Iterator[World]:
    """Be in another world for a while, in this thread.

    Waits for the end of visits by other threads, unless they asked for this one.

    Parameters
    ----------
    world : World
        Where to be.
    unseen : bool, default False
        Whether ``sys.modules`` keeps ``__main__`` and all else that travels by value, as other
        threads see it: for who reads what came, and runs none of it.
    """
    outer = _of_thread.world
    around = outer or _of_process
    with _visits_change:
        _visits_change.wait_for(lambda: _may_enter(outer))
        visit = _Visit(world, around)
        _visits.append(visit)
        _of_thread.world = world
        world.enter(as_guest=around is None, unseen=unseen)
    try:
        yield world
    finally:
        _of_thread.world = outer
        with _visits_change:
            visit.over = True
            if visit not in _visits:
                visit.end()  # in a process that was forked meanwhile
            while _visits and _visits[-1].over:
                _visits.pop().end()
            _visits_change.notify_all()


def tag_of(value: object) -> str:
    """The tag of a class or function; from now on it has one."""
    tag = tags.known(value)
    if tag is not None:
        return tag
    world = current()
    with tags.lock:
        tag = tags.known(value)
        if tag is not None:
            return tag
        tag = tags.new()
        tags.note(value, tag, of_a_world=world is not HOME)
    world.met(tag, value)
    return tag


# -- subclasses of one world ---------------------------------------------------------------------


_makers: dict[int, tuple[weakref.ref[type], weakref.ref[World]]] = {}
"""The world that a class came with, by the identity of the class."""


def _is_visible(cls: type) -> bool:
    """Whether code of the world that it runs in may meet a class."""
    made = _makers.get(id(cls))
    if made is not None and made[0]() is cls:
        return made[1]() is current()
    tag = tags.known(cls)
    if tag is None:
        return True
    return current().find(tag, cls.__module__, cls.__qualname__) in (cls, MISSING)


def _subclasses(cls: type) -> list[type]:
    """In the place of ``__subclasses__``: without those that came with calls of other functions."""
    below: list[type] = type.__subclasses__(cls)
    return [one for one in below if _is_visible(one)]


def _forget_maker(
    makers: dict[int, tuple[weakref.ref[type], weakref.ref[World]]], key: int, gone: object
) -> None:
    known = makers.get(key)
    if known is not None and known[0] is gone:
        del makers[key]


def keep_apart(cls: type) -> None:
    """A class is here for the calls of this world only; classes above it tell nobody else."""
    world = current()
    if not isinstance(world, World):
        return
    key = id(cls)
    gone = weakref.ref(cls, functools.partial(_forget_maker, _makers, key))
    _makers[key] = gone, weakref.ref(world)
    for base in cls.__bases__:
        ours = base.__module__ == "__main__" or modules.record_of(base.__module__) is not None
        if ours and "__subclasses__" not in vars(base):
            change = Change(base, "__subclasses__", classmethod(_subclasses))
            if not importing.is_program():
                change.enter()  # for good: calls of other worlds come
            elif id(base) not in _makers:
                world.hold(base.__module__, f"{base.__qualname__}.__subclasses__", change)


__all__ = [
    "HOME", "World", "current", "end_call", "enter_thread", "expected", "keep_apart",
    "look_for_reduced", "notes", "of_thread", "set_main_file", "settle", "switch", "tag_of",
    "visiting", "waiting_reducers",
]  # fmt: skip
