"""What a program sets in libraries is seen at each look, also where looks are remembered."""

from __future__ import annotations

import decimal
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context

import numpy as np
import pytest

from mars.attempt.followed import Program

_variable: ContextVar[object] = ContextVar("_variable")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with np.errstate(), np.printoptions(), decimal.localcontext():
        yield


def test_the_same_settings_are_the_same_object() -> None:
    program = Program()
    assert program.look() is program.look()


@pytest.mark.parametrize(
    "change",
    [
        lambda: np.seterr(over="raise"),
        lambda: np.set_printoptions(precision=3),
        lambda: decimal.getcontext().traps.update({decimal.Inexact: True}),
        lambda: setattr(decimal.getcontext(), "prec", 5),
    ],
)
def test_a_change_between_two_looks_is_seen(change: Callable[[], object]) -> None:
    program = Program()
    before = program.look()
    change()
    after = program.look()
    assert after != before
    assert program.look() is after


def test_each_context_and_each_thread_is_looked_at_with_its_own_settings() -> None:
    program = Program()
    before = program.look()
    seen: list[object] = []

    def change() -> None:
        np.seterr(over="raise")
        seen.append(program.look())

    copy_context().run(change)
    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    assert all(one != before for one in seen)
    assert len(seen) == 2
    assert program.look() == before


def test_nothing_that_the_program_has_in_context_variables_is_compared_or_held() -> None:
    class Own:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    program = Program()
    one = Own()
    token = _variable.set(one)
    program.look()
    inner = _variable.set(Own())
    program.look()
    _variable.reset(inner)
    _variable.reset(token)
    gone = weakref.ref(one)
    del one, token, inner
    gc.collect()
    assert gone() is None


def test_signals_that_come_up_change_nothing() -> None:
    program = Program()
    before = program.look()
    decimal.Decimal(1) / 3
    assert program.look() is before
