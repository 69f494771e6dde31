"""Results that a checkpoint has, so that their calls need not run.

A call whose result is here gets a `KeptTask`, which is done. The result is read when somebody needs
it. Made and called by `mars.checkpoint.checkpoint`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

from mars.calls.maps import ItemCall, MapCall
from mars.checkpoint import journal
from mars.checkpoint.digests import plain_arguments
from mars.checkpoint.identifier import UNKNOWN, Identifier
from mars.checkpoint.identity import Identity, MapIdentity
from mars.checkpoint.index import Index
from mars.checkpoint.journal import Block, Kept, Raw
from mars.checkpoint.kept import KeptTask
from mars.checkpoint.reading import Damaged, body_of, is_whole, result_of, values_of
from mars.checkpoint.stale import Stale
from mars.engine import Engine
from mars.settings import CHECKPOINT_CHECK_BYTES
from mars.task import Call, Stage, Task

if TYPE_CHECKING:
    from mars.task import Realm


class _Reused(Task):
    """A task whose result, or the results of its parts, were in the checkpoint."""

    __slots__ = ()
    reused = True


class Recall:
    """Finds results of calls in a journal.

    Parameters
    ----------
    where : str
        Folder or URL, for messages.
    realm : object
        What the tasks belong to: the session's realm.
    engine : Engine
        Takes the results that are read.
    index : Index
        Of the journal.
    identifier : Identifier
        Knows what each call is.
    tell : callable
        Takes lines for the user.
    """

    def __init__(
        self,
        where: str,
        realm: Realm,
        engine: Engine,
        index: Index,
        identifier: Identifier,
        tell: Callable[[str], object],
    ) -> None:
        self._where, self.realm, self._engine, self.index = where, realm, engine, index
        self._of = identifier.of
        self._tell = tell
        self.stale = Stale(where, tell)
        self.lock = threading.RLock()  # held while a result is read; reading may ask for another
        self.offset_s = time.monotonic() - time.time()
        # The block that was read last, and its values.
        self._last: tuple[int, Sequence[object]] = (-1, ())

    def recall(self, call: Call) -> bool:
        """Whether the result of a call without a task is here. If so, the call gets a task."""
        of_call = self._of(call)
        if isinstance(of_call, MapIdentity):
            return self._recall_map(call, of_call)  # type: ignore[arg-type]
        if of_call is None or of_call is UNKNOWN:
            return False
        found = self.index.find(of_call.key)
        if found is None or found[0].kind != journal.CALL:
            if found is not None and isinstance(call, ItemCall):
                return self._recall_item(call, *found)
            return False
        kept = journal.kept(found[0])
        if not self._sound(kept):
            return False
        self._settle(call, KeptTask(call, self, kept))
        payload = call.payload
        if call.options.depends is None and (b"." in payload or b"/" in payload):
            self.stale.look(call.name, plain_arguments(call), kept.started + sum(kept.spans))
        return True

    def _settle(self, call: Call, task: Task) -> None:
        call.attach(task)
        call.satisfy()

    def _sound(self, found: Kept | Block) -> bool:
        """Whether a result can be read. If it is a file, only its size is looked at now."""
        if not found.flags & journal.AS_FILE and found.raw.body_size <= CHECKPOINT_CHECK_BYTES:
            return True  # its checksum fitted when the journal was opened
        folder = self.index.folder
        try:
            if isinstance(found, Block):  # many objects will need it
                result_of(folder, found, body_of(folder, found.raw))
                return True
            body = body_of(folder, found.raw)
        except Damaged:
            return False
        return is_whole(folder, found, body)

    def _recall_map(self, call: MapCall, of_map: MapIdentity) -> bool:
        """Take the items that are here as blocks of the map. The others are missing."""
        blocks: dict[int, tuple[Block, dict[int, int]]] = {}
        parts: list[Task] = []
        count = 0
        for index in range(call.count):
            if index in call.made or index in call.own:
                continue
            found = self.index.find(of_map.key(index))
            if found is None:
                continue
            raw, offset = found
            if offset < 0:  # it was a call of its own
                kept = journal.kept(raw)
                if raw.kind == journal.CALL and self._sound(kept):
                    single = KeptTask(call, self, kept)
                    single.items = range(index, index + 1)
                    parts.append(single)
                    count += 1
                continue
            there = blocks.get(raw.position)
            if there is None:
                there = blocks[raw.position] = (journal.block(raw), {})
            there[1][offset] = index
        for block, offsets in blocks.values():
            if self._sound(block):
                parts.append(self._block(call, block, offsets))
                count += len(offsets)
                if call.options.depends is None and call.taken is None:
                    made_at = block.started + sum(block.spans)
                    for index in offsets.values():
                        self.stale.look(call.name, call.arguments(index), made_at)
        own = len(call.made) + len(call.own - call.made.keys())
        task = _Reused(call, self.realm) if parts else Task(call, self.realm)
        task.parts = parts
        task.size = call.count
        done = count + own == call.count and not own
        # If the map is not done, its next task begins with these parts.
        task.stage = Stage.DONE if done else Stage.ABANDONED
        if parts or done:
            call.attach(task)
        return done

    def _block(self, call: Call, block: Block, offsets: dict[int, int]) -> Task:
        task = KeptTask(call, self, block)
        # Items of the block that are not in this map get numbers that nobody asks for.
        task.items = [offsets.get(offset, -1 - offset) for offset in range(block.size)]
        if task.items == list(range(task.items[0], task.items[0] + block.size)):
            task.items = range(task.items[0], task.items[0] + block.size)
        return task

    def _recall_item(self, call: ItemCall, raw: Raw, offset: int) -> bool:
        if self._last[0] != raw.position:
            block = journal.block(raw)
            if not self._sound(block):
                return False
            try:
                values = values_of(self.index.folder, block)[0]
                self._last = raw.position, cast("Sequence[object]", values)
            except Damaged:
                return False
        task = _Reused(call, self.realm)
        task.stage = Stage.DONE
        self._engine.install(task, self._last[1][offset])
        self._settle(call, task)
        return True

    def install(self, task: KeptTask) -> None:
        """Read a result and hand it to the engine.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        found = task.found
        values = values_of(self.index.folder, found)
        if task.items is not None:  # some of a map
            items = values[0] if isinstance(found, Block) else values
            self._engine.install(task, items)
            task.wrap(found.marks or None if isinstance(found, Block) else (0, found.sizes[1]))
            whole = task.call.task_in(self.realm)
            if whole is not None and task.stored:
                whole.stored = True
        else:
            self._engine.install(task, values[0] if task.call.n_output is None else values)

    def forget(self, task: KeptTask) -> None:
        """Have a call run again: its result turned out to be damaged."""
        of_call = self._of(task.call)
        if isinstance(of_call, Identity):
            self.index.calls.pop(of_call.key, None)
        task.call.leave(task)
        self._tell(
            f"mars: the result of {task.call.name} in the checkpoint {self._where} is damaged; the "
            f"call runs again"
        )

    def load_inputs(self, missing: Iterable[Call]) -> bool:
        """Read what calls are about to need. False: something is damaged, so look again."""
        sound = True
        for call in missing:
            for source, _ in call.inputs:
                task = source.task_in(self.realm) if source.task is not None else None
                if isinstance(task, KeptTask):
                    try:
                        task.load()
                    except Damaged:
                        self.forget(task)
                        sound = False
        return sound
