"""What a new kind of handle gets from `Executable` when it provides its parts and its shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mars
import mars.remote as mr


class Calls(dict[str, Any], mr.Executable[dict[str, Any]]):
    """A dict of calls, as the docstring of `Executable` shows it."""

    def _parts(self) -> list[Any]:
        return list(self.values())

    def _shaped(self, values: list[Any]) -> dict[str, Any]:
        return dict(zip(self, values, strict=True))


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.Session]:
    opened = mars.new_session(engine="inline")
    yield opened
    opened.stop_server()


def fail() -> None:
    raise LookupError("nothing is there")


def test_a_dict_of_calls_is_executed_and_fetched_under_its_keys() -> None:
    calls = Calls(one=mr.spawn(abs, -1), two=mr.spawn(abs, -2), items=mr.map(abs, [-3, -4]))
    assert calls.execute() is calls
    assert calls.fetch() == {"one": 1, "two": 2, "items": [3, 4]}


def test_to_object_of_a_new_kind_executes_it() -> None:
    assert Calls(one=mr.spawn(abs, -1)).to_object() == {"one": 1}


def test_a_future_of_a_new_kind_gives_it_back() -> None:
    calls = Calls(one=mr.spawn(abs, -1))
    assert calls.execute(wait=False).result(20) is calls
    assert calls.to_object(wait=False).result(20) == {"one": 1}


def test_errors_and_logs_of_a_new_kind_are_those_of_its_parts() -> None:
    calls = Calls(good=mr.spawn(print, "hello"), bad=mr.spawn(fail))
    calls.execute(on_error="continue")
    good, bad = calls.errors()
    assert good is None
    assert isinstance(bad, LookupError)
    assert str(calls.fetch_log()[0]) == "hello\n"


def test_a_new_kind_goes_with_others_in_one_execute() -> None:
    calls = Calls(one=mr.spawn(abs, -1))
    both = mars.execute(calls, mr.spawn(abs, -2))
    assert mars.fetch(*both) == [{"one": 1}, 2]
    together = mr.ExecutableTuple([calls, mr.spawn(abs, -3)])
    assert together.execute().fetch() == [{"one": 1}, 3]


def test_a_new_kind_that_was_not_executed_says_so() -> None:
    with pytest.raises(mars.errors.NotExecuted):
        Calls(one=mr.spawn(abs, -1)).fetch()


def test_the_errors_of_an_object_are_a_list_of_one() -> None:
    assert mr.spawn(abs, -1).execute().errors() == [None]
    (error,) = mr.spawn(fail).execute(on_error="continue").errors()
    assert isinstance(error, LookupError)


@pytest.mark.parametrize("kind", [mr.Object, mr.ExecutableTuple, mr.MapObjects, mr.Executable])
def test_handles_are_known_by_the_module_that_programs_import(kind: type) -> None:
    assert kind.__module__ == "mars.remote"
    assert getattr(mr, kind.__name__) is kind


def test_functions_are_known_by_the_module_that_programs_import() -> None:
    assert {mr.spawn.__module__, mr.map.__module__, mr.run_script.__module__} == {"mars.remote"}
    assert mars.new_session.__module__ == mars.Session.__module__ == "mars.session"
