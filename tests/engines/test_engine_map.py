"""`mr.map`: one object per item, with exact errors, logs and dependencies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr


def square(x: int) -> int:
    return x * x


def test_map_gives_one_value_per_item_in_order() -> None:
    assert list(mr.map(square, range(100)).execute().fetch()) == [i * i for i in range(100)]


def test_map_of_many_small_items_is_exact() -> None:
    fetched = mr.map(square, range(20_000)).execute().fetch()
    assert list(fetched) == [i * i for i in range(20_000)]


def test_map_does_not_run_before_execute(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    mapped = mr.map(lambda i: note(ledger, i), range(5))
    mr.spawn(int).execute()
    assert lines(ledger) == []
    mapped.execute()
    mapped.execute()
    assert sorted(lines(ledger)) == ["0", "1", "2", "3", "4"]


def test_map_is_a_sequence() -> None:
    mapped = mr.map(square, range(5))
    assert len(mapped) == 5
    assert [type(o).__name__ for o in mapped] == ["Object"] * 5
    assert len(mapped[1:4]) == 3
    assert len(mapped[::-1]) == 5
    for outside in (5, -6):
        with pytest.raises(IndexError):
            mapped[outside]


def test_an_item_can_be_executed_and_fetched_alone(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def run(i: int) -> int:
        note(ledger, i)
        return i * i

    mapped = mr.map(run, range(5))
    assert mapped[3].execute().fetch() == 9
    assert lines(ledger) == ["3"]
    assert list(mapped.execute().fetch()) == [0, 1, 4, 9, 16]
    assert sorted(lines(ledger)) == ["0", "1", "2", "3", "4"]


def test_items_of_an_executed_map_are_fetched_by_index_and_slice() -> None:
    mapped = mr.map(square, range(10)).execute()
    assert mapped[3].fetch() == 9
    assert mapped[-1].fetch() == 81
    assert [o.fetch() for o in mapped[2:4]] == [4, 9]
    assert [o.fetch() for o in mapped] == [i * i for i in range(10)]


def test_one_item_twice_is_one_object() -> None:
    mapped = mr.map(square, range(3))
    assert mapped[1] is mapped[1]
    assert mapped[-1] is mapped[2]


def test_an_item_can_be_an_input_of_another_call() -> None:
    mapped = mr.map(square, range(6))
    assert mr.spawn(lambda a, b: b - a, args=(mapped[2], mapped[5])).execute().fetch() == 21


def test_all_items_can_be_an_input_of_another_call() -> None:
    mapped = mr.map(square, range(6))
    assert mr.spawn(sum, args=(list(mapped),)).execute().fetch() == 55


def test_objects_as_items_arrive_as_values() -> None:
    sources = [mr.spawn(square, args=(i,)) for i in range(4)]
    assert list(mr.map(square, sources).execute().fetch()) == [0, 1, 16, 81]


def test_a_map_over_a_map_chains() -> None:
    first = mr.map(square, range(50))
    second = mr.map(square, first)
    assert list(second.execute().fetch()) == [i**4 for i in range(50)]


def test_several_iterables_are_walked_together_to_the_shortest() -> None:
    mapped = mr.map(lambda a, b, c: (a, b, c), range(3), "xyz", iter([True, False, None, 4]))
    assert list(mapped.execute().fetch()) == [(0, "x", True), (1, "y", False), (2, "z", None)]
    assert len(mr.map(pow, range(3), [2, 2])) == 2


def test_items_may_be_tuples_and_arrive_whole() -> None:
    mapped = mr.map(lambda pair: pair[0] + pair[1], [(1, 2), (3, 4)])
    assert list(mapped.execute().fetch()) == [3, 7]


def test_an_empty_map_executes_and_fetches_nothing() -> None:
    mapped = mr.map(square, [])
    assert len(mapped) == 0
    assert list(mapped.execute().fetch()) == []
    assert list(mapped.errors()) == []


def test_the_error_of_one_item_is_its_own_and_the_others_have_values() -> None:
    def inverse(x: int) -> float:
        return 1 / (x - 7)

    mapped = mr.map(inverse, range(20))
    mapped.execute(on_error="continue")
    for i in range(20):
        if i == 7:
            with pytest.raises(ZeroDivisionError) as caught:
                mapped[i].fetch()
            assert "(7)" in "\n".join(caught.value.__notes__)
        else:
            assert mapped[i].fetch() == 1 / (i - 7)
    kinds = [type(e) for e in mapped.errors() if e is not None]
    assert kinds == [ZeroDivisionError]


def test_the_first_failure_of_a_map_is_raised_and_finished_items_stay(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger, fixed = tmp_path / "runs", tmp_path / "fixed"

    def fragile(i: int) -> int:
        note(ledger, i)
        if i == 5 and not fixed.exists():
            raise LookupError("item five")
        return i

    mapped = mr.map(fragile, range(6))
    with pytest.raises(LookupError, match="item five"):
        mapped.execute()
    fixed.touch()
    assert list(mapped.execute().fetch()) == [0, 1, 2, 3, 4, 5]
    assert lines(ledger).count("5") == 2
    assert max(lines(ledger).count(str(i)) for i in range(5)) == 1


def test_only_dependents_of_a_failed_item_fail() -> None:
    mapped = mr.map(lambda x: 1 // x, [0, 1])
    child_of_bad = mr.spawn(square, args=(mapped[0],))
    child_of_good = mr.spawn(square, args=(mapped[1],))
    mr.ExecutableTuple([child_of_bad, child_of_good]).execute(on_error="continue")
    assert child_of_good.fetch() == 1
    with pytest.raises(mars.errors.DependencyFailed) as caught:
        child_of_bad.fetch()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_each_item_has_its_own_log() -> None:
    mapped = mr.map(lambda i: print(f"item {i}"), range(50)).execute()
    assert [str(mapped[i].fetch_log()) for i in range(50)] == [f"item {i}\n" for i in range(50)]


def test_options_hold_for_every_item(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    def second_time(i: int) -> int:
        note(tmp_path / f"runs{i}")
        if len(lines(tmp_path / f"runs{i}")) < 2:
            raise ValueError("again")
        return i

    mapped = mr.map(second_time, range(3), retries=1, name="item")
    assert list(mapped.execute().fetch()) == [0, 1, 2]


def test_an_unknown_option_of_map_is_refused() -> None:
    with pytest.raises(ValueError, match="Unexpected kw: chunks"):
        mr.map(square, range(3), chunks=2)


def test_map_without_an_iterable_is_refused() -> None:
    with pytest.raises(TypeError):
        mr.map(square)


def test_an_item_that_does_not_pickle_is_refused_and_the_session_works_on() -> None:
    import threading

    with pytest.raises(mars.errors.EncodeError, match=r"_thread\.lock"):
        mr.map(square, [1, threading.Lock()]).execute()
    assert list(mr.map(square, [1, 2]).execute().fetch()) == [1, 4]


def test_items_run_at_the_same_time_on_two_cpus(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    def meet(pair: tuple[str, str]) -> bool:
        (tmp_path / pair[0]).touch()
        pass_gate(tmp_path / pair[1])
        return True

    assert list(mr.map(meet, [("a", "b"), ("b", "a")]).execute().fetch()) == [True, True]


def test_map_without_waiting_gives_a_future() -> None:
    mapped = mr.map(square, range(5))
    mapped.execute(wait=False).result(20)
    assert list(mapped.fetch()) == [0, 1, 4, 9, 16]


def test_a_map_over_an_array_gives_its_items() -> None:
    np = pytest.importorskip("numpy")
    fetched = mr.map(square, np.arange(4)).execute().fetch()
    assert [int(v) for v in fetched] == [0, 1, 4, 9]


def test_an_item_that_prints_nothing_has_an_empty_log() -> None:
    mapped = mr.map(lambda i: print(i) if i % 2 else None, range(6)).execute()
    assert [str(mapped[i].fetch_log()) for i in range(6)] == ["", "1\n", "", "3\n", "", "5\n"]


def test_slow_and_quick_items_in_one_map_are_all_there() -> None:
    import time

    def uneven(i: int) -> int:
        if i % 25 == 0:
            time.sleep(0.02)
        return i

    assert list(mr.map(uneven, range(200)).execute().fetch()) == list(range(200))


def test_a_death_in_one_item_blames_that_item(local_only: None) -> None:
    import os

    def fragile(i: int) -> int:
        if i == 3:
            os.kill(os.getpid(), 9)
        return i

    mapped = mr.map(fragile, range(10), idempotent=False)
    mapped.execute(on_error="continue")
    for i in range(10):
        if i == 3:
            with pytest.raises(mars.errors.WorkerDied):
                mapped[i].fetch()
        else:
            assert mapped[i].fetch() == i
