"""What counts as the same call: in any process, with any hash seed, wherever the code stands."""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import mars.remote as mr
from mars.checkpoint import digests, module_code, walk
from mars.checkpoint.identity import Unidentified
from mars.checkpoint.walk import Arrays
from mars.code import pickling


def function_digest(func: Callable[..., Any]) -> str:
    """Of a function as it travels."""
    digests._codes.clear()
    return digests.code_of(mr.spawn(func)._call.function).digest.hex()


def value_digest(value: object) -> str:
    """Of an argument as it travels."""
    call = mr.spawn(len, args=(value,))._call
    return digests.arguments_of(call, Arrays())[0].hex()


def made(text: str, name: str = "f", file: str = "<cell>", **space: Any) -> Any:
    """A function out of its text, as a notebook's cell would define it."""
    namespace: dict[str, Any] = {"__name__": "__main__", **space}
    exec(compile(textwrap.dedent(text), file, "exec"), namespace)
    return namespace[name]


BASE = """
    LIMIT = 3
    NAMES = {"a", "b", "c"}

    def helper(x):
        return [y for y in range(x) if y in {"p", "q", "r"}] or x

    class Model:
        scale = 2
        def fit(self, x):
            return helper(x) * self.scale

    def f(x, y=1, *, z=2):
        total = Model().fit(x) + LIMIT + len(NAMES)
        return total + y + z
"""

UNCHANGED = {
    "a comment": ("total + y + z", "total + y + z  # the sum"),
    "an empty line": ("def f(", "\n\n    def f("),
    "a docstring of a helper": ("def helper(x):", 'def helper(x):\n        "It helps."'),
    "the docstring of a class": ("class Model:", 'class Model:\n        "A model."'),
    "a method's docstring": ("def fit(self, x):", 'def fit(self, x):\n            "Fit."'),
    "the order of methods": ("scale = 2", "scale = 2\n        "),
    "something that is not reached": ("LIMIT = 3", "LIMIT = 3\n    OTHER = 4"),
    "an annotation": ("def helper(x):", "def helper(x: int) -> int:"),
    "the layout": ("Model().fit(x) + LIMIT", "(Model()\n            .fit(x) +\n            LIMIT)"),
}

CHANGED = {
    "a constant": ("total + y + z", "total + y + z + 1"),
    "an operator": ("total + y + z", "total + y - z"),
    "a default": ("y=1", "y=2"),
    "a keyword's default": ("z=2", "z=3"),
    "a global": ("LIMIT = 3", "LIMIT = 4"),
    "the type of a global": ("LIMIT = 3", "LIMIT = 3.0"),
    "a set": ('{"a", "b", "c"}', '{"a", "b", "d"}'),
    "a set in the code": ('{"p", "q", "r"}', '{"p", "q", "s"}'),
    "a helper": ("or x", "or -x"),
    "an attribute of a class": ("scale = 2", "scale = 5"),
    "a method": ("* self.scale", "+ self.scale"),
    "a base class": ("class Model:", "class Model(dict):"),
    "a parameter's name": ("def helper(x):", "def helper(x, w=0):"),
    "which global": ("+ LIMIT", "+ len(str(LIMIT))"),
    "an exception's handler": (
        "return total + y + z",
        "try:\n            return total + y + z\n        except ValueError:\n            return 0",
    ),
}


@pytest.mark.parametrize("change", UNCHANGED)
def test_a_function_is_the_same_after_a_change_of(change: str) -> None:
    old, new = UNCHANGED[change]
    assert BASE.count(old) == 1
    before = function_digest(made(BASE))
    assert function_digest(made(BASE.replace(old, new))) == before
    assert function_digest(made("\n\n\n" + BASE, file="/elsewhere/train.py")) == before


@pytest.mark.parametrize("change", CHANGED)
def test_a_function_is_another_after_a_change_of(change: str) -> None:
    old, new = CHANGED[change]
    assert BASE.count(old) == 1
    assert function_digest(made(BASE.replace(old, new))) != function_digest(made(BASE))


def test_closures_partials_methods_and_caches_are_their_content() -> None:
    def adder(n: int) -> Callable[[int], int]:
        def add(x: int) -> int:
            return x + n

        return add

    assert function_digest(adder(1)) == function_digest(adder(1))
    assert function_digest(adder(1)) != function_digest(adder(2))
    one, two = functools.partial(adder, 1), functools.partial(adder, 2)
    assert function_digest(one) == function_digest(functools.partial(adder, 1))
    assert function_digest(one) != function_digest(two)
    cached = [
        made(f"import functools\n@functools.lru_cache\ndef f(x): return x + {n}") for n in (1, 1, 2)
    ]
    assert function_digest(cached[0]) == function_digest(cached[1]) != function_digest(cached[2])
    method = [made(f"class M:\n    def run(self): return {n}\nf = M().run") for n in (1, 1, 2)]
    assert function_digest(method[0]) == function_digest(method[1]) != function_digest(method[2])
    state = [
        made("class M:\n    def run(self): return self.n\nf = M()\nf.n = N\nf = f.run", N=n)
        for n in (1, 1, 2)
    ]
    assert function_digest(state[0]) == function_digest(state[1]) != function_digest(state[2])


def test_functions_that_call_each_other_have_an_identity_each() -> None:
    text = """
        def f(n): return n and g(n - 1)
        def g(n): return n and h(n - 1) + f(0)
        def h(n): return n and f(n - 1) + {}
    """
    one, same, other = (made(text.format(n)) for n in (1, 1, 2))
    assert function_digest(one) == function_digest(same) != function_digest(other)
    # In whatever order they are asked.
    names = [made(text.format(1), name) for name in ("h", "f", "g")]
    first = [function_digest(func) for func in names]
    again = [function_digest(made(text.format(1), name)) for name in ("g", "h", "f")]
    assert sorted(first) == sorted(again)
    assert len(set(first)) == 3


def test_an_identity_does_not_depend_on_how_the_function_travelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = (
        "def f(x: int, y=(1, 'a'), *, z: str = 'b'): return x",
        "import math\nLIMIT = 3\ndef f(x): return math.floor(g(x)) + LIMIT\ndef g(x): return f(x)",
        "import math\nfrom os.path import join\ndef f(x): return join, x.math, x.join",
    )
    for text in texts:
        quickly = made(text)
        with_cloudpickle = made(text)
        here = function_digest(quickly)
        with monkeypatch.context() as patch:
            patch.setattr(pickling, "_Quick", pickling._full())
            assert function_digest(with_cloudpickle) == here


def test_a_recursive_closure_ends() -> None:
    def outer(n: int) -> Callable[[int], int]:
        def inner(x: int) -> int:
            return inner(x - 1) if x else n

        return inner

    assert function_digest(outer(1)) == function_digest(outer(1)) != function_digest(outer(2))


@pytest.mark.parametrize("how", ["late", "early"])
def test_what_a_module_was_at_spawn_counts_and_not_what_its_file_is_now(
    project: Any, how: str, tmp_path: Path
) -> None:
    main = "def f(x):\n    from helpers import fit\n    return fit(x)\n"
    if how == "early":
        main = "import helpers\nfrom helpers import fit\ndef f(x): return fit(x)\n"
    func = project(main, helpers="def fit(x): return 2 * x\n")
    function = mr.spawn(func)._call.function
    before = digests.code_of(function).digest
    (tmp_path / "helpers.py").write_text("def fit(x): return 3 * x\n")
    digests.look_again()
    digests._codes.clear()
    assert digests.code_of(function).digest == before


def test_a_version_of_an_installed_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    func = made("import numpy as np\ndef f(x): return np.sum(x)")
    before = function_digest(func)
    monkeypatch.setattr(walk, "_version", lambda top: "9.9" if top == "numpy" else None)
    assert function_digest(func) != before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """``project(text)`` gives function f of a module of the project with that text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(main: str, **files: str) -> Any:
        for name in [*files, "deeper", "main_of_test"]:
            sys.modules.pop(name, None)
        module_code._of_files.clear()
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        (tmp_path / "main_of_test.py").write_text(textwrap.dedent(main))
        import importlib

        importlib.invalidate_caches()
        return importlib.import_module("main_of_test").f

    return load


@pytest.mark.parametrize("how", ["helpers.fit(x)", "fit(x)", "late"])
def test_modules_of_the_project_count_as_far_as_they_are_reached(project: Any, how: str) -> None:
    if how == "late":
        main = "def f(x):\n    from helpers import fit\n    return fit(x)\n"
    else:
        main = f"import helpers\nfrom helpers import fit\ndef f(x): return {how}\n"
    helpers = "import deeper\ndef fit(x): return deeper.twice(x)\n"
    deeper = "# version 1\ndef twice(x): return 2 * x\n"
    before = function_digest(project(main, helpers=helpers, deeper=deeper))
    same = project(main, helpers=f"\n# moved\n{helpers}", deeper="\n\n" + deeper)
    assert function_digest(same) == before
    changed = project(main, helpers=helpers, deeper=deeper.replace("2 * x", "3 * x"))
    assert function_digest(changed) != before
    changed = project(main, helpers=helpers.replace("(x)\n", "(x) + 1\n"), deeper=deeper)
    assert function_digest(changed) != before
    if how != "late":  # an import in a function is of the module as a whole
        more = project(main, helpers=helpers + "def other(): return 1\n", deeper=deeper)
        assert function_digest(more) == before


def test_a_function_is_the_same_in_a_file_and_in_a_cell(project: Any) -> None:
    text = "LIMIT = (1, 2)\ndef f(x):\n    return x, LIMIT, (1, 2), lambda y: y + 1\n"
    assert function_digest(project(text)) == function_digest(made(text))


def _shuffled(value: Any, seed: int) -> Any:
    """An equal value with its sets made in another order, and none of its parts shared."""
    order = random.Random(seed)
    if isinstance(value, (set, frozenset)):
        items = [_shuffled(item, seed) for item in value]
        order.shuffle(items)
        return type(value)(items)
    if isinstance(value, (list, tuple)):
        return type(value)([_shuffled(item, seed) for item in value])
    if isinstance(value, dict):
        return {_shuffled(key, seed): _shuffled(item, seed) for key, item in value.items()}
    if isinstance(value, str):
        return "".join(list(value))
    return value


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS | st.frozensets(KEYS) | st.sets(KEYS),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, st.integers(0, 1000))
def test_equal_values_have_one_identity_however_they_were_made(value: Any, seed: int) -> None:
    assert value_digest(_shuffled(value, seed)) == value_digest(value)


def _plain(value: Any) -> Any:
    """What tells values apart: types count, the order of sets does not, that of dicts does."""
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(repr(_plain(item)) for item in value)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [_plain(item) for item in value]
    if isinstance(value, dict):
        return "dict", [(_plain(key), _plain(item)) for key, item in value.items()]
    return type(value).__name__, repr(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, VALUES)
def test_values_that_differ_have_identities_that_differ(one: Any, two: Any) -> None:
    assume(_plain(one) != _plain(two))
    assert value_digest(one) != value_digest(two)


ARRAYS = {
    "an array": lambda: np.arange(12.0).reshape(3, 4),
    "its type": lambda: np.arange(12).reshape(3, 4),
    "its shape": lambda: np.arange(12.0).reshape(4, 3),
    "a value": lambda: np.arange(12.0).reshape(3, 4) + 1e-12,
    "its layout": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "a large one": lambda: np.arange(100_000),
    "another large one": lambda: np.arange(100_000) + (np.arange(100_000) == 99_999),
    "objects": lambda: np.array([1, None, "x"], dtype=object),
    "records": lambda: np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    "dates": lambda: np.array(["2026-01-01"], "M8[D]"),
    "none of it": lambda: np.zeros((0, 3)),
    "no dimension": lambda: np.array(3.0),
    "a number": lambda: np.float64(3.0),
    "a float": lambda: 3.0,
    "a frame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "a cell of it": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "z"]}),
    "a name of it": lambda: pd.DataFrame({"a": [1, 2], "c": ["x", "y"]}),
    "a generator": lambda: np.random.default_rng(1),
    "another generator": lambda: np.random.default_rng(2),
    "a type": lambda: np.dtype("f4"),
    "a ufunc": lambda: np.add,
}


def test_arrays_frames_and_the_like_are_their_content() -> None:
    digests = {name: value_digest(make()) for name, make in ARRAYS.items()}
    assert {name: value_digest(make()) for name, make in ARRAYS.items()} == digests
    assert len(set(digests.values())) == len(digests)
    strided = np.arange(24.0).reshape(3, 8)[:, ::2]
    assert value_digest(strided) == value_digest(strided.copy())


def test_a_large_array_of_several_calls_is_read_once() -> None:
    array = np.arange(100_000)
    arrays = Arrays()
    calls = [mr.spawn(len, args=(array,))._call for _ in range(3)]
    assert len({digests.arguments_of(call, arrays)[0] for call in calls}) == 1
    assert len(arrays._known) == 1


def test_a_fitted_model_is_its_content() -> None:
    from sklearn.linear_model import Ridge

    data, target = np.arange(20.0).reshape(10, 2), np.arange(10.0)

    def fitted(alpha: float) -> Any:
        return Ridge(alpha=alpha).fit(data, target)

    assert value_digest(fitted(1.0)) == value_digest(fitted(1.0)) != value_digest(fitted(2.0))


def test_what_has_no_lasting_content_says_where_it_is() -> None:
    class Open:
        def __reduce__(self) -> Any:
            raise TypeError("it is open")

    with pytest.raises(Unidentified, match=r"args\[0\]\[1\]\['k'\]: Open has no lasting content"):
        digests.digests_of(([0, {"k": Open()}],), {}, Arrays())


PROGRAM = """
import dataclasses, enum, functools, json, sys
import mars.remote as mr
from mars.checkpoint import digests, module_code, walk

class Kind(enum.Enum):
    SMALL = "s"
    LARGE = "l"

@dataclasses.dataclass
class Setting:
    name: str
    kinds: frozenset
    depth: int = 3
    tags: dict = dataclasses.field(default_factory=dict)

TAGS = {"one", "two", "three", "four"}

def choose(x):
    return x in {"alpha", "beta", "gamma"} and x in TAGS

def fit(setting, xs, *, how=Kind.SMALL):
    import math
    return [choose(x) and how is Kind.LARGE for x in xs], math.pi

partial = functools.partial(fit, xs=("a", "b"))
setting = Setting("otto", frozenset(Kind), tags={"z": {"x", "y"}, "a": None})
calls = [
    mr.spawn(fit, (setting, ["a", {"q", "w", "e"}])), mr.spawn(partial, setting),
    mr.spawn(lambda s: s.depth, setting), mr.spawn(Setting, ("n", frozenset("abc"))),
    mr.spawn(sorted, (TAGS,), {"key": str.lower}),
]
found = []
for spawned in calls:
    call = spawned._call
    found.append(digests.code_of(call.function).digest.hex())
    found.append(digests.arguments_of(call, walk.Arrays())[0].hex())
print(json.dumps(found))
"""


def test_equal_programs_agree_across_processes_hash_seeds_and_files(
    tmp_path: Path, script_environment: dict[str, str]
) -> None:
    answers = []
    for number in range(6):
        program = tmp_path / str(number) / f"train{number}.py"
        program.parent.mkdir()
        program.write_text("# moved\n" * number + PROGRAM)
        done = subprocess.run(
            [sys.executable, *(["-"] if number == 5 else [str(program)])],
            input=PROGRAM if number == 5 else None,
            env={**script_environment, "PYTHONHASHSEED": str(number * 77)},
            cwd=program.parent,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) >= 9


def test_all_dictionaries_of_code_that_is_walked_are_left_alone() -> None:
    def f(x: int, cache: dict[int, int] = {}) -> int:  # noqa: B006
        return cache.setdefault(x, os.getpid())

    assert isinstance(f, FunctionType)
    before = f.__defaults__
    function_digest(f)
    assert f.__defaults__ is before == ({},)
