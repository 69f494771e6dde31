"""Where each attempt of a call ran, and how it ended."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mars.remote as mr


def endings(call: mr.Object) -> list[str]:
    return [attempt.ending for attempt in call.attempts()]


def test_attempts_tell_where_each_ran_and_how_it_ended(
    engine: str, note: Callable[..., None], lines: Callable[..., list[str]], tmp_path: Path
) -> None:
    ledger = tmp_path / "attempts"

    def second_time_lucky() -> int:
        note(ledger)
        if len(lines(ledger)) == 1:
            raise OSError("the first time")
        return os.getpid()

    call = mr.spawn(second_time_lucky, retries=1)
    assert call.attempts() == []
    pid = call.execute().fetch()
    first, last = call.attempts()
    assert (first.ending, last.ending) == ("error", "value")
    assert all(one.node.startswith(socket.gethostname()) for one in (first, last))
    assert last.worker == pid and first.worker


def test_a_call_that_failed_has_no_attempt_with_a_value() -> None:
    call = mr.spawn(divmod, (1, 0))
    with pytest.raises(ZeroDivisionError):
        call.execute()
    assert endings(call) == ["error"]
    with pytest.raises(ZeroDivisionError):
        call.execute()
    assert endings(call) == ["error", "error"]  # as in its log, all that were made


def test_an_attempt_that_its_timeout_ended_was_stopped(tmp_path: Path) -> None:
    def slow_once(flag: Path) -> int:
        if not flag.exists():
            flag.touch()
            time.sleep(60)
        return 5

    call = mr.spawn(slow_once, tmp_path / "flag", timeout=1, retries=1)
    assert call.execute().fetch() == 5
    assert endings(call) == ["stopped", "value"]


def test_an_attempt_that_ended_with_its_worker_died(local_only: None, tmp_path: Path) -> None:
    def fatal_once(flag: Path) -> int:
        if not flag.exists():
            flag.touch()
            os._exit(3)
        return 5

    call = mr.spawn(fatal_once, tmp_path / "flag")
    assert call.execute().fetch() == 5
    assert endings(call) == ["died", "value"]


def test_calls_that_were_not_started_have_no_attempts() -> None:
    bad = mr.spawn(divmod, (1, 0))
    dependent = mr.spawn(abs, (bad,))
    with pytest.raises(ZeroDivisionError):
        dependent.execute()
    assert endings(bad) == ["error"] and endings(dependent) == []


# -- items of a map --------------------------------------------------------------------------


def test_each_item_of_a_map_has_its_own_ending() -> None:
    mapped = mr.map(lambda x: 1 / x, [4, 0, 2, 0, 1])
    mapped.execute(on_error="continue")
    assert [endings(item) for item in mapped] == [
        ["value"], ["error"], ["value"], ["error"], ["value"],
    ]  # fmt: skip
    assert all(one.worker for item in mapped for one in item.attempts())


def test_an_item_that_was_tried_again_tells_each_try(tmp_path: Path) -> None:
    def flaky(index: int) -> int:
        flag = tmp_path / f"{index}"
        if index % 2 and not flag.exists():
            flag.touch()
            raise ValueError("first time")
        return index

    mapped = mr.map(flaky, range(6), retries=1).execute()
    expected = [["error", "value"] if index % 2 else ["value"] for index in range(6)]
    assert [endings(item) for item in mapped] == expected


def test_a_death_in_one_item_is_that_items_ending(local_only: None) -> None:
    def fragile(i: int) -> int:
        if i == 0:
            os._exit(1)
        return i

    mapped = mr.map(fragile, range(4), death_retries=0)
    mapped.execute(on_error="continue")
    assert [endings(item) for item in mapped] == [["died"], ["value"], ["value"], ["value"]]


def test_an_item_that_its_timeout_ended_was_stopped() -> None:
    mapped = mr.map(lambda s: time.sleep(s), [0, 60, 0], timeout=2)
    mapped.execute(on_error="continue")
    assert [endings(item) for item in mapped] == [["value"], ["stopped"], ["value"]]


def test_an_item_that_is_an_input_keeps_its_attempts() -> None:
    mapped = mr.map(abs, range(-3, 0)).execute()
    assert mr.spawn(sum, (list(mapped),)).execute().fetch() == 6
    assert [endings(item) for item in mapped] == [["value"]] * 3


def test_attempts_are_told_inside_a_call_too() -> None:
    def outer() -> list[list[str]]:
        good, bad = mr.spawn(abs, -1), mr.spawn(divmod, (1, 0), retries=1)
        mapped = mr.map(lambda x: 1 / x, [1, 0])
        mr.ExecutableTuple([good, bad]).execute(on_error="continue")
        mapped.execute(on_error="continue")
        return [[one.ending for one in call.attempts()] for call in (good, bad, *mapped)]

    told = mr.spawn(outer).execute().fetch()
    assert told == [["value"], ["error", "error"], ["value"], ["error"]]
