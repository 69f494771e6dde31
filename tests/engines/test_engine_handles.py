"""Objects, maps and tuples of both: what one of them can be given to, all can."""

from __future__ import annotations

import asyncio
import functools
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.errors import DependencyFailed, NotExecuted


def noisy(x: int) -> int:
    print("item", x)
    return x * x


def test_a_map_can_be_executed_and_fetched_with_other_objects() -> None:
    mapped, call, other = mr.map(noisy, range(4)), mr.spawn(abs, -7), mr.map(abs, [])
    assert mars.execute(mapped, call, other) == [mapped, call, other]
    assert mars.fetch(mapped, call, other) == [[0, 1, 4, 9], 7, []]
    assert mars.fetch([mapped, call]) == [[0, 1, 4, 9], 7]
    assert mars.fetch(mapped) == mars.fetch([mapped]) == [0, 1, 4, 9]


def test_module_functions_take_a_map_alone() -> None:
    mapped = mr.map(noisy, range(3))
    assert mars.execute(mapped) is mapped
    assert mars.execute([mr.map(noisy, range(2))]).fetch() == [0, 1]
    assert [str(log) for log in mars.fetch_log(mapped)] == ["item 0\n", "item 1\n", "item 2\n"]


def test_logs_stand_in_the_places_of_what_they_are_of() -> None:
    mapped, call = mr.map(noisy, range(2)), mr.spawn(noisy, 5)
    together = mr.ExecutableTuple([mapped, call]).execute()
    for logs in (together.fetch_log(), mars.fetch_log(mapped, call, offsets=0)):
        first, last = logs
        assert ([str(log) for log in first], str(last)) == (["item 0\n", "item 1\n"], "item 5\n")


def test_a_tuple_may_hold_maps_and_tuples() -> None:
    mapped, call = mr.map(abs, [-1, -2]), mr.spawn(abs, -3)
    inner = mr.ExecutableTuple([mr.spawn(abs, -4), mr.spawn(abs, -5)])
    together = mr.ExecutableTuple([mapped, call, inner])
    assert together.execute() is together
    assert together.fetch() == [[1, 2], 3, [4, 5]]
    assert together.errors() == [[None, None], None, [None, None]]
    assert mr.ExecutableTuple([mapped]).fetch() == ([1, 2],)
    assert mars.fetch(mars.execute(inner, call)) == [[4, 5], 3]
    pair = namedtuple("pair", "items one")(mapped, call)
    fetched = mr.ExecutableTuple(pair).execute().fetch()
    assert (type(fetched), fetched.items, fetched.one) == (type(pair), [1, 2], 3)


def test_a_call_may_read_items_of_a_map_that_is_executed_with_it(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def once(x: int) -> int:
        note(ledger, x)
        return x

    mapped = mr.map(once, range(6))
    total = mr.spawn(sum, (mapped[1:4],))
    assert mars.fetch(mars.execute(mapped, total)) == [[0, 1, 2, 3, 4, 5], 6]
    assert sorted(lines(ledger)) == ["0", "1", "2", "3", "4", "5"]


def test_maps_over_maps_and_their_sums_run_together() -> None:
    first = mr.map(abs, [-1, -2, -3])
    second = mr.map(pow, first, [2] * 3)
    total = mr.spawn(sum, (second,))
    assert mars.fetch(mars.execute(first, second, total)) == [[1, 2, 3], [1, 4, 9], 14]


@pytest.mark.parametrize(
    "of", ["object", "tuple", "map", "mixed tuple", "empty map", "empty tuple"]
)
def test_to_object_gives_the_value_with_and_without_waiting(of: str) -> None:
    def made() -> Any:
        calls = [mr.spawn(abs, -1), mr.spawn(abs, -2)]
        kinds: dict[str, Any] = {
            "object": calls[0], "tuple": mr.ExecutableTuple(calls), "map": mr.map(abs, [-1, -2]),
            "mixed tuple": mr.ExecutableTuple([calls[0], mr.map(abs, [-5])]),
            "empty map": mr.map(abs, []), "empty tuple": mr.ExecutableTuple([]),
        }  # fmt: skip
        return kinds[of]

    expected = {
        "object": 1, "tuple": [1, 2], "map": [1, 2], "mixed tuple": [1, [5]], "empty map": [],
        "empty tuple": (),
    }[of]  # fmt: skip
    assert made().to_object() == expected
    handle = made()
    assert handle.to_object(wait=False).result(20) == expected
    assert handle.to_object() == expected  # done already

    async def main() -> Any:
        return await made().to_object(wait=False)

    assert asyncio.run(main()) == expected


def test_a_future_gives_what_was_executed() -> None:
    mapped, call = mr.map(abs, [-1, -2]), mr.spawn(abs, -3)
    assert mapped.execute(wait=False).result(20) is mapped
    assert mars.execute(mapped, call, wait=False).result(20) == [mapped, call]
    run = mr.ExecutableTuple([mapped, call]).execute(wait=False)
    assert run.result(20) == [mapped, call]
    assert run.to_execute_tileables
    assert mars.fetch(mapped, call) == [[1, 2], 3]


def test_failures_of_maps_are_told_where_they_are() -> None:
    mapped = mr.map(lambda x: 1 / x, [1, 0])
    call, after = mr.spawn(abs, -1), mr.spawn(abs, (mapped[1],))
    together = mr.ExecutableTuple([mapped, call, after])
    with pytest.raises(ZeroDivisionError):
        together.execute()
    together.execute(on_error="continue")
    (none, division), one, dependent = together.errors()
    assert none is None and one is None
    assert isinstance(division, ZeroDivisionError) and isinstance(dependent, DependencyFailed)
    with pytest.raises(ZeroDivisionError):
        together.fetch()
    assert call.fetch() == 1


def test_what_was_not_executed_says_so_in_every_handle() -> None:
    mapped, call = mr.map(abs, [-1]), mr.spawn(abs, -1)
    for handle in (mapped, call, mr.ExecutableTuple([mapped, call])):
        with pytest.raises(NotExecuted):
            handle.fetch()
        with pytest.raises(NotExecuted):
            mars.fetch(handle)
    (of_item,), of_call = mr.ExecutableTuple([mapped, call]).errors()
    assert (of_item.state, of_call.state) == ("not started", "not started")
    assert isinstance(of_item, NotExecuted) and isinstance(of_call, NotExecuted)


@pytest.mark.parametrize("wrong", [3, "text", None, {"a": 1}])
def test_what_is_no_handle_is_refused_everywhere(wrong: object) -> None:
    mapped = mr.map(abs, [-1])
    for act in (mars.execute, mars.fetch, mars.fetch_log):
        with pytest.raises(TypeError):
            act(mapped, wrong)
    with pytest.raises(TypeError):
        mr.ExecutableTuple([mapped, wrong]).execute()


def test_a_partial_or_closure_with_objects_can_be_mapped() -> None:
    base, factor = mr.spawn(abs, -10), mr.spawn(abs, -2)
    assert mr.map(functools.partial(pow, base), [1, 2]).to_object() == [10, 100]
    mapped = mr.map(lambda x, y: x * factor_value(factor) + y, [1, 2], [5, 6])
    assert mapped.execute().fetch() == [7, 10]
    assert (
        repr(mr.map(functools.partial(pow, base), [1])) == "<map of pow over 1 items: not started>"
    )


def factor_value(value: int) -> int:
    return value


def test_infos_are_there_for_every_handle() -> None:
    mapped, call = mr.map(bytes, [1000] * 10), mr.spawn(bytes, 1000)
    together = mr.ExecutableTuple([mapped, call]).execute()
    of_map, of_call = together._fetch_infos(["memory_size"])
    assert len(of_map) == 10
    for info in (*of_map, of_call):
        assert 1000 <= info["memory_size"][0] < 1200
