"""What a pickle holds of the program's code: names where names will do, else definitions."""

from __future__ import annotations

import collections
import datetime
import fractions
import functools
import importlib
import math
import os.path
import pickle
import random
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import cloudpickle
import pytest

from mars.attempt.codec import Keep
from mars.code import main_names, world
from mars.code.arriving import new_world
from mars.code.pickling import dumps, dumps_function, names_main

PREAMBLE = "import math, os, json\nfrom math import sqrt\nfrom os.path import join\nLIMIT = 7\n"

FUNCTIONS = {
    "arithmetic": ("def f(x): return x * x", (3,)),
    "all kinds of parameters": ("def f(a, /, b=2, *c, d, e=5, **g): return a, b, c, d, e, g", None),
    "defaults in tuples": ("def f(x, y=(1, ('a', b'b', None, ...))): return x, y", (3,)),
    "a module": ("def f(x): return math.floor(x)", (3.5,)),
    "a package": ("def f(x): return json.dumps(x)", ([1],)),
    "a module inside a package": ("import xml.dom.minidom\ndef f(): return xml.dom.minidom", ()),
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
    "a class inside": ("def f():\n    class A:\n        b = LIMIT\n    return A.b", ()),
    "a generator": ("def f(n): return list(up(n))\ndef up(n): yield from range(n)", (4,)),
    "a coroutine": ("async def f(x): return x", None),
    "annotations": (
        "def f(x: int, y: 's' = 1, *, z: list[int] | None = 1) -> tuple[int, ...]: 'What it does.'",
        (1,),
    ),
    "a lambda": ("f = lambda x: (x, LIMIT)", (1,)),
    "where it is": ("def f(): return __name__, __package__, __file__", ()),
    "a closure": ("def outer(n):\n    def add(x): return x + n\n    return add\nf = outer(1)", (2,)),  # noqa: E501
    "a closure over None": (
        "def outer(n):\n    def get(x): return n, x\n    return get\nf = outer(None)", (2,),
    ),
    "a closure that is not bound yet": (
        (
            "def outer():\n    def get(): return later\n    def f(): return get\n    f()\n"
            "    later = 3\n    return get\nf = outer()"
        ),
        (),
    ),
    "a list": ("seen = []\ndef f(x): return [*seen, x]", (1,)),
    "attributes": ("def f(): return f.n\nf.n = 1", ()),
    "large text": ("text = 'x' * (1 << 20)\ndef f(): return len(text)", ()),
    "a class": ("class A:\n    b = 2\ndef f(): return A().b", ()),
    "a partial": ("import functools\nf = functools.partial(max, 1)", (3,)),
    "a cached function": ("import functools\n@functools.cache\ndef f(x): return x", (1,)),
}  # fmt: skip


@pytest.fixture
def made() -> Callable[[str], Any]:
    """What a program that is a file of its own calls ``f``."""

    def make(text: str) -> Any:
        space = {"__name__": "__main__", "__package__": None, "__file__": "program.py"}
        exec(compile(PREAMBLE + text, "program.py", "exec", dont_inherit=True), space)
        return space["f"]

    return make


def copied(value: Any) -> Any:
    """As it comes out in a worker."""
    data, _ = dumps_function(value, Keep())
    assert b"cloudpickle" not in data
    with world.visiting(new_world()):
        return pickle.loads(data)


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_function_arrives_as_it_is(what: str, made: Callable[[str], Any]) -> None:
    text, args = FUNCTIONS[what]
    func = made(text)
    here = copied(func)
    assert type(here) is type(func)
    if type(func) is FunctionType:
        assert here.__globals__ is not func.__globals__
        for name in (
            "__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__",
            "__annotations__", "__dict__",
        ):  # fmt: skip
            assert getattr(here, name) == getattr(func, name), name
        assert here.__code__ == func.__code__
        assert here.__code__.co_filename == "program.py"
        assert list(here.__code__.co_positions()) == list(func.__code__.co_positions())
    if args is not None:
        assert here(*args) == func(*args)


def test_functions_that_call_each_other_stay_one_group(made: Callable[[str], Any]) -> None:
    copy = copied(made("def f(n): return g, n\ndef g(): return f"))
    assert copy(1)[0]() is copy
    assert copy.__globals__ is copy(1)[0].__globals__


def test_variables_that_closures_share_stay_shared(made: Callable[[str], Any]) -> None:
    pair = made(
        "def outer():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n"
        "    def get(): return n\n    return up, get\nup, get = outer()\n"
        "def f():\n    up()\n    return get()"
    )
    assert copied(pair)() == 1


def test_the_same_function_has_the_same_pickle(made: Callable[[str], Any]) -> None:
    func = made("def f(x):\n    return sorted({x, LIMIT, 'text', 1.5, 10**30}, key=str)")
    first, _ = dumps_function(func, Keep())
    held = [func.__code__, *func.__code__.co_consts, *func.__code__.co_names]  # more references
    assert dumps_function(func, Keep())[0] == first
    assert held


def test_many_helpers_and_a_long_chain_of_them_travel(made: Callable[[str], Any]) -> None:
    lines = [f"def f{i}(x): return f{i + 1}(x) if x < 0 else {i}" for i in range(3000)]
    copy = copied(made("\n".join([*lines, "def f3000(x): return f0(x)", "f = f0"])))
    assert copy(1) == 0 and copy.__globals__["f2999"](1) == 2999


@pytest.mark.parametrize("func", [abs, math.sqrt, os.path.join, int, random.Random, FunctionType])
def test_what_is_installed_travels_by_name(func: object) -> None:
    data, _ = dumps_function(func, Keep())
    assert pickle.loads(data) is func
    assert len(data) < 150


class Pair(NamedTuple):
    one: int
    two: int


def test_values_of_installed_classes_are_pickled_as_they_are(made: Callable[[str], Any]) -> None:
    values = [
        datetime.date(2020, 1, 1), fractions.Fraction(1, 3), collections.OrderedDict(a=1),
        [abs, math.sqrt, os.path.join, int, datetime.date], collections.Counter("no such file"),
        functools.partial(max, 1), uuid.UUID(int=5), type(None), ..., random.Random(3),
    ]  # fmt: skip
    for value in values:
        data = dumps(value, Keep())
        assert data == pickle.dumps(value, 5)


def test_a_value_of_a_class_of_the_program_comes_back_as_that_class() -> None:
    project = Pair(1, 2)  # of this file, which pytest has rewritten
    back = pickle.loads(dumps(project, Keep()))
    assert back == project and type(back) is Pair


def test_large_buffers_of_plain_values_stay_apart() -> None:
    numpy = pytest.importorskip("numpy")
    keep, array = Keep(), numpy.arange(100_000)
    data = dumps([array, numpy.float64(2)], keep)
    assert len(data) < 1000
    (buffer,) = keep.buffers
    back, _ = pickle.loads(data, buffers=[buffer])
    assert (back == array).all()


def test_a_program_of_functions_and_classes_needs_no_cloudpickle(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, mars.remote as mr, mars\n"
        "class Box:\n"
        "    @property\n"
        "    def value(self): return 3\n"
        "def f(box): return box.value, 'cloudpickle' in sys.modules\n"
        "with mars.new_session(n_cpu=1): print(mr.spawn(f, (Box(),)).to_object())\n"
        "print('cloudpickle' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.splitlines() == ["(3, False)", "False"]


# -- which way a module travels -------------------------------------------------------------------


def imported(folder: Path, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def by_name(module: ModuleType) -> bool:
    from mars.code.modules import record_of

    record = record_of(module.__name__)
    assert record is not None
    return record.by_name


def test_a_module_whose_file_is_as_it_was_travels_by_name(project: Path) -> None:
    assert by_name(imported(project, "own_same", "def f(): return 1\n"))


def test_a_module_whose_file_was_edited_travels_by_value(project: Path) -> None:
    own = imported(project, "own_changed", "def f(): return 1\n")
    (project / "own_changed.py").write_text("def f(): return 22\n")
    assert not by_name(own)


def test_a_module_that_was_seen_before_its_file_was_edited_travels_by_name(project: Path) -> None:
    own = imported(project, "own_seen", "def f(): return 1\n")
    assert by_name(own)
    (project / "own_seen.py").write_text("def f(): return 22\n")
    assert by_name(own)  # its text is known


def test_a_module_that_takes_from_one_by_value_travels_by_value(project: Path) -> None:
    below = imported(project, "own_below", "class Base: pass\n")
    above = imported(project, "own_above", "from own_below import Base\nclass Sub(Base): pass\n")
    (project / "own_below.py").write_text("class Base:\n    def more(self): pass\n")
    assert by_name(below)  # nothing that was there has changed
    below.Base.more = lambda self: 1  # type: ignore[attr-defined]
    (project / "own_edited_below.py").write_text("def f(): return 1\n")
    edited = importlib.import_module("own_edited_below")
    taker = imported(project, "own_taker", "from own_edited_below import f\n")
    (project / "own_edited_below.py").write_text("def f(): return 22\n")
    assert not by_name(edited) and not by_name(taker) and by_name(above)


def test_a_module_that_is_being_imported_travels_by_value(project: Path) -> None:
    text = (
        "from mars.code.modules import record_of\ndef f(): return 1\n"
        "seen = record_of(__name__).by_name\n"
    )
    own = imported(project, "own_running", text)
    assert own.seen is False
    assert not by_name(own)  # and so it stays: its import asks for calls


def test_what_the_program_registered_with_cloudpickle_travels_by_value(project: Path) -> None:
    import cloudpickle

    own = imported(project, "own_registered", "def f(): return 1\n")
    assert by_name(own)
    cloudpickle.register_pickle_by_value(own)
    try:
        assert not by_name(own)
    finally:
        cloudpickle.unregister_pickle_by_value(own)
    assert by_name(own)


def test_a_module_without_a_file_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("own_made")
    exec("def f(): return g()\ndef g(): return 5", own.__dict__)
    monkeypatch.setitem(sys.modules, "own_made", own)
    data, _ = dumps_function(own.f, Keep())
    monkeypatch.delitem(sys.modules, "own_made")
    with world.visiting(new_world()):
        assert pickle.loads(data)() == 5


@pytest.mark.parametrize("text", ["__main__", b"__main__", ["__main__", "x", "__main__"]])
def test_a_text_is_no_name_in_main(text: object) -> None:
    assert not names_main(pickle.dumps((text, datetime.date, text), 5))


def test_a_text_beside_objects_of_all_kinds_is_no_name_in_main() -> None:
    made = type("Made", (), {"__module__": "__main__"})  # a class that the pickle makes by a call
    value = [
        datetime.date(2000, 1, 1), functools.partial(int, "7", base=8), {("__main__", 1): {2}},
        collections.OrderedDict(a=[1]), ValueError("__main__"), bytearray(b"__main__"),
    ]  # fmt: skip
    data = pickle.dumps([value, value], 5)
    assert not main_names.names_main(data)
    assert not main_names.by_operations(data)
    made_by_a_call = cloudpickle.dumps(["__main__", made(), value], 5)
    assert main_names.names_main(made_by_a_call) == main_names.by_operations(made_by_a_call)


def test_a_name_in_main_is_seen_also_where_its_texts_stood_before() -> None:
    class Said:
        def __reduce__(self) -> str:
            return "said"

    main: Any = sys.modules["__main__"]
    main.said = said = Said()
    Said.__module__ = "__main__"
    try:
        assert names_main(pickle.dumps(said, 5))
        assert names_main(pickle.dumps(["__main__", "said", datetime.date, said], 5))
    finally:
        del main.said
