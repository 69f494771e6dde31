"""Which calls run beside which, by the memory that they need."""

from __future__ import annotations

from math import inf

from mars.engines.local.admission import OUT_OF_MEMORY, Admission
from mars.engines.local.queues import WorkerState
from mars.settings import FUNCTIONS_KEPT, PEAK_FLOOR_BYTES
from mars.task import Call, Function, Options, Task, WorkerId

GIB = 2**30
FUNCTION = Function(b"f", "f", b"")


def task(memory: int | None = None, blame: str = "") -> Task:
    made = Task(Call(FUNCTION, b"", (), (), Options(memory=memory), None), None)
    made.blame = blame
    return made


def busy(number: int, need: float, *, blocked: bool = False) -> WorkerState:
    worker = WorkerState(WorkerId(number), 0)
    worker.need, worker.blocked = need, blocked
    worker.queue.append(task())
    return worker


IDLE = WorkerState(WorkerId(9), 0)


def test_a_call_needs_what_it_says_else_what_its_function_was_seen_to_use() -> None:
    admission = Admission(lambda: inf)
    assert admission.need(task()) == 0
    admission.learn(FUNCTION.key, 3 * GIB)
    assert admission.need(task()) == 3 * GIB
    assert admission.need(task(memory=GIB)) == GIB


def test_more_memory_is_believed_at_once_and_less_after_a_while() -> None:
    admission = Admission(lambda: inf)
    for peak in (GIB, 3 * GIB):
        admission.learn(FUNCTION.key, peak)
        assert admission.need(task()) == peak
    admission.learn(FUNCTION.key, GIB)
    assert GIB < admission.need(task()) < 3 * GIB
    for _ in range(100):
        admission.learn(FUNCTION.key, PEAK_FLOOR_BYTES // 2)
    assert admission.need(task()) == 0, "too little to care"


def test_what_is_remembered_of_functions_does_not_grow_with_their_number() -> None:
    admission = Admission(lambda: inf)
    for number in range(10_000):
        admission.learn(str(number).encode(), GIB)
    assert len(admission.peaks) <= 4 * FUNCTIONS_KEPT


def test_calls_run_together_while_they_fit() -> None:
    admission = Admission(lambda: 4 * GIB)
    assert admission.fits(2 * GIB, IDLE, [IDLE, busy(1, 2 * GIB)])
    assert not admission.fits(2 * GIB + 1, IDLE, [IDLE, busy(1, 2 * GIB)])
    assert admission.fits(0, IDLE, [IDLE, busy(1, 100 * GIB)])


def test_room_that_objects_take_is_no_room_for_calls() -> None:
    room = 4 * GIB
    admission = Admission(lambda: room)
    others = [busy(1, GIB)]
    assert admission.fits(2 * GIB, IDLE, others)
    room = 2 * GIB
    assert not admission.fits(2 * GIB, IDLE, others)


def test_each_node_has_memory_of_its_own() -> None:
    admission = Admission(lambda: GIB)
    here, there = busy(1, 2 * GIB), busy(2, 3 * GIB)
    there.group = 1
    assert admission.fits(2 * GIB, IDLE, [here, there], 4 * GIB)
    assert not admission.fits(2 * GIB + 1, IDLE, [here, there], 4 * GIB)
    assert admission.fits(4 * GIB, IDLE, [there], 4 * GIB)
    assert not admission.fits(4 * GIB + 1, IDLE, [there], 4 * GIB), "another node has more"
    admission.learn(FUNCTION.key, 9 * GIB)
    admission.most = 4 * GIB
    assert admission.need(task()) == 4 * GIB, "what ran somewhere can run on the largest node"


def test_what_fits_nowhere_is_tried_when_nothing_else_runs() -> None:
    admission = Admission(lambda: GIB)
    assert admission.fits(5 * GIB, IDLE, [IDLE])
    assert admission.fits(5 * GIB, IDLE, [IDLE, busy(1, GIB, blocked=True)])
    assert not admission.fits(5 * GIB, IDLE, [IDLE, busy(1, 0)])


def test_a_call_that_ran_out_of_memory_runs_alone() -> None:
    admission = Admission(lambda: inf)
    admission.strict = True
    need = admission.need(task(blame=OUT_OF_MEMORY))
    assert need == inf
    assert not admission.fits(need, IDLE, [busy(1, 0)])
    assert admission.fits(need, IDLE, [IDLE])
    assert not admission.fits(0, IDLE, [busy(1, need)]), "nothing starts beside it"
    assert admission.fits(0, IDLE, [busy(1, 5 * GIB)])
