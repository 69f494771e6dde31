"""What a call may do while its function and its arguments are read, and its result is pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.errors import EncodeError

# They import what they use: they run while it is read what else they refer to.


def ask() -> object:
    import mars.remote as mr

    return mr.spawn(abs, args=(-5,)).to_object()


def fail_to_ask() -> object:
    import mars.remote as mr

    try:
        return mr.spawn(int, args=("x",)).to_object()
    except ValueError as error:
        return str(error)


def ask_many() -> object:
    import mars.remote as mr

    return mr.map(abs, [-1, 2, -3]).to_object()


def share() -> object:
    import os

    import mars

    context, name = mars.get_context(), os.urandom(8).hex()
    context.create_remote_object(name, list, [1, 2])
    try:
        return context.get_remote_object(name).count(2)
    finally:
        context.destroy_remote_object(name)


def tell() -> object:
    import mars

    context = mars.get_context()
    context.set_progress(0.5)
    return context.get_total_n_cpu()


def draw() -> object:
    import mars.remote as mr

    return float(mr.rng().random())


ACTS = [ask, fail_to_ask, ask_many, share, tell]


class Lazy:
    """A value that does something where it is read."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.got: object = None

    def __getstate__(self) -> Callable[[], object]:
        return self.act

    def __setstate__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.got = act()


class Late:
    """A result that does something where it is pickled."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ([self.act()],)


def got(value: Lazy) -> object:
    return value.got


@pytest.fixture(autouse=True)
def _after_another_call() -> None:
    """Each worker has run a call, of another session even."""
    mr.ExecutableTuple([mr.spawn(abs, args=(-number,)) for number in range(4)]).execute()


@pytest.mark.parametrize("act", ACTS)
def test_arguments_ask_while_they_are_read(act: Callable[[], object]) -> None:
    expected = mr.spawn(act).to_object()
    calls = [mr.spawn(got, args=(Lazy(act),)) for _ in range(3)]
    assert [call.to_object() for call in calls] == [expected] * 3
    assert mr.map(got, [Lazy(act), Lazy(act)]).to_object() == [expected] * 2


@pytest.mark.parametrize("act", ACTS)
def test_a_function_asks_while_it_is_read(act: Callable[[], object]) -> None:
    expected = mr.spawn(act).to_object()
    lazy = Lazy(act)
    assert mr.spawn(lambda: lazy.got).to_object() == expected
    assert mr.map(lambda _: lazy.got, range(2)).to_object() == [expected] * 2


@pytest.mark.parametrize("act", ACTS)
def test_inputs_ask_while_they_are_read(act: Callable[[], object]) -> None:
    expected = mr.spawn(act).to_object()
    made = mr.spawn(Lazy, args=(act,))
    assert mr.spawn(got, args=(made,)).to_object() == expected
    assert mr.spawn(lambda value: value[0].got, args=([made],)).to_object() == expected


@pytest.mark.parametrize("act", ACTS)
def test_results_ask_while_they_are_pickled(act: Callable[[], object]) -> None:
    expected = mr.spawn(act).to_object()
    assert mr.spawn(Late, args=(act,)).to_object() == (expected,)
    assert mr.map(Late, [act, act]).to_object() == [(expected,)] * 2


def deeper() -> object:
    return mr.spawn(got, args=(Lazy(ask),)).to_object()


def test_calls_that_are_asked_for_so_may_do_it_again() -> None:
    assert mr.spawn(got, args=(Lazy(deeper),)).to_object() == 5


def test_numbers_drawn_there_are_those_of_the_call(engine: str) -> None:
    def draw_more(value: Lazy) -> object:
        return value.got, draw()

    def draw_two() -> object:
        return draw(), draw()

    asked = mr.ExecutableTuple([mr.spawn(draw_more, args=(Lazy(draw),)), mr.spawn(draw_two)])
    with mars.new_session(engine="inline", seed=3, default=False) as other:
        expected = mr.ExecutableTuple([mr.spawn(draw_two), mr.spawn(draw_two)])
        first, second = expected.execute(session=other).fetch(session=other)
    with mars.new_session(engine=engine, n_cpu=1, seed=3, default=False) as own:
        assert asked.execute(session=own).fetch(session=own) == [first, second]


def test_what_is_printed_there_is_in_the_log_of_the_call() -> None:
    def shout() -> None:
        print("read")

    def say(_: object) -> Late:
        print("called")
        return Late(shout)

    call = mr.spawn(say, args=(Lazy(shout),)).execute()
    assert str(call.fetch_log()).splitlines() == ["read", "called", "read"]


def test_what_fails_there_is_the_error_of_the_call() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    for call in (mr.spawn(got, args=(Lazy(fail),)), mr.spawn(Late, args=(fail,))):
        with pytest.raises((LookupError, EncodeError), match="nothing there"):
            call.to_object()
    assert mr.spawn(got, args=(Lazy(ask),)).to_object() == 5
