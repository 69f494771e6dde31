"""Options of a call, and who holds its result."""

from __future__ import annotations

from typing import Any

import pytest

from mars.calls.options import (
    DEFAULT_OPTIONS,
    HINTS,
    Options,
    check_function,
    parse_bytes,
    parse_options,
)
from mars.observe.states import state_of
from mars.settings import DEATH_RETRIES, RETRY_WHEN_FAIL
from mars.task import Call, Function, Output, Stage, Task

FUNCTION = Function(b"f", "f", b"")


class Realm:
    """Keeps what it was told to forget."""

    def __init__(self) -> None:
        self.forgotten: list[Task] = []

    def forget(self, task: Task) -> None:
        self.forgotten.append(task)


def call(*inputs: Call) -> Call:
    return Call(FUNCTION, b"", (), tuple((one, 0) for one in inputs), Options(), None)


# -- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "attribute", "value"),
    [
        ({"name": "n"}, "name", "n"),
        ({"cpus": 2}, "cpus", 2),
        ({"cpus": 0.5}, "cpus", 0.5),
        ({"cpus": 3.0}, "cpus", 3.0),
        ({"memory": 1024}, "memory", 1024),
        ({"memory": "2GiB"}, "memory", 2 * 2**30),
        ({"gpus": 1}, "gpus", 1),
        ({"gpus": 0.5}, "gpus", 0.5),
        ({"gpu": True}, "gpus", 1),
        ({"gpu": None}, "gpus", 0),
        ({"gpus": 2, "gpu": True}, "gpus", 2),
        ({"timeout": 3}, "timeout_s", 3.0),
        ({"timeout": None}, "timeout_s", None),
        ({"retries": 2}, "retries", 2),
        ({"retries": None}, "retries", 0),
        ({"retry_on": ValueError}, "retry_on", (ValueError,)),
        ({"retry_on": (ValueError, OSError)}, "retry_on", (ValueError, OSError)),
        ({"idempotent": False}, "death_retries", 0),
        ({"idempotent": True}, "death_retries", DEATH_RETRIES),
        ({"death_retries": 7}, "death_retries", 7),
        ({"death_retries": None}, "death_retries", DEATH_RETRIES),
        ({"idempotent": False, "death_retries": 0}, "death_retries", 0),
        ({"priority": -3}, "priority", -3),
        ({"expect_worker": "w:0"}, "worker", "w:0"),
        ({"expect_band": ("w:1", "numa-0")}, "worker", "w:1"),
        ({"expect_worker": "w:0", "expect_band": ("w:1", "numa-0")}, "worker", "w:0"),
    ],
)
def test_an_option_is_taken(given: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(parse_options(given), attribute) == value


@pytest.mark.parametrize(
    ("given", "error", "names"),
    [
        ({"name": 3}, TypeError, "name"),
        ({"cpus": 0}, ValueError, "cpus"),
        ({"cpus": -1}, ValueError, "cpus"),
        ({"cpus": 1.5}, ValueError, "cpus"),
        ({"cpus": float("inf")}, ValueError, "cpus"),
        ({"cpus": float("nan")}, ValueError, "cpus"),
        ({"cpus": "2"}, TypeError, "cpus"),
        ({"cpus": True}, TypeError, "cpus"),
        ({"cpus": None}, TypeError, "cpus"),
        ({"memory": 0}, ValueError, "memory"),
        ({"memory": "many"}, ValueError, "memory"),
        ({"memory": [1]}, TypeError, "memory"),
        ({"gpus": -1}, ValueError, "gpus"),
        ({"gpus": 1.5}, ValueError, "gpus"),
        ({"gpus": "1"}, TypeError, "gpus"),
        ({"gpu": 1}, TypeError, "gpu"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": float("inf")}, ValueError, "timeout"),
        ({"timeout": "3 s"}, TypeError, "timeout"),
        ({"timeout": False}, TypeError, "timeout"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retries": 1.0}, TypeError, "retries"),
        ({"retries": True}, TypeError, "retries"),
        ({"retry_on": "ValueError"}, TypeError, "retry_on"),
        ({"retry_on": (ValueError, 3)}, TypeError, "retry_on"),
        ({"idempotent": None}, TypeError, "idempotent"),
        ({"priority": 1.5}, TypeError, "priority"),
        ({"expect_worker": 1}, TypeError, "expect_worker"),
        ({"idempotent": False, "retries": 1}, ValueError, "idempotent"),
        ({"idempotent": False, "death_retries": 1}, ValueError, "death_retries"),
        ({"death_retries": -1}, ValueError, "death_retries"),
        ({"death_retries": 1.5}, TypeError, "death_retries"),
    ],
)
def test_a_bad_value_is_refused_and_the_option_named(
    given: dict[str, Any], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        parse_options(given)


def test_an_unknown_option_is_refused_in_the_words_of_the_original() -> None:
    with pytest.raises(ValueError, match=r"^Unexpected kw: retires$"):
        parse_options({"retires": 3})


def test_hints_of_the_original_are_accepted() -> None:
    given: dict[str, Any] = dict.fromkeys(HINTS)
    options = parse_options(given)
    for attribute in Options.__slots__:
        assert getattr(options, attribute) == getattr(DEFAULT_OPTIONS, attribute)


def test_calls_without_options_share_one_instance() -> None:
    assert parse_options({}) is DEFAULT_OPTIONS


def test_retry_when_fail_means_retries_unless_they_are_said() -> None:
    assert parse_options({}, retry_when_fail=True).retries == RETRY_WHEN_FAIL
    assert parse_options({"retries": 1}, retry_when_fail=True).retries == 1
    assert parse_options({"idempotent": False}, retry_when_fail=True).retries == 0
    assert DEFAULT_OPTIONS.retries == 0


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1), (1.9, 1), ("7", 7), ("1b", 1), ("1.5g", 3 * 2**29), ("500MB", 500_000_000),
        ("500 MiB", 500 * 2**20), (" 2 gib ", 2**31), ("1T", 2**40), ("1e3", 1000),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(value: object, size: int) -> None:
    assert parse_bytes(value, "memory") == size


@pytest.mark.parametrize("value", ["", "GiB", "2 apples", "-1k", "0", "1kk", "inf"])
def test_what_is_no_size(value: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        parse_bytes(value, "memory")


def test_what_cannot_be_called_is_refused() -> None:
    check_function(len)
    with pytest.raises(TypeError, match="int: 3"):
        check_function(3)


# -- who holds what ---------------------------------------------------------------------------


def test_a_call_holds_its_inputs_until_it_is_satisfied() -> None:
    # a ── b
    a = call()
    b = call(a)
    assert a.handles == 1
    b.satisfy()
    b.satisfy()
    assert a.handles == 0


def test_dropping_the_last_output_drops_what_only_it_needs() -> None:
    # a ── b ── c
    a = call()
    b = call(a)
    c = call(b)
    realm = Realm()
    for one in (a, b, c):
        one.task = Task(one, realm)
    output, same = Output(c, 0), Output(c, 1)
    del output
    assert realm.forgotten == []
    del same
    assert [task.call for task in realm.forgotten] == [c, b, a]


def test_every_session_is_told() -> None:
    a = call()
    first, second = Realm(), Realm()
    a.task = Task(a, first)
    there = Task(a, second)
    there.elsewhere, a.task = a.task, there
    assert a.task_in(first) is not a.task_in(second)
    assert a.task_in(Realm()) is None
    del there
    Output(a, 0)  # made and dropped
    assert len(first.forgotten) == len(second.forgotten) == 1


def test_keys_are_unlike() -> None:
    keys = {call().key for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}


def test_a_name_that_was_given_comes_before_the_function_s() -> None:
    a = call()
    assert a.name == "f"
    a.options.name = "mine"
    assert a.name == "mine"


def test_a_result_is_available_until_it_is_released() -> None:
    task = Task(call(), Realm())
    assert not task.finished and not task.available
    task.stage = Stage.DONE
    assert task.finished and task.available
    task.released = True
    assert task.finished and not task.available


@pytest.mark.parametrize(
    ("end", "word"), [(Stage.CANCELLED, "cancelled"), (Stage.ABANDONED, "not started")]
)
def test_a_block_that_was_given_back_fares_as_its_map(end: Stage, word: str) -> None:
    """A reader may still hold it: items of a cancelled map said for a moment "not started"."""
    whole, block = Task(call(), Realm()), Task(call(), Realm())
    block.source = whole
    block.stage, whole.stage = Stage.ABANDONED, end
    assert block.cancelled is (end is Stage.CANCELLED)
    assert state_of(block).word == word
