"""The calls of `mars.remote.map`: one record for all items, and calls for single items.

An item becomes a call of its own when the program indexes it, or when it holds an object. All other
items are run in blocks, whose size the scheduler decides. If no item can change, the items are kept
as they are and pickled with their block. Otherwise each item is pickled by itself when `map` is
called. `mars.calls.spawn` makes a `MapCall`; `mars.calls.objects` shows it to the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from mars.attempt import codec
from mars.attempt.failure import decode_failure
from mars.attempt.rows import Rows, is_fixed
from mars.calls.options import Options
from mars.engine import SessionRealm
from mars.engines.outcome import (
    Items,
    block_values,
    cancelled,
    failure_of,
    item_attempts,
    item_log,
    no_value,
)
from mars.errors import NotExecuted
from mars.task import Call, Ended, Function, Place, Realm, Stage, Task

TYPE_CHECKING = False  # known to type checkers; states are loaded when somebody looks
if TYPE_CHECKING:
    from mars.observe.states import State
    from mars.task import Buffer, Output


class ItemCall(Call):
    """One item of a map as a call of its own."""

    __slots__ = ("index", "map")

    adoptable = True

    def __init__(self, whole: MapCall, index: int) -> None:
        payload, buffers, found = whole.encoded(index)
        inputs = tuple([(output.call, output.index) for output in found])
        super().__init__(whole.function, payload, tuple(buffers), inputs, whole.options, None)
        self.map = whole
        self.index = index
        whole.handles += 1  # its value may be in one of the map's blocks

    @property
    def whole(self) -> MapCall:  # type: ignore[override]
        """The map."""
        return self.map

    def own_place(self, place: int) -> Place:
        if self.map.place is None:
            self.map.place = place
        assert isinstance(self.map.place, int), "a map is no item of another one"
        return (self.map.place, self.index)

    def adopt(self, realm: Realm) -> Task | None:
        """The part of the item in a block that has run; None if no block with it has run."""
        whole = self.map.task_in(realm)
        if whole is None or whole.parts is None:
            return None
        found = self.map.where(whole.parts).find(self.index)
        if found is None:
            return None
        offset, block = found
        return _ItemTask(self, realm, whole, block, offset)


class _ItemTask(Task):
    """One item of a block, shown as a task. The scheduler does not know it."""

    __slots__ = ("_offset",)

    @property
    def reused(self) -> bool:  # type: ignore[override]
        """Whether a checkpoint had its block."""
        return self.source is not None and self.source.reused

    @property
    def broken(self) -> bool:  # type: ignore[override]
        """Whether the item failed."""
        block = self.source
        assert block is not None
        return block.stage is not Stage.DONE or self._offset in block.result[1]

    @property
    def place_in_block(self) -> tuple[int, Task]:
        """Which item of which block it is."""
        assert self.source is not None
        return self._offset, self.source

    def __init__(self, call: Call, realm: Realm, whole: Task, block: Task, offset: int) -> None:
        super().__init__(call, realm)
        self.asked = True
        self.attempt = block.attempt
        self.stage = Stage.DONE
        self.parts = whole.parts
        self.timing, self.sent_at = block.timing, block.sent_at
        self.source = block
        self._offset = offset
        log = item_log(block, offset)
        self.logs = () if log is None else (log,)

    def failure(self) -> BaseException:
        """The error of the item, which failed."""
        assert self.source is not None
        if self.source.stage is not Stage.DONE:
            return failure_of(self.source)
        return decode_failure(self.source.result[1][self._offset])

    def attempts(self) -> tuple[Ended, ...]:
        assert self.source is not None
        return item_attempts(self.source, self._offset)


class MapCall(Call):
    """All items of a map.

    Attributes
    ----------
    count : int
        Number of items.
    spread : bool
        Whether an item is a tuple of arguments. If not, it is one argument.
    columns : sequence of sequences
        The first arguments of all items, the second ones, and so on. Empty if `taken` has them.
    taken : Rows or None
        The arguments of all items as they were when `map` was called. None: they cannot change.
    own : set of int
        The items that have to be calls of their own, because they hold objects.
    """

    __slots__ = ("_index", "columns", "count", "made", "own", "spread", "taken")

    may_hold_errors = True

    def __init__(
        self,
        function: Function,
        options: Options,
        columns: Sequence[Sequence[object]],
        taken: Rows | None = None,
    ) -> None:
        super().__init__(function, b"", (), (), options, None)
        self.columns = columns
        self.taken = taken
        self.count = min(map(len, columns)) if taken is None else len(taken.rows)
        self.spread = len(columns) > 1
        self._index: tuple[Sequence[Task] | None, int, Task | None, Items | None] = (
            None,
            0,
            None,
            None,
        )  # as `where` made it last
        self.made: dict[int, ItemCall] = {}  # the items that are calls of their own
        self.own: set[int] = set()

    @classmethod
    def over(
        cls,
        function: Function,
        options: Options,
        iterables: Sequence[Iterable[object]],
        before: Sequence[object] = (),
    ) -> MapCall:
        """The calls of ``map(function, *iterables)``; the shortest iterable decides their number.

        ``before`` are further arguments. They come first in every call.
        """
        known = [len(one) for one in iterables if isinstance(one, (range, list, tuple))]
        limit = min(known, default=None)
        columns: list[Sequence[object]] = [
            one if isinstance(one, (range, tuple)) else list(islice(one, limit))
            for one in iterables
        ]
        if before:
            count = min(map(len, columns))
            columns = [*([one] * count for one in before), *columns]
        return cls(function, options, columns)

    def arguments(self, index: int) -> tuple[object, ...]:
        """Arguments of one item."""
        if self.taken is not None:
            return self.taken.arguments(index)
        return tuple([column[index] for column in self.columns])

    def loaded(self, index: int) -> tuple[object, ...]:
        """Arguments of one item, as another process would get them."""
        return self.arguments(index) if self.taken is None else self.taken.loaded(index)

    def encoded(self, index: int) -> tuple[bytes, Sequence[Buffer], Sequence[Output]]:
        """The arguments of one item: a pickle, its large buffers, and the objects in it."""
        if self.taken is None:
            return codec.encode_arguments(self.arguments(index), {})
        return *self.taken.alone(index), ()

    def block(self, indices: Sequence[int]) -> tuple[bytes, Sequence[Buffer]]:
        """The arguments of a block: a pickle and its large buffers.

        If the items are `taken`, the pickle is one of `mars.attempt.rows`. Otherwise the only
        argument is a list of values; it is a list of tuples if `spread` is set.
        """
        if self.taken is not None:
            return self.taken.block(indices)
        if isinstance(indices, range):
            slices = [column[indices.start : indices.stop] for column in self.columns]
        else:
            slices = [[column[index] for index in indices] for column in self.columns]
        items = list(zip(*slices, strict=True)) if self.spread else slices[0]
        data, buffers, _ = codec.encode_arguments((items,), {})
        return data, buffers

    def take(self, explain: Callable[[tuple[object, ...]], Exception]) -> None:
        """Keep the items as they are now, and find those that hold objects.

        Raises
        ------
        EncodeError
            An item does not pickle.
        """
        if all(isinstance(column, range) or is_fixed(column) for column in self.columns):
            return
        taken = Rows()
        try:
            taken.take(lambda: zip(*self.columns, strict=False))
        except Exception:
            raise explain(self.arguments(min(len(taken.rows), self.count - 1))) from None
        for index in taken.with_objects:
            self.item(index)  # it needs the arguments, which go away below
        self.own = set(taken.with_objects)
        self.columns, self.taken = (), taken

    def item(self, index: int) -> ItemCall:
        """An item as a call of its own."""
        call = self.made.get(index)
        if call is None:
            call = self.made[index] = ItemCall(self, index)
        return call

    def dropped(self, item: Call) -> None:
        # Else the map would run it by itself, and nobody would hold its value.
        index: int = item.index  # type: ignore[attr-defined]
        if index not in self.own:
            self.made.pop(index, None)

    def where(self, parts: Sequence[Task]) -> Items:
        """Which block has which item; made anew only when there are others, as many may ask."""
        known, count, last, index = self._index
        if parts is not known or len(parts) != count or (count and parts[-1] is not last):
            now = list(parts)  # blocks may end meanwhile
            index = Items(now)
            self._index = parts, len(now), now[-1] if now else None, index
        assert index is not None
        return index

    def _have(self, realm: Realm) -> Items:
        task = self.task_in(realm)
        return Items(task.parts if task is not None and task.parts is not None else ())

    def pieces(self, realm: Realm) -> list[Call]:
        """The calls to run so that all items are done: the map's blocks, and calls of its own."""
        calls: list[Call] = []
        have = self._have(realm)
        for index, call in list(self.made.items()):
            # An item may have run as an input of another call. Now the program asks for it, too.
            if call.task_in(realm) is not None or not _succeeded(have.find(index)):
                calls.append(call)
        if len(self.made) < self.count:
            calls.append(self)
        return calls

    def logged(self, realm: Realm) -> list[Call]:
        """Whose logs are those of the items: the map, and the items that ran by themselves."""
        have = self._have(realm)
        alone = [
            call
            for index, call in list(self.made.items())
            if call.task_in(realm) is not None and have.find(index) is None
        ]
        return [self, *alone]

    def begin(self, task: Task) -> None:
        """Say which items the blocks of ``task`` have to run."""
        old = self.task_in(task.realm)
        task.parts = [] if old is None or old.parts is None else list(old.parts)
        have = Items(task.parts)
        if not self.made and not have.count:
            task.items = range(self.count)
        else:
            task.items = [
                index
                for index in range(self.count)
                if index not in self.made and not _succeeded(have.find(index))
            ]
        task.size = len(task.items)

    def values(self, realm: SessionRealm) -> list[object]:
        """The values of all items.

        Raises
        ------
        NotExecuted
            An item was not executed.
        BaseException
            An item failed: its own error.
        """
        values, errors, have = self._collect(realm)
        if errors:  # the first one, also if items before it were not executed
            raise errors[min(errors)]
        missing = have.find(0)
        if missing >= 0:
            done = self.count - have.count(0)
            raise NotExecuted(
                f"item {missing} of {self.name}",
                f"has no value, and {done} of {self.count} items have one. Call execute() on the "
                f"map; it runs those that are not done, and waits for those that run",
                self.states(realm)[missing].word,
            )
        return values

    def errors(self, realm: SessionRealm) -> list[BaseException | None]:
        """The error of each item; None for an item that has a value."""
        _, errors, have = self._collect(realm)
        found: list[BaseException | None] = [errors.get(index) for index in range(self.count)]
        if not all(have):
            for index, state in enumerate(self.states(realm)):
                if not have[index] and found[index] is None:
                    found[index] = no_value(f"item {index} of {self.name}", state)
        return found

    def states(self, realm: SessionRealm) -> list[State]:
        """The state of each item."""
        from mars.observe.states import DONE, FAILED, REUSED, State, state_of

        task = self.task_in(realm)
        found = [self._state_of_rest(task)] * self.count
        if task is not None:
            if not task.finished:
                for block in realm.engine.blocks_of(task):
                    of_block = state_of(block)
                    for index in block.items:
                        found[index] = of_block
            for block in list(task.parts or ()):
                done = State(REUSED if block.reused else DONE)
                failed = block.result[1] if block.stage is Stage.DONE else range(len(block.items))
                for offset, index in enumerate(block.items):
                    if 0 <= index < self.count:
                        found[index] = State(FAILED) if offset in failed else done
        for index, call in list(self.made.items()):
            own = call.task_in(realm)
            if own is not None:
                found[index] = state_of(own)
        return found

    def seen(self, realm: SessionRealm, index: int) -> Task | None:
        """What can be seen of an item: its own task, its part of a block, or a block that runs."""
        own = self.made.get(index)
        task = None if own is None else own.task_in(realm)
        whole = self.task_in(realm)
        if task is not None or whole is None:
            return task
        found = self.where(whole.parts or ()).find(index)
        if found is not None:
            offset, block = found
            return _ItemTask(self, realm, whole, block, offset)
        under_way = () if whole.finished else realm.engine.blocks_of(whole)
        return next((block for block in under_way if index in block.items), None)

    def state_of_item(self, realm: Any, item: Call) -> State:
        """The state of an item that no block which has ended has."""
        from mars.observe.states import state_of

        task = self.task_in(realm)
        if task is not None and not task.finished:
            for block in realm.engine.blocks_of(task):
                if item.index in block.items:  # type: ignore[attr-defined]
                    return state_of(block)
        return self._state_of_rest(task)

    def _state_of_rest(self, task: Task | None) -> State:
        """The state of the items that are in no block."""
        from mars.observe.states import NOT_STARTED, QUEUED, State, state_of

        if task is None or (task.finished and task.stage is not Stage.CANCELLED):
            return State(NOT_STARTED)
        begun = task.blocks or task.stage is Stage.ASSIGNED
        wanted = begun and any(run.live for run in task.runs)
        return State(QUEUED) if wanted else state_of(task)

    def _collect(
        self, realm: SessionRealm
    ) -> tuple[list[object], dict[int, BaseException], bytearray]:
        realm.check_open()
        values: list[object] = [None] * self.count
        errors: dict[int, BaseException] = {}
        have = bytearray(self.count)
        task = self.task_in(realm)
        decode = realm.engine.decode
        for block in list(task.parts) if task is not None and task.parts else ():
            results, failed = block_values(block, decode)
            if isinstance(block.items, range):
                start, stop = block.items.start, block.items.stop
                values[start:stop] = results
                have[start:stop] = b"\1" * len(results)
                for offset in range(len(results)) if errors else ():
                    errors.pop(start + offset, None)
            else:
                for offset, index in enumerate(block.items):
                    values[index] = results[offset]
                    have[index] = 1
                    errors.pop(index, None)
            for offset, error in failed.items():
                errors[block.items[offset]] = error
        for index, call in list(self.made.items()):
            own = call.task_in(realm)
            if own is None:
                continue
            if own.stage is Stage.DONE:
                values[index] = realm.engine.value(own, 0)
                have[index] = 1
                errors.pop(index, None)
            elif (own.stage is Stage.FAILED or own.cancelled) and not have[index]:
                errors[index] = failure_of(own)
        if task is not None and task.cancelled:
            for index in range(self.count):
                if not have[index] and index not in errors and index not in self.made:
                    errors[index] = cancelled(self)
        return values, errors, have


def _succeeded(found: tuple[int, Task] | None) -> bool:
    if found is None:
        return False
    offset, block = found
    return block.stage is Stage.DONE and offset not in block.result[1]


__all__ = ["ItemCall", "MapCall"]
