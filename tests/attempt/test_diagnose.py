"""Messages that name the culprit, and calls in one line."""

from __future__ import annotations

import dataclasses
import functools
import sys
import threading
import time
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.attempt.diagnose import find_unpicklable, summarize_call
from mars.settings import PICKLE_LEVELS

LOCK = threading.Lock()
Pair = namedtuple("Pair", "left right")


class Model:
    def __init__(self, lock: object) -> None:
        self.weights = [1.0] * 5
        self.lock = lock

    def fit(self) -> None:
        pass


@dataclasses.dataclass
class Settings:
    name: str
    handle: object


class Slots:
    __slots__ = ("connection", "name")

    def __init__(self, connection: object) -> None:
        self.connection, self.name = connection, "x"


class Careful:
    """Leaves its lock out, but not its handle."""

    def __init__(self, handle: object) -> None:
        self.lock = threading.Lock()
        self.handle = handle

    def __getstate__(self) -> dict[str, object]:
        return {"handle": self.handle}


class Bad(Exception):
    pass


def closure(conn: object) -> Callable[[], object]:
    return lambda: conn


def with_global() -> object:
    def inner() -> object:
        return [LOCK for _ in range(3)]

    return inner


def with_default(a: int = 1, b: object = LOCK) -> None: ...


def by_value(function: object) -> object:
    """As if the function were in the user's __main__: pickled with all it holds."""
    function.__module__ = "__main__"  # type: ignore[attr-defined]
    return function


def found(value: object) -> str:
    answer = find_unpicklable(value, "args[0]", cloudpickle.dumps)
    assert answer is not None
    path, reason = answer
    assert "_thread.lock" in reason
    assert path.endswith(": _thread.lock")
    return path.removesuffix(": _thread.lock")


exception = Bad("x", LOCK)
exception.lock = LOCK  # type: ignore[attr-defined]
ring: list[object] = [1]
ring += [{"back": ring}, LOCK]
ring_inside: dict[str, object] = {}
ring_inside.update(me=ring_inside, deep=[[ring_inside], {"x": [ring_inside, LOCK]}])


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "args[0]"),
        ([1, (2, LOCK)], "args[0][1][1]"),
        ({"model": Model(LOCK)}, "args[0]['model'].lock"),
        ({1: {2: [LOCK]}}, "args[0][1][2][0]"),
        ({LOCK: 1}, f"args[0] key ({type(LOCK).__name__}(…))"),
        ({LOCK}, f"args[0] item ({type(LOCK).__name__}(…))"),
        (Pair(1, LOCK), "args[0].right"),
        (Settings("x", LOCK), "args[0].handle"),
        (Slots(LOCK), "args[0].connection"),
        (Careful(LOCK), "args[0].handle"),
        (functools.partial(print, 1, LOCK), "args[0].args[1]"),
        (functools.partial(print, end=LOCK), "args[0].keywords['end']"),
        (Model(LOCK).fit, "args[0].__self__.lock"),
        (closure(LOCK), "args[0] closure cell 'conn'"),
        (by_value(with_global()), "args[0] global 'LOCK'"),
        (by_value(with_default), "args[0] default of 'b'"),
        (exception, "args[0].args[1]"),
        (OrderedDict(a=LOCK), "args[0]['a']"),
        (defaultdict(list, a=LOCK), "args[0]['a']"),
        (ring, "args[0][2]"),
        (ring_inside, "args[0]['deep'][1]['x'][1]"),
        ([[0] * 50_000, LOCK, [0] * 50_000], "args[0][1]"),
    ],
)
def test_path_leads_to_the_innermost_culprit(value: object, path: str) -> None:
    assert found(value) == path


def test_path_into_an_object_array() -> None:
    np = pytest.importorskip("numpy")
    array = np.empty((5, 2), dtype=object)
    array[3, 1] = LOCK
    assert found(array) == "args[0][3, 1]"
    assert found(array[:, 1]) == "args[0][3]"


def test_what_pickles_has_no_culprit() -> None:
    assert find_unpicklable([1, {"a": Model(None)}], "args[0]", cloudpickle.dumps) is None


def test_generator_and_its_reason() -> None:
    answer = find_unpicklable({"rows": (x for x in [])}, "kwargs['data']", cloudpickle.dumps)
    assert answer is not None
    assert answer[0] == "kwargs['data']['rows']: generator"
    assert "generator" in answer[1]


def test_one_bad_item_in_a_million_is_found_quickly() -> None:
    items: list[object] = [(i,) for i in range(1_000_000)]
    items[765_432] = (LOCK,)
    calls = 0

    def dumps(value: object) -> None:
        nonlocal calls
        calls += 1
        # Stands in for pickle, which would take a second over this list.
        if value is LOCK or (isinstance(value, tuple) and LOCK in value):
            raise TypeError("cannot pickle '_thread.lock' object")
        if isinstance(value, list) and any(LOCK in item for item in value if item is not LOCK):
            raise TypeError("cannot pickle '_thread.lock' object")

    assert find_unpicklable(items, "x", dumps) == (
        "x[765432][0]: _thread.lock",
        "cannot pickle '_thread.lock' object",
    )
    assert calls < 100


def test_too_deep_a_value_is_said_to_be_so() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    answer = find_unpicklable(deep, "args[0]", cloudpickle.dumps)
    assert answer is not None
    assert answer[0] == "args[0]: list"
    while deep:  # or the interpreter's own clean-up recurses
        deep = deep.pop()  # type: ignore[assignment]


class Hostile:
    def __init__(self, answer: type[BaseException]) -> None:
        self.__dict__["answer"] = answer

    def __reduce_ex__(self, protocol: object) -> str:
        raise self.__dict__["answer"]("no")

    def __repr__(self) -> str:
        raise self.__dict__["answer"]("no")

    def __getattr__(self, name: str) -> object:
        raise self.__dict__["answer"]("no")

    __str__ = __repr__


hostile = st.sampled_from([RuntimeError, SystemExit, RecursionError, KeyboardInterrupt]).map(
    Hostile
)
values = st.recursive(
    st.none() | st.text() | st.integers() | hostile | st.just(LOCK) | st.builds(Model, st.none()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=4)
        | inner.map(Model)
        | inner.map(closure)
        | inner.map(lambda value: functools.partial(print, value, key=value))
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_whatever_fails_to_pickle_has_a_culprit_and_nothing_raises(value: object) -> None:
    try:
        cloudpickle.dumps(value)
        pickles = True
    except BaseException:  # noqa: BLE001
        pickles = False
    assert (find_unpicklable(value, "x", cloudpickle.dumps) is None) == pickles


# -- one line about a call --------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text(), st.lists(values), st.dictionaries(st.text(), values), st.integers(10, 200))
def test_summary_is_one_printable_line_within_its_limit(
    name: str, args: list[object], kwargs: dict[str, object], limit: int
) -> None:
    text = summarize_call(name, args, kwargs, limit)
    assert len(text) <= limit
    assert "\n" not in text
    assert text.endswith(")")


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "f()"),
        ((1, 2.5, None, True), {}, "f(1, 2.5, None, True)"),
        (("a",), {"depth": 3}, "f('a', depth=3)"),
        (([1, 2, 3, 4, 5],), {}, "f([1, 2, 3, ...])"),
        ((Counter("aab"), Path("a/b")), {}, "f(Counter(2 items), PosixPath('a/b'))"),
        ((Model(1), Model, Model(1).fit, len), {}, "f(Model(…), Model, Model.fit, len)"),
        ((10**60,), {}, "f(<int of 200 bits>)"),
        ((b"x" * 1000, range(10**9)), {}, "f(<1,000 bytes>, range(0, 1000000000))"),
        (("\x1b[31m\n",), {}, "f('\\x1b[31m\\n')"),
    ],
)
def test_summary_of_common_arguments(
    args: tuple[object, ...], kwargs: dict[str, object], text: str
) -> None:
    assert summarize_call("f", args, kwargs) == text


def test_summary_of_arrays_and_frames() -> None:
    np = pytest.importorskip("numpy")
    array = np.zeros((2000, 93))
    assert summarize_call("fit", (array,), {}) == "fit(array((2000, 93), float64))"
    assert (
        summarize_call("fit", (array[0, 0], [array]), {})
        == "fit(0.0, [array((2000, 93), float64)])"
    )

    class DataFrame:  # as pandas' and polars' look from outside
        shape = (5, 2)
        columns = ("a", "b")

    assert summarize_call("fit", (DataFrame(),), {"y": 1}) == "fit(DataFrame(5×2), y=1)"


def test_summary_is_quick_for_huge_arguments() -> None:
    asked = []

    class Slow:
        def __repr__(self) -> str:
            asked.append(self)
            return "slow"

    class MyList(list[int]):
        pass

    huge = [list(range(10**6)), "x" * 10**7, MyList(range(10**6)), Slow(), 7 ** (10**6)]
    start = time.process_time()  # the machine may be busy with something else
    summarize_call("f", huge, {"data": dict.fromkeys(range(10**5)), "set": set(range(10**5))})
    assert time.process_time() - start < 0.5
    assert not asked, "who knows how long that takes"


def test_importing_the_module_does_not_import_numpy() -> None:
    import subprocess

    program = "import sys, mars.attempt.diagnose; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# -- deep and long ------------------------------------------------------------------------------


def nested(depth: int, inner: object) -> object:
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize("value", [nested(5000, None), {"a": [nested(5000, None)]}])
def test_what_is_nested_too_deep_is_named_as_a_whole_with_the_limit(value: object) -> None:
    found = find_unpicklable(value, "result", cloudpickle.dumps)
    assert found is not None
    where, reason = found
    assert where == f"result: {type(value).__name__}"
    assert f"nested deeper than {PICKLE_LEVELS:,} levels" in reason


def test_the_middle_of_a_long_path_is_left_out() -> None:
    found = find_unpicklable(nested(35, {"lock": LOCK}), "result", cloudpickle.dumps)
    assert found is not None
    where, _ = found
    assert where.startswith("result[0][0][0]")
    assert "…" in where
    assert where.endswith("[0]['lock']: _thread.lock")
    assert len(where) < 120
