"""Items of a map are taken when the map is described, as `spawn` takes its arguments."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr


@dataclasses.dataclass
class Job:
    name: str
    sizes: list[int]

    def total(self) -> int:
        return sum(self.sizes)


class Counted:
    """Notes the thread that pickles it."""

    threads: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[object, ...]:
        self.threads.append(threading.current_thread().name)
        return int, ("7",)


@pytest.mark.parametrize("count", [1, 3, 5000])
def test_a_later_change_of_an_item_is_not_seen(count: int) -> None:
    items = [[i] for i in range(count)]
    mapped = mr.map(sum, items)
    for item in items:
        item.append(10)
    items.clear()
    assert mapped.execute().fetch() == list(range(count))


def test_a_later_change_deep_inside_an_item_is_not_seen() -> None:
    inner = {"lr": [1]}
    jobs = [Job("a", [1, 2]), Job("b", [3])]
    mapped = mr.map(lambda job, options: job.total() + options["lr"][0], jobs, [(inner), inner])
    inner["lr"][0] = 100
    jobs[0].sizes.append(100)
    assert mapped.execute().fetch() == [4, 4]


def test_an_item_that_is_indexed_later_is_as_it_was_too() -> None:
    items = [[1], [2], [3]]
    jobs = [Job("a", [1]), Job("b", [2])]
    mapped, totals = mr.map(sum, items), mr.map(Job.total, jobs)
    for item in items:
        item.append(10)
    jobs[1].sizes.append(10)
    assert mapped[1].execute().fetch() == 2
    assert mr.spawn(sum, (mapped[:2],)).execute().fetch() == 3
    assert totals[1].execute().fetch() == 2 and totals.execute().fetch() == [1, 2]


def test_an_item_that_is_changed_between_two_executes_is_as_it_was() -> None:
    items = [[4], [0]]
    mapped = mr.map(lambda x: 1 / x[0], items)
    with pytest.raises(ZeroDivisionError):
        mapped.execute()
    items[1][0] = 5
    with pytest.raises(ZeroDivisionError):
        mapped.execute()


def test_what_several_items_share_is_each_ones_own() -> None:
    shared: list[int] = []

    def grow(item: list[int]) -> int:
        item.append(1)
        return len(item)

    assert mr.map(grow, [shared] * 200).execute().fetch() == [1] * 200
    assert (
        mr.map(lambda pair: grow(pair[0]), [(shared, i) for i in range(9)]).to_object() == [1] * 9
    )
    assert shared == []


def test_one_list_twice_in_an_item_is_one_list_inside() -> None:
    one: list[int] = []
    assert mr.map(lambda a, b: a is b, [one] * 3, [one] * 3).to_object() == [True] * 3


def test_an_item_is_fresh_when_it_is_tried_again(tmp_path: Path) -> None:
    def spoil(item: list[int]) -> int:
        item.append(1)
        if len(item) == 2 and not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            raise ValueError("first time")
        return len(item)

    assert mr.map(spoil, [[0], [1, 2]], retries=1).to_object() == [2, 3]


def test_items_are_pickled_in_the_thread_that_describes_the_map_and_nowhere_else() -> None:
    Counted.threads.clear()
    mapped = mr.map(abs, [Counted() for _ in range(3)])
    described = set(Counted.threads)
    Counted.threads.clear()
    assert mapped.execute().fetch() == [7, 7, 7]
    assert described == {threading.current_thread().name} and not Counted.threads


def test_what_a_map_holds_no_more_is_given_back() -> None:
    import weakref

    jobs = [Job("a", [1])]
    seen = weakref.ref(jobs[0])
    mapped = mr.map(Job.total, jobs)
    jobs.clear()
    assert seen() is None
    assert mapped.to_object() == [1]


class Unloadable:
    """Pickles well, and fails where it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def test_an_item_that_cannot_be_loaded_is_its_own_error() -> None:
    items = [Job("a", [1]), Unloadable(), Job("b", [2])]
    mapped = mr.map(lambda item: item.total(), items)
    mapped.execute(on_error="continue")
    assert [type(error) for error in mapped.errors()] == [type(None), ValueError, type(None)]
    assert (mapped[0].fetch(), mapped[2].fetch()) == (1, 2)


class Fatal:
    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (3,)


def test_an_item_that_kills_where_it_is_loaded_is_blamed_alone(local_only: None) -> None:
    items: list[Any] = [Job("a", [1]), Fatal(), Job("b", [2])]
    mapped = mr.map(lambda item: item.total(), items, death_retries=1)
    mapped.execute(on_error="continue")
    kinds = [type(error) for error in mapped.errors()]
    assert kinds == [type(None), mars.errors.WorkerDied, type(None)]


def test_an_item_that_does_not_pickle_is_refused_by_map_with_its_path() -> None:
    with pytest.raises(mars.errors.EncodeError) as refused:
        mr.map(abs, [1, {"guard": threading.Lock()}])
    assert refused.value.where == "args[0]['guard']: _thread.lock"
    with pytest.raises(mars.errors.EncodeError, match=r"_thread\.lock"):
        mr.map(pow, range(9000), [0] * 8999 + [threading.Lock()])


# -- all that can be an item -----------------------------------------------------------------


def test_classes_and_functions_of_the_program_may_be_items_or_in_them() -> None:
    def double(x: int) -> int:
        return 2 * x

    class Local:
        factor = 3

        def __call__(self, x: int) -> int:
            return self.factor * x

    functions = [double, Local(), lambda x: x + 1, abs, Local, Job]
    assert mr.map(callable, functions).to_object() == [True] * 6
    assert mr.map(lambda f: f(4), functions[:4]).to_object() == [8, 12, 5, 4]
    assert mr.map(lambda f, g: g(f), [Job("a", [5])] * 2, [Job.total] * 2).to_object() == [5, 5]


def test_a_class_that_changes_after_map_is_as_it_was() -> None:
    class Settings:
        rate = 1

    mapped = mr.map(lambda settings: settings.rate, [Settings(), Settings()])
    Settings.rate = 2
    assert mapped.to_object() == [1, 1]


def test_objects_among_other_items_are_inputs() -> None:
    source = mr.spawn(abs, -5)
    items = [[1], [source], {"deep": (source, 2)}, source]
    mapped = mr.map(str, items)
    items[0].append(9)
    assert mapped.execute().fetch() == ["[1]", "[5]", "{'deep': (5, 2)}", "5"]


def test_fixed_values_of_all_kinds_arrive() -> None:
    import datetime
    import decimal
    import fractions
    import pathlib
    import uuid

    for values in (
        [True, None, 1, 1.5, 2j, "text", b"bytes", range(3)],
        [(1, ("deep", (2.0, None))), frozenset({1, 2}), ()],
        [datetime.date(2026, 1, 2), datetime.timedelta(3), decimal.Decimal("1.5")],
        [fractions.Fraction(1, 3), uuid.UUID(int=5), pathlib.PurePosixPath("/a")],
    ):
        assert mr.map(lambda value: value, values).to_object() == values


def test_arrays_may_be_items_and_are_each_items_own() -> None:
    np = pytest.importorskip("numpy")

    def add(array: Any) -> float:
        array += 1
        return float(array.sum())

    small = [np.full(8, i) for i in range(50)]
    large = [np.full(50_000, i) for i in range(4)]
    mapped, matrix = mr.map(add, small), mr.map(add, np.ones((3, 4)))
    for array in small:
        array += 100
    assert mapped.to_object() == [8.0 * (i + 1) for i in range(50)]
    assert matrix.to_object() == [8.0] * 3
    wide = mr.map(add, large)
    assert wide.to_object() == [50_000.0 * (i + 1) for i in range(4)]
    assert [int(array[0]) for array in large] == [0, 1, 2, 3]
    assert wide[1].fetch() == 100_000.0
    assert mr.map(lambda x: int(x) + 1, np.arange(5)).to_object() == [1, 2, 3, 4, 5]
    assert mr.map(lambda job: float(job.sizes.sum()), [Job("a", np.ones(60_000))]).to_object() == [
        60_000.0
    ]


def test_items_of_a_map_inside_a_call_are_taken_then_too() -> None:
    def outer() -> list[Any]:
        items: list[Any] = [[1], [2]]
        mapped = mr.map(sum, items)
        items[0].append(10)
        jobs = mr.map(Job.total, [Job("a", [3])])
        return [*mapped.execute().fetch(), *jobs.execute().fetch()]

    assert mr.spawn(outer).execute().fetch() == [1, 2, 3]


def test_large_items_of_a_map_inside_a_call_arrive() -> None:
    np = pytest.importorskip("numpy")

    def outer() -> list[float]:
        arrays = [np.full(50_000, i, dtype=float) for i in range(3)]
        return mr.map(lambda pair: float(pair[0].sum()), [(a, 1) for a in arrays]).to_object()

    assert mr.spawn(outer).execute().fetch() == [0.0, 50_000.0, 100_000.0]


def test_a_block_of_many_items_of_the_program_s_classes_arrives(
    note: Callable[..., None], lines: Callable[[object], list[str]], tmp_path: Path
) -> None:
    jobs = [Job(str(i), [i, 1]) for i in range(3000)]
    mapped = mr.map(lambda job: (job.name, job.total(), type(job).__name__), jobs)
    assert mapped.to_object() == [(str(i), i + 1, "Job") for i in range(3000)]
    assert mapped[2999].fetch() == ("2999", 3000, "Job")
