"""What a session keeps, and what it finds there from earlier programs.

Before a run, `identifier` says what each call is, and `recall` finds those that are done. During a
run the engine tells what has landed, and the journal's thread writes it down. Called by sessions.
It knows engines by their contract only.

::

    identify ─ identity of each call ─► recall ─ index ─► KeptTask, or the call is missing
    landed   ─ engine's thread ─► Writer ─ its thread ─► Records ─► Folder
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mars.checkpoint import journal
from mars.checkpoint.identifier import UNKNOWN, Identifier
from mars.checkpoint.identity import Identity, MapIdentity
from mars.checkpoint.journal import Kept
from mars.checkpoint.kept import KeptTask
from mars.checkpoint.opening import close_journal, open_journal
from mars.checkpoint.recall import Recall
from mars.checkpoint.records import Records
from mars.checkpoint.writer import Entry
from mars.engine import Engine, Run
from mars.settings import CHECKPOINT_LARGE_COST
from mars.task import Call, Stage, Task

if TYPE_CHECKING:
    from mars.checkpoint.folder import Data, Facts
    from mars.task import Realm


class Checkpoint:
    """What one session keeps.

    Attributes
    ----------
    where : str
        Folder or URL.
    reused, executed : int
        How many calls of this session were found so far, and how many were run.
    saved_s : float
        How many seconds the found ones took when they ran.
    """

    def __init__(
        self, where: str, realm: Realm, engine: Engine, tell: Callable[[str], object]
    ) -> None:
        self.where = where
        self.reused = self.executed = 0
        self.saved_s = 0.0
        self._realm = realm
        self._tell = tell
        self._journal = open_journal(where, tell)
        self._index = self._journal.index
        self._writer = self._journal.writer
        identifier = Identifier(tell)
        found = Recall(where, realm, engine, self._index, identifier, tell)
        self._records = Records(engine, self._index.folder, self._writer)
        # Asked for each call: a method of ours in between would cost time.
        self._of = identifier.of
        self.recall = found.recall
        self.identify = identifier.identify
        self.load_inputs = found.load_inputs
        self._stale = found.stale
        self._lock = threading.RLock()
        self._runs = 0  # how many are not over
        self._began = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<Checkpoint {self.where}: {self.executed} run, {self.reused} found>"

    def count(self, needed: Sequence[Call], missing: Sequence[Call], run: Run) -> None:
        """Note what a run finds here, and write that down."""
        self._stale.tell()
        if not self._began:
            self._began = True
            self._add_record(journal.SESSION, _about_us)
        absent = set(missing)
        used: dict[int, None] = {}
        found = total = 0
        saved_s = 0.0
        for call in needed:
            of_call = self._of(call)
            if isinstance(of_call, MapIdentity):
                total += call.count  # type: ignore[attr-defined]
                task = call.task_in(self._realm)
                for part in (task.parts or ()) if task is not None else ():
                    if isinstance(part, KeptTask):
                        used[part.found.raw.position] = None
                        there = sum(index >= 0 for index in part.items)
                        found += there
                        saved_s += part.found.spans[2] * there / len(part.items)
                continue
            total += 1
            if call in absent or not isinstance(of_call, Identity) or of_call.counted:
                continue
            of_call.counted = True
            task = call.task_in(self._realm) if call.task is not None else None
            if isinstance(task, KeptTask) and isinstance(task.found, Kept):
                found += 1
                used[task.found.raw.position] = None
                saved_s += task.found.spans[2]
                continue
            place = self._index.find(of_call.key)  # an input of a call that is there
            if place is not None:
                found += 1
                used[place[0].position] = None
                if place[0].kind == journal.CALL:
                    saved_s += journal.kept(place[0]).seconds
        run.reused, run.saved_s = found, saved_s
        self.reused += found
        self.saved_s += saved_s
        facts = {
            "at": time.time(), "calls": total, "reused": found, "saved_s": saved_s,
            "entropy": run.entropy, "used": journal.packed_positions(used),
        }  # fmt: skip
        self._add_record(journal.TALLY, lambda: facts)

    def _add_record(self, kind: int, facts: Callable[[], Facts]) -> None:
        self._writer.add(
            Entry(lambda: [journal.record(kind, b"", [journal.packed(facts())])], (), _nothing, 256)
        )

    # -- during a run -------------------------------------------------------------------------

    def landed(self, task: Task) -> None:
        """Keep a call, or some items of a map, that are done. Called in the engine's thread.

        The engine has counted one more handle of the call, so that its result stays. ``drop`` gives
        that handle back.
        """
        call = task.call
        of_call = self._of(call)
        if of_call is None or of_call is UNKNOWN or self._closed:
            call.drop()
            return
        self.executed += 1 if task.items is None else len(task.items)
        if isinstance(of_call, MapIdentity):
            result = task.result[0]
            encode: Callable[..., list[list[Data]]] = self._records.block
        else:
            key = of_call.key
            if key in self._index.calls:
                call.drop()
                return
            result = task.result
            encode = self._records.call
        cost = len(result) + 256 if type(result) is bytes else CHECKPOINT_LARGE_COST
        self._writer.add(Entry(encode, (task, of_call), call.drop, cost))

    def failed(self, calls: Iterable[Call]) -> None:
        """Keep what `mars replay` needs to run failed calls again. Errors are never results."""
        for call in calls:
            of_call = self._of(call)
            task = call.task_in(self._realm) if call.task is not None else None
            if task is None or task.stage is not Stage.FAILED or task.failed_input is not None:
                continue
            if isinstance(of_call, Identity):
                about = (task, of_call, journal.FAILED)
                self._writer.add(Entry(self._records.call, about, _nothing, 4096))

    def flush(self) -> None:
        """Return when all that has landed is written."""
        self._writer.flush()

    def close(self) -> None:
        """Have all on the disk, and let others use the folder; may be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        close_journal(self._journal)
        if self._writer.lost:
            self._tell(
                f"mars: {self._writer.lost} result(s) of this program are not in the checkpoint "
                f"{self.where}; a rerun makes them again"
            )

    def run_begins(self) -> None:
        """Note that a run begins whose calls are kept."""
        with self._lock:
            self._runs += 1

    def run_over(self, _: object = None) -> None:
        """Note that a run is over. Its arguments are let go of as soon as they are written."""
        self._writer.add(Entry(self._let_go, (), _nothing, 0))

    def _let_go(self) -> list[list[Data]]:
        with self._lock:
            self._runs -= 1
            if not self._runs:
                self._records.forget_parts()
        return []


def _nothing() -> None:
    pass


def _about_us() -> Facts:
    from mars._version import __version__

    return {
        "at": time.time(), "pid": os.getpid(), "host": platform.node(), "program": sys.argv[:1],
        "arguments": sys.argv[1:], "folder": os.getcwd(), "python": platform.python_version(),
        "mars": __version__,
    }  # fmt: skip
