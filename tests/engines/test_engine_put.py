"""`put`: a value that is stored once, and that calls read without any call having made it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.errors import EncodeError, SessionClosed


def total(array: np.ndarray, plus: int = 0) -> int:
    return int(array.sum()) + plus


def test_calls_and_runs_share_what_was_put() -> None:
    array = np.ones(300_000)
    held = mr.put(array)
    array[:] = 7  # it was taken as it was
    assert mr.map(total, [held] * 3, range(3)).execute().fetch() == [300_000, 300_001, 300_002]
    assert mr.spawn(lambda found: total(*found["deep"]), ({"deep": [held]},)).to_object() == 300_000
    assert total(held.fetch()) == 300_000
    assert held.execute() is held
    assert held.to_object().shape == (300_000,)


def test_each_call_may_change_its_own_value() -> None:
    def change(array: np.ndarray) -> int:
        array += 1
        return total(array)

    held = mr.put(np.zeros(200_000))
    calls = [mr.spawn(change, (held,)) for _ in range(3)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [200_000] * 3
    assert total(held.fetch()) == 0


def test_what_was_put_has_no_log_no_error_and_no_attempt(session: mars.Session) -> None:
    held = session.put("small")
    assert str(held.fetch_log()) == ""
    assert held.errors() == [None]
    assert held.attempts() == []
    assert held.fetch() == "small"


def test_functions_and_objects_of_the_program_can_be_put() -> None:
    class Model:
        factor = 3

        def apply(self, x: int) -> int:
            return self.factor * x

    model = mars.put(Model())
    function = mars.put(lambda x: total(np.full(2, x)))
    assert mr.spawn(lambda model, f: model.apply(f(2)), (model, function)).to_object() == 12
    assert type(model.fetch()) is Model


def test_a_call_can_put_a_value_for_its_own_calls() -> None:
    def outer() -> tuple[list[int], int]:
        held = mr.put(np.arange(100_000))
        one = mr.map(lambda array, at: int(array[at]), [held] * 3, range(3)).execute().fetch()
        two = mr.spawn(lambda array: int(array[-1]), (held,)).execute().fetch()
        return one, two + len(held.fetch())

    assert mr.spawn(outer).to_object() == ([0, 1, 2], 199_999)


def test_what_does_not_pickle_is_named() -> None:
    with pytest.raises(EncodeError, match=r"the value\[1\]\['lock'\]: _thread.lock of put\(\)"):
        mr.put([1, {"lock": threading.Lock()}])
    with pytest.raises(EncodeError, match=r"the value\[0\]: mars.remote.Object of put\(\)"):
        mr.put([mr.put(1)])
    with pytest.raises(TypeError, match="session has to be a Session"):
        mr.put(1, session="default")  # type: ignore[arg-type]


def test_another_session_gets_a_copy_as_long_as_the_first_is_open(session: mars.Session) -> None:
    with mars.new_session(engine="inline", default=False) as other:
        held = other.put(np.ones(50_000))
        call = mr.spawn(total, (held,))
        assert call.execute(session=session).fetch(session) == 50_000
        late = other.put(1)
    assert total(held.fetch(session)) == 50_000
    with pytest.raises(SessionClosed, match=r"session\.put\(value\)"):
        mr.spawn(total, (late,)).execute(session=session)


def test_memory_is_given_back_with_the_last_handle(
    session: mars.Session, engine: str, wait_until: Callable[..., None]
) -> None:
    if engine == "inline":
        pytest.skip("inline keeps values in its own tasks, which end with their objects")
    store = session.engine.store  # type: ignore[attr-defined]
    gc.collect()

    def regions() -> int:
        return len(store._regions)

    wait_until(lambda: regions() == 0)
    held = mr.put(np.ones(400_000))
    assert regions() == 1
    calls = [mr.spawn(total, (held,)) for _ in range(4)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [400_000] * 4
    assert regions() == 1
    del held
    assert calls[0].fetch() == 400_000
    wait_until(lambda: regions() == 0)
