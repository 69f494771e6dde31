"""Which calls run beside which, by the memory that they need."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from mars.calls.options import Options
from mars.engines.driver.estimates import OUT_OF_MEMORY, Admission
from mars.engines.driver.queues import Taken
from mars.settings import FUNCTIONS_KEPT, PEAK_FLOOR_BYTES
from mars.task import Call, Function, Task

GIB = 2**30
FUNCTION = Function(b"f", "f", b"")


def task(memory: int | None = None, blame: str = "") -> Task:
    made = Task(Call(FUNCTION, b"", (), (), Options(memory=memory), None), None)
    made.blame = blame
    return made


def taken(*needs: float, blocked: Sequence[float] = ()) -> Taken:
    """By calls that run, and by calls that wait for nested ones."""
    made = Taken()
    for need in needs:
        made.count(False, need, 1)
    for need in blocked:
        made.count(True, need, 1)
    return made


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
    assert admission.fits(2 * GIB, taken(2 * GIB))
    assert not admission.fits(2 * GIB + 1, taken(2 * GIB))
    assert admission.fits(0, taken(100 * GIB))


def test_room_that_objects_take_is_no_room_for_calls() -> None:
    room = 4 * GIB
    admission = Admission(lambda: room)
    others = taken(GIB)
    assert admission.fits(2 * GIB, others)
    room = 2 * GIB
    assert not admission.fits(2 * GIB, others)


def test_each_node_has_memory_of_its_own() -> None:
    admission = Admission(lambda: GIB)
    here, nothing = taken(2 * GIB), taken()
    assert admission.fits(2 * GIB, here, 4 * GIB)
    assert not admission.fits(2 * GIB + 1, here, 4 * GIB)
    assert admission.fits(4 * GIB, nothing, 4 * GIB)
    assert not admission.fits(4 * GIB + 1, nothing, 4 * GIB), "another node has more"
    admission.learn(FUNCTION.key, 9 * GIB)
    admission.most = 4 * GIB
    assert admission.need(task()) == 4 * GIB, "what ran somewhere can run on the largest node"


def test_what_fits_nowhere_is_tried_when_nothing_else_runs() -> None:
    admission = Admission(lambda: GIB)
    assert admission.fits(5 * GIB, taken())
    assert admission.fits(5 * GIB, taken(blocked=[GIB]))
    assert not admission.fits(5 * GIB, taken(0))


def test_a_call_that_ran_out_of_memory_runs_alone() -> None:
    admission = Admission(lambda: inf)
    admission.strict = True
    need = admission.need(task(blame=OUT_OF_MEMORY))
    assert need == inf
    assert not admission.fits(need, taken(0))
    assert admission.fits(need, taken())
    assert not admission.fits(0, taken(need)), "nothing starts beside it"
    assert admission.fits(0, taken(5 * GIB))
