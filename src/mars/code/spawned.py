"""What the program's code was when a call was spawned: what each of its names means.

A `World` holds the modules that travel by value, ``__main__`` first of all, the classes and
functions that came with them, and what the program had changed in modules that a worker imports by
name. While a world is entered, its modules stand in ``sys.modules`` and its changes are in place;
leaving it puts both aside. Which world is entered is a matter of `mars.code.world`.
"""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Final, Protocol

from mars.code import importing, modules, tags
from mars.code.changes import (
    AS_IMPORTED,
    DEFAULT,
    MISSING,
    OF_FUNCTION,
    Change,
    Content,
    Group,
    Reducer,
    State,
    bound,
    owner_of,
    refusing,
    value_in,
    with_default,
    with_objects,
    with_own_cache,
    without_objects,
)
from mars.code.guests import Kept, for_a_guest, has_plain_attributes, stays_with_a_guest
from mars.code.home import OF_EMPTY_MODULE, Outer, made_module
from mars.code.importing import Generation
from mars.code.modules import Source
from mars.code.origin import found


class Reading(Protocol):
    """What a world needs to read what came beside a pickle; see `mars.code.states`."""

    def read(self, data: bytes) -> tuple[list[Source], list[State]]:
        """Files of modules, and what they held."""

    def compare(
        self, state: State, now: object, held: dict[tuple[str, str], object]
    ) -> tuple[object] | None:
        """Whether what is there is what the program had: None, or the value to be set."""

    def outline(self, value: object) -> bytes | None:
        """What tells one function from another, without what it holds."""


waiting_reducers: Final[list[bool]] = []
"""Empty until the first world waits for the import of a class with a reducer: mostly for ever."""


class World:
    """What the program's code was when a call was spawned.

    Parameters
    ----------
    reading : Reading, optional
        Reads what came beside a pickle, and compares it with what is there.
    """

    def __init__(self, reading: Reading | None = None) -> None:
        self.modules: dict[str, ModuleType] = {}  # those that travel by value
        self._stands: dict[str, object] = {}  # in sys.modules, put there by the program itself
        self.generation: Generation | None = None  # those that travel by name
        self.manifest: dict[str, Source] = {}
        self.lost: dict[str, str] = {}  # what could not travel, by name
        self.settled = False  # the function is here: what comes now belongs to one call
        self.used = False  # something came that does
        self.entered = False
        self._unseen = False
        self._reading = reading
        self._objects: dict[str, object] = {}
        self._expected: set[bytes] = set()
        self._states: dict[str, list[State]] = {}  # not compared yet, by module
        self._changes: dict[tuple[str, str], Change] = {}
        self._one: dict[object, object] = {}  # objects that have several names
        self._groups: dict[Group, list[object]] = {}  # those that were read; empty: just now
        self._told: list[State] = []  # all that came
        self._pending: list[State] = []  # of modules that are being looked at
        self._nested = 0  # looks inside each other
        self._settled_now: list[Change] = []  # by them
        self._before: dict[str, ModuleType | None] = {}  # in sys.modules, under the names of ours
        self._reducers: dict[str | tuple[str, str], bytes] = {}  # of classes that did not come yet
        self._guests: dict[str, Kept] | None = None  # modules of the program, as a guest of it
        # Of the call that runs:
        self._passing: dict[str, object] = {}
        self._undo: list[Callable[[], object]] = []

    # -- what pickles ask for ------------------------------------------------------------------

    def find(self, tag: str, module: str, qualname: str) -> object:
        """What a tag stands for in this world; `MISSING`: it did not come with the call."""
        value = self._objects.get(tag, MISSING)
        return self._passing.get(tag, MISSING) if value is MISSING else value

    def met(self, tag: str, value: object) -> None:
        """A call defined something, and it got a tag: it is known by it until the call ends."""
        self.used = True
        self._passing[tag] = value

    def add(self, tag: str, module: str, qualname: str | None, value: object) -> None:
        """Something was made; with ``qualname``, it is found under that name."""
        self.used |= self.settled
        if tag:
            (self._passing if self.settled else self._objects)[tag] = value
            with tags.lock:
                tags.note(value, tag, of_a_world=True)
            if tag in self._reducers and isinstance(value, type):
                self._register(tag, value)
        if qualname is None or "<" in qualname:
            return
        namespace = self.module(module, {}).__dict__
        name, *inner = qualname.split(".")
        if inner:  # a class inside of one that may never come: pickle finds it on that way
            outer = namespace.get(name, MISSING)
            if outer is MISSING or type(outer) is Outer:
                self._bind(namespace, name, Outer.holding(outer, inner, value))
        elif type(namespace.get(name)) is Outer:
            namespace[name] = value
        else:
            self._bind(namespace, name, value)

    def hold(self, module: str, path: str, change: Change) -> None:
        """Have a change in place for as long as this world is."""
        self._changes[module, path] = change
        if self.entered:
            change.enter()

    def _bind(self, namespace: dict[str, object], name: str, value: object) -> None:
        if self.settled and name not in namespace:
            self._undo.append(functools.partial(namespace.pop, name, None))
        namespace.setdefault(name, value)

    def module(self, name: str, facts: Mapping[str, object]) -> ModuleType:
        """A module that travels by value; an empty one at first."""
        module = self.modules.get(name)
        if module is None:
            module = self.modules[name] = made_module(name, facts)
            if self.entered:
                self._show(name, module)
        else:
            for fact, value in facts.items():
                if module.__dict__.get(fact) is None:  # as in a module that is new
                    module.__dict__[fact] = value
        return module

    def show_as(self, name: str, value: object) -> None:
        """Have ``import`` find what the program has put into ``sys.modules`` itself."""
        if name in self._stands or name in self.modules:
            return
        self.used |= self.settled
        self._stands[name] = value
        if self.settled:
            self._undo.append(functools.partial(self._hide, name))
        if self.entered:
            self._show(name, value)

    def _hide(self, name: str) -> None:
        self._stands.pop(name, None)
        if name in self._before:
            self._put_back(name, self._before.pop(name))

    @staticmethod
    def _put_back(name: str, before: ModuleType | None) -> None:
        if before is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = before

    def _show(self, name: str, module: object) -> None:
        """Have ``import`` find a module."""
        if not self._unseen:
            self._before[name] = sys.modules.get(name)
            sys.modules[name] = module  # type: ignore[assignment]  # it may hold any object

    def namespace(self, name: str, facts: Mapping[str, object]) -> dict[str, object]:
        """Global names of such a module."""
        return self.module(name, facts).__dict__

    def define(self, namespace: dict[str, object], name: str, value: object) -> None:
        """Give a module a name that functions refer to; what is there stays."""
        there = namespace.get(name)
        if type(there) is Outer or (
            there is None and (name not in namespace or name in OF_EMPTY_MODULE)
        ):
            if self.settled:
                self.used = True
                self._undo.append(functools.partial(namespace.pop, name, None))
            namespace[name] = value

    def reduce_by(self, key: str | tuple[str, str], data: bytes) -> None:
        """Have objects of a class pickle as the program has told `copyreg`, once the class is here.

        Parameters
        ----------
        key : str or tuple of str
            The tag of the class, or its module and name.
        data : bytes
            The reducer, as a pickle.
        """
        self._reducers[key] = data
        if isinstance(key, tuple):
            waiting_reducers[:] = [True]
        elif isinstance(there := self._objects.get(key), type):
            self._register(key, there)

    def settle(self) -> None:
        """The function is here: what comes from now on belongs to one call."""
        self.settled = True
        self.look_for_reduced()

    def look_for_reduced(self) -> None:
        """Use the reducers of classes whose modules have been imported meanwhile."""
        if not self._reducers:
            return
        for key in [one for one in self._reducers if isinstance(one, tuple)]:
            cls = found(*key)
            if isinstance(cls, type):
                self._register(key, cls)

    def _register(self, key: str | tuple[str, str], cls: type) -> None:
        change = Reducer(cls, pickle.loads(self._reducers.pop(key)))
        self._changes["copyreg", str(key)] = change
        if self.entered:
            change.enter()

    def expect(self, data: bytes, large: Iterable[State]) -> None:
        """Take what came with a pickle: files of modules, and what they held in the program."""
        if data in self._expected:
            return
        self.used |= self.settled
        assert self._reading is not None
        manifest, states = self._reading.read(data)
        new = {source.name: source for source in manifest}
        if any(self.manifest.get(name) != source for name, source in new.items()):
            self.manifest.update(new)
            chosen = importing.generation_for(self.manifest)
            if chosen is not self.generation:
                self.generation = chosen
                if self.entered:
                    importing.enter(chosen, self._imported)
        if self._guests is not None:
            for name in new:
                if name not in self._guests and name in sys.modules:
                    self._guests[name] = Kept(sys.modules[name])
        for state in (*states, *large):
            self._states.setdefault(state.module, []).append(state)
            self._told.append(state)
            if self.settled:
                self._undo.append(functools.partial(self._withdraw, state))
        if self.entered:
            self._look_at_modules()
            self._put_own(new)
        if not self.settled and not large:
            self._expected.add(data)

    def _put_own(self, names: Iterable[str]) -> None:
        """As a guest, have modules of the program hold what they have from their own files.

        The program may have replaced a function since the call was spawned, or added an attribute
        to a class. If it had done so before, there is a state that says so.
        """
        for name in [one for one in names if self._guests is not None and one in self._guests]:
            module = sys.modules.get(name)
            states = (one for one in self._told if one.module == name)
            told = {state.path for state in states if state.content != AS_IMPORTED}
            for path, value in modules.own_of(module):
                steps = path.split(".")
                if any(".".join(steps[:end]) in told for end in range(1, len(steps) + 1)):
                    continue
                owner = found(name, ".".join(steps[:-1])) if steps[1:] else module
                if hasattr(owner, "__dict__"):
                    self._put_one(name, path, Change(owner, steps[-1], value))
                if isinstance(value, type):
                    for added in modules.added_to(module, path, [*vars(value)]):
                        if f"{path}.{added}" not in told:
                            self._put_one(name, f"{path}.{added}", Change(value, added, MISSING))

    def _put_one(self, name: str, path: str, change: Change) -> None:
        if change.now() is not change.value:
            self.hold(name, path, change)
            if self.settled:
                self._undo.append(functools.partial(self._take_back, (name, path)))

    # -- what modules held ---------------------------------------------------------------------

    def _withdraw(self, state: State) -> None:
        for states in (self._states.get(state.module, []), self._told):
            if state in states:
                states.remove(state)

    def _look_at_modules(self) -> None:
        for name in list(self._states):
            module = sys.modules.get(name)
            if module is not None and not modules.is_being_imported(module):
                self._imported(name)

    def _imported(self, name: str) -> None:
        """A module was imported: have it hold what it held in the program."""
        states = self._states.pop(name, [])
        self._pending += states
        self._nested += 1
        try:
            with modules.only_looking():
                for state in states:
                    if state in self._pending:
                        self._pending.remove(state)
                        self._settle(state)
        finally:
            self._nested -= 1
        if not self._nested:
            # To read one state may import a module that changes what another one has set.
            settled, self._settled_now = self._settled_now, []
            for change in settled:
                if change.now() is not change.value:
                    change.set(change.value)

    def ready(self, module: str, path: str) -> None:
        """Somebody reads what a module holds under a name: first it has to be what it was."""
        loaded = sys.modules.get(module)
        if loaded is None or modules.is_being_imported(loaded):
            return
        for states in (self._pending, self._states.get(module, [])):
            for state in [one for one in states if (one.module, one.path) == (module, path)]:
                states.remove(state)
                with modules.only_looking():
                    self._settle(state)

    def _settle(self, state: State) -> None:
        """Compare what is there with what the program had, and set what differs."""
        if DEFAULT in state.path:
            self._settle_default(state)
            return
        owner, name = owner_of(state)
        if owner is None:
            return
        key = state.module, state.path
        there = self._changes.get(key)
        now = value_in(owner, name)
        base = now if there is None else there.base
        content = None  # of an object that stays
        if state.same in self._one:
            value = self._one[state.same]  # another name of it has been looked at
        elif self._guests is not None and state.content == AS_IMPORTED:
            value = dict(modules.own_of(sys.modules.get(state.module))).get(state.path, base)
        elif state.lost:
            kind = type(base)
            if f"{kind.__module__}.{kind.__qualname__}" != state.lost.partition(":")[0]:
                self.lost[f"{state.module}.{state.path}"] = state.lost
            value = base
            assert self._reading is not None
            if state.outline is not None and self._reading.outline(base) != state.outline:
                value = refusing(f"{state.module}.{state.path}", state.lost)
        else:
            of_function = name in OF_FUNCTION and type(owner) is FunctionType
            other = self._compared(state, without_objects(base) if of_function else base)
            value = base if other is None else other[0]
            if of_function and other is not None:
                value = with_objects(value, base)
                if there is not None and not self.settled:  # an object among them was set before
                    there.value = with_objects(other[0], there.now())
                    there.set(there.value)
            if value is base and there is None:
                value = with_own_cache(base)
            together = None
            if state.group is not None:
                # A call in the program itself gets copies of all, or of none.
                differs = self._guests is not None and self._is_copied(state.group[0])
                if other is not None and (there is None or state.content != there.content):
                    differs = True
                together = self._in_group(*state.group, state, differs)
                if together is not None:
                    value = together[0]
            if together is None and other is None and self._guests is not None and state.content:
                value = for_a_guest(base, state.content)
            if state.same is not None:
                # Names of one object in the program are names of one object here.
                stays = together is None and there is None and value is not base
                if stays and self._stays(state, base, value):
                    content, value = (value,), base
                self._one[state.same] = value
                if self.settled:
                    self._undo.append(functools.partial(self._one.pop, state.same, None))
                for one in self._told if value is not base else ():
                    if one.same == state.same and DEFAULT in one.path:
                        self._set_again(one, value)
        if there is None:
            # Also what is as the import made it: what calls bind the name to is this world's.
            change = Change(owner, name, value)
            if change.now() is not now and key not in self._changes:
                change.set(now)  # to read it has bound the name, as the class of a singleton does
            if content is not None:
                change = Content(owner, name, value, *content)
            self._changes[key] = change
            try:
                change.enter()
            except TypeError as error:  # bases of another layout
                del self._changes[key]
                self.lost[f"{state.module}.{state.path}"] = f"{type(error).__name__}: {error}"
                return
            if self._nested:
                self._settled_now.append(change)
            if self.settled:
                self._undo.append(functools.partial(self._take_back, key))
        elif self.settled and there.now() is not value and state.content != there.content:
            # The call's own arguments say otherwise than its function: for this call only.
            before = there.now()
            there.set(value)
            self._undo.append(functools.partial(there.set, before))
        self._changes[key].content = self._changes[key].content or state.content

    def _settle_default(self, state: State) -> None:
        """The default of a parameter that has no name besides; others tell what is one object."""
        if state.same is not None or state.group is not None:
            if state.same in self._one and bound(state) is not self._one[state.same]:
                self._set_again(state, self._one[state.same])
            return
        if state.content is None:
            return
        other = self._compared(state, bound(state))
        if other is not None:
            self._set_again(state, other[0])

    def _compared(self, state: State, now: object) -> tuple[object] | None:
        """What the program had, if it is not what is there; None: it is, or nobody can say."""
        assert self._reading is not None
        # The program goes on changing what it holds; in a worker that is what an import made.
        generation = self.generation if self._guests is None else None
        held = {} if generation is None else generation.held
        try:
            return self._reading.compare(state, now, held)
        except Exception as error:
            self.lost[f"{state.module}.{state.path}"] = f"{type(error).__name__}: {error}"
            return None

    def _in_group(
        self, group: object, place: int, state: State, differs: bool
    ) -> tuple[object] | None:
        """The value of a name that holds objects with others; None: it stays what it is.

        As soon as one of a group differs, all of them are what the program had.
        """
        assert isinstance(group, Group)
        values = self._groups.get(group)
        if values is None and differs:
            self._groups[group] = []
            values = self._groups[group] = pickle.loads(group.data)
            if self.settled:
                self._undo.append(functools.partial(self._groups.pop, group, None))
            for one, at in self._members(group):  # also those looked at while it was read
                if one is not state:
                    self._set_again(one, values[at])
        return (values[place],) if values else None

    def _members(self, group: object) -> list[tuple[State, int]]:
        """The states of a group, and the place of each."""
        told = ((one, one.group) for one in self._told)
        return [(one, part[1]) for one, part in told if part is not None and part[0] is group]

    def _is_copied(self, group: object) -> bool:
        """Whether a call in the program itself gets a copy of something in a group."""
        members = self._members(group)
        return not all(stays_with_a_guest(bound(one), one.content) for one, _ in members)

    def _set_again(self, state: State, value: object) -> None:
        """Bind a name that has been looked at, or the default of a parameter, to another object."""
        path, is_default, place = state.path.rpartition(DEFAULT)
        name = "__defaults__" if place.isdigit() else "__kwdefaults__"
        key = state.module, f"{path}.{name}" if is_default else state.path
        change = self._changes.get(key)
        if is_default:
            func = found(state.module, path)
            if change is None and type(func) is FunctionType and getattr(func, name):
                change = self._changes[key] = Change(func, name, getattr(func, name))
                change.enter()
                if self.settled:
                    self._undo.append(functools.partial(self._take_back, key))
            if change is not None:
                value = with_default(change.now(), place, value)
        if change is None:
            return
        if self.settled:
            self._undo.append(functools.partial(change.set, change.now()))
        change.set(value)
        change.value = value
        if state.same in self._one and not is_default:
            self._one[state.same] = value

    def _stays(self, state: State, base: object, value: object) -> bool:
        """Whether an object gets the content of another one, instead of giving way to it.

        It does if it has several names, as in the program: nobody binds them all anew.
        """
        kind = type(base)
        if self._guests is not None or kind is not type(value):
            return False
        if kind not in (list, dict, set) and not has_plain_attributes(base):
            return False
        alike = 0
        for one in self._told:
            if one is not state and bound(one) is base:
                if one.same != state.same:
                    return False  # there it was another object: some names were bound anew
                alike += 1
        return alike > 0

    def _take_back(self, key: tuple[str, str]) -> None:
        change = self._changes.pop(key, None)
        if change is not None:
            change.leave()

    # -- entering and leaving ------------------------------------------------------------------

    def enter(self, *, as_guest: bool = False, unseen: bool = False) -> None:
        """From here on this process has the program's code as it was.

        Parameters
        ----------
        as_guest : bool, default False
            Whether the process is the program itself: what a call does to its modules is undone.
        unseen : bool, default False
            Whether modules that travel by value stay out of ``sys.modules``.
        """
        self.module("__main__", {})
        self.entered, self._unseen = True, unseen
        if as_guest:
            self._guests = {}
        importing.enter(self.generation, self._imported)
        for name, module in (*self.modules.items(), *self._stands.items()):
            self._show(name, module)
        for change in self._changes.values():
            change.enter()
        if self._states:
            self._look_at_modules()

    def leave(self) -> None:
        """Put aside what `enter` put in place."""
        self.end_call()
        for change in reversed(self._changes.values()):
            change.leave()
        for kept in (self._guests or {}).values():
            kept.restore()
        self._guests = None
        for name, before in self._before.items():
            self._put_back(name, before)
        self._before.clear()
        self.entered = False

    def is_empty(self) -> bool:
        """Whether nothing of the program's own code has come."""
        came = self._objects or self.manifest or self._states or self._reducers or self._changes
        came = came or self._stands
        return not (came or len(self.modules) > 1) and (
            "__main__" not in self.modules
            or self.modules["__main__"].__dict__.keys() <= OF_EMPTY_MODULE
        )

    def needs_the_process(self) -> bool:
        """Whether threads that are in other worlds would see what `enter` puts in place.

        `modules` are left out: who runs several worlds at a time shows each thread its own.
        """
        changes = self._told or self._changes or self._states or self._stands
        return bool(changes) or self.generation not in (None, importing.current())

    def clear(self) -> None:
        """Let go of all that it holds and its modules hold, in the order in which it came.

        As Python does it: for the end of a process, after the last call.
        """
        for module in self.modules.values():
            module.__dict__.clear()
        for held in (
            self._changes,
            self._states,
            self._objects,
            self._passing,
            self._before,
            self._stands,
        ):
            held.clear()
        self._undo.clear()

    def end_call(self) -> None:
        """What came with the arguments of one call does not stay."""
        self.used = False
        self._passing.clear()
        while self._undo:
            self._undo.pop()()
