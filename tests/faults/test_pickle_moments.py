"""What goes wrong in each moment of a call's pickles: a typed end, and a session that works on.

::

                       sys.exit     os._exit      an exception   a crash
    pickle argument    the program's own, at spawn: the caller's code runs in the caller
    unpickle argument  SystemExit   WorkerDied    the exception  WorkerDied
    run                SystemExit   WorkerDied    the exception  WorkerDied
    pickle result      SystemExit   WorkerDied    EncodeError    WorkerDied
    unpickle result    the program's own, at fetch: the caller's code runs in the caller
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

import pytest

import mars
import mars.remote as mr
from mars.errors import MarsError, WorkerDied

pytestmark = pytest.mark.usefixtures("still_works")


def leave() -> None:
    sys.exit(9)


def leave_at_once() -> None:
    os._exit(9)


def fail() -> None:
    raise LookupError("on purpose")


def crash() -> None:
    ctypes.string_at(0)


WAYS = {"sys.exit": leave, "os._exit": leave_at_once, "exception": fail, "crash": crash}


class Unpickles:
    """Does it when it is unpickled."""

    def __init__(self, way: Callable[[], None]) -> None:
        self.way = way

    def __reduce__(self) -> tuple[object, ...]:
        return self.way, ()


class Pickles:
    """Does it when it is pickled."""

    def __init__(self, way: Callable[[], None]) -> None:
        self.way = way

    def __reduce__(self) -> tuple[object, ...]:
        self.way()
        return Pickles, (self.way,)


def attempt(call: object, way: str) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call.execute()  # type: ignore[attr-defined]
    assert not isinstance(caught.value, mars.errors.InternalError)
    if way in ("os._exit", "crash"):
        assert isinstance(caught.value, WorkerDied), repr(caught.value)
        assert caught.value.ending == {"os._exit": "exit code 9", "crash": "SIGSEGV"}[way]
    return caught.value


def assert_own(error: BaseException, way: str) -> None:
    if way == "exception":
        assert isinstance(error, LookupError) and "on purpose" in str(error)
    elif way == "sys.exit":
        assert isinstance(error, (SystemExit, MarsError)), repr(error)
        assert "SystemExit" in repr(error) + str(error) or error.args == (9,)


@pytest.mark.parametrize("way", WAYS)
def test_what_goes_wrong_while_an_argument_is_unpickled_is_the_calls_own_end(way: str) -> None:
    argument = Unpickles(WAYS[way])
    assert_own(attempt(mr.spawn(len, args=([argument],), idempotent=False), way), way)


@pytest.mark.parametrize("way", WAYS)
def test_what_goes_wrong_in_the_function_is_the_calls_own_end(way: str) -> None:
    assert_own(attempt(mr.spawn(WAYS[way], idempotent=False), way), way)


@pytest.mark.parametrize("way", WAYS)
def test_what_goes_wrong_while_the_result_is_pickled_is_the_calls_own_end(way: str) -> None:
    error = attempt(mr.spawn(Pickles, args=(WAYS[way],), idempotent=False), way)
    if way == "exception":
        assert isinstance(error, (mars.errors.EncodeError, LookupError))
        assert "on purpose" in str(error)


@pytest.mark.parametrize("way", ["sys.exit", "exception"])
def test_what_goes_wrong_while_an_argument_is_pickled_is_raised_at_spawn(way: str) -> None:
    with pytest.raises((mars.errors.EncodeError, SystemExit)) as caught:
        mr.spawn(len, args=([Pickles(WAYS[way])],))
    if way == "exception":
        assert "on purpose" in str(caught.value)


@pytest.mark.parametrize("way", ["sys.exit", "exception"])
def test_what_goes_wrong_while_the_result_is_unpickled_is_raised_at_fetch(way: str) -> None:
    call = mr.spawn(Unpickles, args=(WAYS[way],), idempotent=False).execute()
    with pytest.raises((LookupError, SystemExit, MarsError)):
        call.fetch()
    # A second call that reads it fails by itself, in its worker.
    reader = mr.spawn(id, args=(call,), idempotent=False)
    assert_own(attempt(reader, way), way)


@pytest.mark.parametrize("way", ["os._exit", "crash"])
@pytest.mark.parametrize("moment", ["spawn", "fetch"])
def test_a_program_that_a_pickle_ends_leaves_nothing(
    way: str, moment: str, program: Callable[..., object]
) -> None:
    """Its own pickles run in the program itself: it ends, and takes everything with it."""
    one = program(
        f"""
import ctypes, os
import mars, mars.remote as mr
class Unpickles:
    def __reduce__(self):
        return (os._exit, (9,)) if {way!r} == "os._exit" else (ctypes.string_at, (0,))
class Pickles:
    def __reduce__(self):
        os._exit(9) if {way!r} == "os._exit" else ctypes.string_at(0)
mars.new_session(n_cpu=2)
mr.spawn(abs, args=(-1,)).execute()
if {moment!r} == "spawn":
    mr.spawn(len, args=([Pickles()],))
else:
    mr.spawn(Unpickles).execute().fetch()
"""
    )
    assert one.wait() == {"os._exit": 9, "crash": -11}[way]
    one.assert_nothing_left()
    assert one.errors() == ""


class Dies:
    """Fails when it is deleted."""

    def __del__(self) -> None:
        raise LookupError("in __del__")


def test_an_exception_in_del_is_in_the_log_and_harms_nothing() -> None:
    call = mr.spawn(lambda: [Dies() for _ in range(3)] and 7)
    assert call.execute().fetch() == 7
    assert str(call.fetch_log()).count("LookupError: in __del__") == 3


@pytest.mark.parametrize("way", ["sys.exit", "exception", "os._exit", "crash"])
def test_what_goes_wrong_in_setstate_is_the_calls_own_end(way: str) -> None:
    class Restored:
        def __init__(self, way: Callable[[], None]) -> None:
            self.way = way

        def __setstate__(self, state: dict[str, object]) -> None:
            state["way"]()  # type: ignore[operator]

    argument = Restored(WAYS[way])
    assert_own(attempt(mr.spawn(id, args=(argument,), idempotent=False), way), way)
