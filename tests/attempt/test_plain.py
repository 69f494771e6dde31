"""Plain functions travel without cloudpickle, and arrive as with it; all others are left to it."""

from __future__ import annotations

import collections
import datetime
import fractions
import functools
import math
import os.path
import pickle
import random
import sys
import uuid
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import cloudpickle
import pytest

from mars.attempt import code, plain
from mars.attempt.codec import Keep

PREAMBLE = "import math, os, json\nfrom math import sqrt\nfrom os.path import join\nLIMIT = 7\n"

PLAIN = {
    "arithmetic": ("def f(x): return x * x", (3,)),
    "all kinds of parameters": ("def f(a, /, b=2, *c, d, e=5, **g): return a, b, c, d, e, g", None),
    "defaults in tuples": ("def f(x, y=(1, ('a', b'b', None, ...))): return x, y", (3,)),
    "a module": ("def f(x): return math.floor(x)", (3.5,)),
    "what a module defines": ("def f(x): return join(str(sqrt(x)), 'b')", (4,)),
    "a constant": ("def f(x): return min(x, LIMIT)", (9,)),
    "a changed constant": ("def f(x):\n    global LIMIT\n    LIMIT = x\n    return LIMIT", (9,)),
    "itself": ("def f(n): return 1 if n < 2 else n * f(n - 1)", (5,)),
    "each other": (
        "def f(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and f(n - 1)",
        (8,),
    ),
    "functions inside": (
        "def f(x):\n    def g(y): return x + y\n    return [g(1), (lambda: x)()]",
        (2,),
    ),
    "a generator": ("def f(n): return list(up(n))\ndef up(n): yield from range(n)", (4,)),
    "a coroutine": ("async def f(x): return x", None),
    "annotations": (
        "def f(x: int, y: 's' = 1, *, z: list[int] | None = 1) -> tuple[int, ...]: 'What it does.'",
        (1,),
    ),
    "a lambda": ("f = lambda x: (x, LIMIT)", (1,)),
    "a name that is also an attribute": ("def f(x): return x.LIMIT if x else sqrt(x)", (0,)),
    "where it is": ("def f(): return __name__, __package__, __file__", ()),
}  # fmt: skip

NOT_PLAIN = {
    "a closure": "def outer(n):\n    def add(x): return x + n\n    return add\nf = outer(1)",
    "a class of the program": "class A: pass\ndef f(): return A()",
    "an instance": "class A: pass\na = A()\ndef f(): return a",
    "a list": "seen = []\ndef f(x): seen.append(x); return seen",
    "a dict": "known = {}\ndef f(x): return known",
    "a list by default": "def f(x=[]): return x",
    "attributes": "def f(): return f.n\nf.n = 1",
    "a package": "def f(x): return json.dumps(x)",
    "a module of the program": "import ours\ndef f(): return ours",
    "a helper that is not plain": "seen = []\ndef f(): return g()\ndef g(): return seen",
    "a helper of another namespace": "from ours import helper\ndef f(): return helper()",
    "a bound method": "f = 'a'.join",
    "a callable object": "class A:\n    def __call__(self): pass\nf = A()",
    "a partial": "import functools\nf = functools.partial(max, 1)",
    "a cached function": "import functools\n@functools.cache\ndef f(x): return x",
    "a state": "import random\ndraw = random.random\ndef f(): return draw()",
    "what raises when it is asked for its class": (
        "class A:\n    @property\n    def __class__(self): raise RuntimeError\n"
        "a = A()\ndef f(): return a"
    ),
    "large text": "text = 'x' * (1 << 20)\ndef f(): return text",
    "an annotation of the program": "class A: pass\ndef f(x: A): return x",
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[[str], Any]:
    """What a program that is a file of its own calls ``f``."""
    (tmp_path / "ours.py").write_text("def helper(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    monkeypatch.setattr(cloudpickle, "list_registry_pickle_by_value", set)  # as in a fresh process

    def make(text: str) -> Any:
        space = {"__name__": "__main__", "__package__": None, "__file__": "program.py"}
        exec(compile(PREAMBLE + text, "program.py", "exec", dont_inherit=True), space)
        return space["f"]

    return make


def by_cloudpickle(func: object) -> Any:
    data = code.dumps(func, Keep())
    assert b"cloudpickle" in data
    return pickle.loads(data)


@pytest.mark.parametrize("what", PLAIN)
def test_a_plain_function_arrives_as_with_cloudpickle(
    what: str, made: Callable[[str], Any]
) -> None:
    text, args = PLAIN[what]
    func = made(text)
    data = plain.dumps_function(func)
    assert data is not None
    assert b"cloudpickle" not in data
    here, there = pickle.loads(data), by_cloudpickle(func)
    assert here.__globals__ is not func.__globals__
    for one in (here, there):
        assert type(one) is FunctionType
        for name in (
            "__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__",
            "__annotations__", "__dict__", "__closure__",
        ):  # fmt: skip
            assert getattr(one, name) == getattr(func, name), name
        assert one.__code__ == func.__code__
        assert one.__code__.co_filename == "program.py"
        assert list(one.__code__.co_positions()) == list(func.__code__.co_positions())
    needed = {name for name in there.__globals__ if name != "__builtins__"}
    assert needed <= set(here.__globals__)
    for name in needed:
        if not isinstance(there.__globals__[name], FunctionType):
            assert here.__globals__[name] == there.__globals__[name], name
    if args is not None:
        assert here(*args) == there(*args) == func(*args)


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_it_is_not_plain_that_a_function_reaches(what: str, made: Callable[[str], Any]) -> None:
    assert plain.dumps_function(made(NOT_PLAIN[what])) is None


@pytest.mark.parametrize("func", [abs, math.sqrt, os.path.join, int, random.Random, FunctionType])
def test_what_is_installed_travels_by_name(func: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudpickle, "list_registry_pickle_by_value", set)
    data = plain.dumps_function(func)
    if func is FunctionType:  # in the module that it names it is not found
        assert data is None
    else:
        assert data is not None and pickle.loads(data) is func


def test_functions_that_call_each_other_stay_one_group(made: Callable[[str], Any]) -> None:
    func = made("def f(n): return g, n\ndef g(): return f")
    data = plain.dumps_function(func)
    assert data is not None
    copy = pickle.loads(data)
    assert copy(1)[0]() is copy
    assert copy.__globals__ is copy(1)[0].__globals__


def test_the_same_function_has_the_same_pickle(made: Callable[[str], Any]) -> None:
    func = made("def f(x):\n    return sorted({x, LIMIT, 'text', 1.5, 10**30}, key=str)")
    first = plain.dumps_function(func)
    held = [func.__code__, *func.__code__.co_consts, *func.__code__.co_names]  # more references
    assert plain.dumps_function(func) == first is not None
    assert held


def test_what_the_program_registered_by_value_is_left_to_cloudpickle() -> None:
    module = ModuleType("registered_by_a_test")
    exec("def f(): return 1", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        assert plain.dumps_function(module.f) is not None
        cloudpickle.register_pickle_by_value(module)
        assert plain.dumps_function(module.f) is None
        cloudpickle.unregister_pickle_by_value(module)
    finally:
        del sys.modules[module.__name__]


def test_many_helpers_and_a_long_chain_of_them_travel(made: Callable[[str], Any]) -> None:
    lines = [f"def f{i}(x): return f{i + 1}(x) if x < 0 else {i}" for i in range(3000)]
    func = made("\n".join([*lines, "def f3000(x): return f0(x)", "f = f0"]))
    data = plain.dumps_function(func)
    assert data is not None
    copy = pickle.loads(data)
    assert copy(1) == 0 and copy.__globals__["f2999"](1) == 2999


class Pair(NamedTuple):
    one: int
    two: int


def test_values_of_installed_classes_are_pickled_without_cloudpickle(
    made: Callable[[str], Any],
) -> None:
    values = [
        datetime.date(2020, 1, 1), fractions.Fraction(1, 3), collections.OrderedDict(a=1),
        [abs, math.sqrt, os.path.join, int, datetime.date], OSError(2, "no such file"),
        functools.partial(max, 1), uuid.UUID(int=5),
    ]  # fmt: skip
    for value in values:
        data = code.dumps(value, Keep())
        assert b"cloudpickle" not in data and data == pickle.dumps(value, 5)
        assert repr(pickle.loads(data)) == repr(value)


def test_values_of_the_program_s_classes_are_pickled_by_value(made: Callable[[str], Any]) -> None:
    for text in (
        "class A: pass\nf = A()", "class A: pass\nf = [1, {'a': A}]",
        "import functools\n@functools.cache\ndef f(x): return x", "def f(x): return x",
        "class A(Exception): pass\nf = A(1)",
        "import collections, datetime\nf = collections.defaultdict(lambda: datetime.date)",
    ):  # fmt: skip
        assert plain.dumps_value(made(text), Keep()) is None
        assert b"cloudpickle" in code.dumps(made(text), Keep())
    project = Pair(1, 2)  # of this file, which is no installed module
    assert plain.dumps_value(project, Keep()) is None
    assert tuple(pickle.loads(code.dumps(project, Keep()))) == project


def test_large_buffers_of_plain_values_stay_apart() -> None:
    numpy = pytest.importorskip("numpy")
    keep, array = Keep(), numpy.arange(100_000)
    data = code.dumps([array, numpy.float64(2)], keep)
    assert b"cloudpickle" not in data and len(data) < 1000
    (buffer,) = keep.buffers
    back, _ = pickle.loads(data, buffers=[buffer])
    assert (back == array).all()


def test_a_cloudpickle_that_another_thread_imports_just_now_has_no_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", ModuleType("cloudpickle"))
    assert plain.dumps_function(math.floor) is not None
    assert plain.dumps_value([1, 2], Keep()) is not None
