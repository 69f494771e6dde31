"""`@mars.remote`: a function that stays what it is, with methods that describe calls of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

import mars
import mars.remote as mr


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    opened = mars.new_session(n_cpu=2)
    yield opened
    opened.stop_server()


@mars.remote  # type: ignore[operator]
def double(x: int) -> int:
    """Twice as much."""
    return 2 * x


@mars.remote(cpus=1, name="the sum")  # type: ignore[operator]
def total(*values: int, start: int = 0) -> int:
    return sum(values, start)


@mr.RemoteFunction
def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by

    @mars.remote  # type: ignore[operator]
    def apply(self, x: int) -> int:
        return self.by * x


def test_it_is_the_function_when_it_is_called() -> None:
    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert repr(double) == "<remote function double>"


def test_spawn_map_and_run_make_calls_of_it() -> None:
    assert double.spawn(3).execute().fetch() == 6
    assert double.map([1, 2, 3]).execute().fetch() == [2, 4, 6]
    assert total.run(1, 2, start=3) == 6
    assert total.spawn(double.spawn(2), start=double.spawn(1)).execute().fetch() == 6


def test_its_options_hold_for_its_calls_and_can_be_replaced() -> None:
    assert total.spawn(1).name == "the sum"
    assert total.options(name="another").spawn(1).name == "another"
    assert total.spawn(1).name == "the sum"


def test_it_can_be_given_to_spawn_and_called_in_calls() -> None:
    assert mr.spawn(double, (4,)).execute().fetch() == 8
    assert mr.map(double, [1, 2]).execute().fetch() == [2, 4]
    assert mr.run(lambda: double(1) + double.run(2)) == 6
    assert factorial.run(5) == 120


def test_a_method_is_one_of_its_object() -> None:
    scale = Scale(3)
    assert scale.apply(2) == 6
    assert scale.apply.run(4) == 12
    assert scale.apply.map([1, 2]).execute().fetch() == [3, 6]


def test_it_pickles_as_what_it_is() -> None:
    again = pickle.loads(pickle.dumps(mr.RemoteFunction(abs, name="absolute")))
    assert again(-1) == 1
    assert again.spawn(-1).name == "absolute"


def test_wrong_options_are_refused_where_the_function_is_decorated() -> None:
    with pytest.raises(ValueError, match="Unexpected kw: cpu"):
        mars.remote(cpu=2)(abs)  # type: ignore[operator]
    with pytest.raises(TypeError, match="func has to be callable"):
        mars.remote(3)  # type: ignore[operator]


def test_import_mars_alone_is_enough() -> None:
    assert mars.run(max, 3, -5, key=abs) == -5
    assert mars.spawn(abs, args=(-1,)).execute().fetch() == 1
    assert mars.map(abs, [-1, -2]).execute().fetch() == [1, 2]
    assert mars.remote is mr


def test_the_module_has_what_people_look_for_there() -> None:
    assert (mr.execute, mr.fetch, mr.new_session) == (mars.execute, mars.fetch, mars.new_session)
    assert mr.fetch(mr.execute(mr.spawn(abs, -1))) == 1


@pytest.mark.parametrize("module", [mars, mr])
def test_only_public_names_are_offered(module: object) -> None:
    names = dir(module)
    assert {"spawn", "map", "run", "execute", "fetch", "new_session"} <= set(names)
    assert not [one for one in names if one.startswith("_") and one != "__version__"]
    assert not {"Any", "os", "TYPE_CHECKING", "annotations", "sys", "atexit", "codec"} & set(names)
    assert all(hasattr(module, one) for one in names)
