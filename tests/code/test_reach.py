"""What a function refers to: remembered as long as nothing of it changes, noticed when it does."""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import importlib
import math
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mars.attempt.codec import Keep
from mars.code import reach
from mars.code.functions import describe
from mars.code.reach import Reach

TEXT = """
from __future__ import annotations
import abc, dataclasses, enum, functools, logging, math, pathlib, re
from typing import Any, Optional

Alias = Optional[int]
LOG = logging.getLogger("own")
PATTERN = re.compile("a+")
FOLDER = pathlib.Path("/tmp")
TABLE = {"a": [1, {"deep": 2}], "b": {3}}
PAIR = (1, [2])

class Colour(enum.Enum):
    RED = [1]
    BLUE = 2

class Base(abc.ABC):
    scale = 2
    names = ["x"]
    @abc.abstractmethod
    def fit(self): ...

@dataclasses.dataclass
class Model(Base):
    size: int = 3
    __slots__ = ()
    def fit(self): return helper(self.size)
    @property
    def area(self): return self.size * self.scale
    @staticmethod
    def still(): return 1
    @classmethod
    def made(cls): return cls()

def kept(func):
    @functools.wraps(func)
    def inner(*args): return func(*args)
    inner.notes = []
    return inner

@functools.lru_cache(maxsize=3)
def cached(x): return math.sqrt(x)

@kept
def helper(x, extra=[0]): return x + cached(x) + extra[0]

def user():
    return Model, Colour, TABLE, PAIR, PATTERN, FOLDER, LOG, helper, Alias
"""

CHANGES = {
    "a list in a dict": "m.TABLE['a'].append(5)",
    "a dict in a list in a dict": "m.TABLE['a'][1]['deep'] = 7",
    "a set": "m.TABLE['b'].add(9)",
    "a key": "m.TABLE['c'] = m.TABLE.pop('b')",
    "a list in a tuple": "m.PAIR[1][0] = 3",
    "a class's attribute": "m.Model.scale = 4",
    "an attribute of a base class": "m.Base.scale = 4",
    "a list of a base class": "m.Base.names.append('y')",
    "a new attribute": "m.Model.added = 1",
    "a method": "m.Model.fit = lambda self: 0",
    "the code of a method": "m.Model.fit.__code__ = (lambda self: 5).__code__",
    "the code of a property": "m.Model.area.fget.__code__ = (lambda self: 5).__code__",
    "the code of a static method": "m.Model.still.__code__ = (lambda: 5).__code__",
    "the code of a class method": "m.Model.made.__func__.__code__ = (lambda cls: 5).__code__",
    "the value of a member": "m.Colour.RED.value.append(2)",
    "a function's attribute": "m.helper.notes.append('new')",
    "a new attribute of a function": "m.helper.other = 1",
    "what a decorator wraps": "m.helper.__wrapped__.__code__ = (lambda x, extra: 5).__code__",
    "a default": "m.helper.__wrapped__.__defaults__[0].append(1)",
    "what is cached": "m.cached.__wrapped__.__code__ = (lambda x: 5).__code__",
    "a global": "m.PATTERN = m.re.compile('b')",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of the project's own."""
    (tmp_path / "own_references.py").write_text(TEXT)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("own_references")
    del sys.modules["own_references"]


def user_of(module: ModuleType) -> Callable[[], Any]:
    """A function of `__main__` that refers to a module, as scripts have them."""
    namespace = {"__name__": "__main__", "m": module}
    exec("def use(): return m.user()", namespace)
    made: Any = namespace.pop("use")
    return made


def test_a_function_is_pickled_once_while_nothing_changes(own: ModuleType) -> None:
    for func in (own.user, user_of(own)):
        assert describe(func, Keep) is describe(func, Keep)


def test_a_function_in_c_is_pickled_once_while_its_module_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = math.sqrt
    before = describe(root, Keep)
    assert describe(root, Keep) is before
    monkeypatch.setattr(math, "sqrt", math.cbrt)  # its name leads to another one now
    with contextlib.suppress(pickle.PicklingError):
        assert describe(root, Keep) is not before
    assert describe([].append, Keep) is not describe([].append, Keep)  # of a list that may grow


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_place_is_noticed(own: ModuleType, change: str) -> None:
    functions = (own.user, user_of(own))
    before = [describe(func, Keep) for func in functions]
    exec(CHANGES[change], {"m": own})
    after = [describe(func, Keep) for func in functions]
    assert all(new is not old for new, old in zip(after, before, strict=True))
    assert [describe(func, Keep) for func in functions] == after


def test_what_can_change_unseen_is_pickled_each_time(own: ModuleType) -> None:
    own.HIDDEN = type("Hidden", (), {"__slots__": ("inside",)})()  # type: ignore[attr-defined]
    own.HIDDEN.inside = 1
    namespace = {"__name__": "__main__", "m": own}
    exec("def use(): return m.HIDDEN.inside", namespace)
    use: Any = namespace.pop("use")
    before = describe(use, Keep)
    own.HIDDEN.inside = 2
    assert describe(use, Keep).key != before.key


def test_an_installed_function_under_a_cache_is_not_looked_into() -> None:
    namespace = {"__name__": "__main__", "cached": fnmatch._compile_pattern}  # type: ignore[attr-defined]
    exec("def use(): return cached", namespace)
    use: Any = namespace.pop("use")
    assert describe(use, Keep) is describe(use, Keep)
    wrapped = fnmatch._compile_pattern.__wrapped__  # type: ignore[attr-defined]
    before, code = describe(use, Keep), wrapped.__code__
    try:
        wrapped.__code__ = (lambda pat: None).__code__
        assert describe(use, Keep) is before
    finally:
        wrapped.__code__ = code


def test_a_class_with_a_name_of_a_module_that_is_none_is_no_obstacle() -> None:
    odd = type("Odd", (), {"__module__": property(lambda self: "odd")})
    namespace = {"__name__": "__main__", "odd": odd()}
    exec("def use(): return odd", namespace)
    assert not Reach(namespace.pop("use")).stable  # type: ignore[arg-type]


def test_a_very_large_list_is_not_looked_through(
    own: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "REACH_ITEMS", 10**4)
    own.TABLE["a"] += range(10**5)
    use = user_of(own)
    before = describe(use, Keep)
    assert describe(use, Keep) is not before
    own.TABLE["a"][5] = -1
    assert describe(use, Keep).key != before.key


def test_a_remembered_function_can_go(own: ModuleType) -> None:
    use = user_of(own)
    describe(use, Keep)
    reference = weakref.ref(use)
    del use
    gc.collect()
    assert reference() is None


class Plain:
    """An object that is what its attributes are."""


class Own(Plain):
    def __getstate__(self) -> object:
        return dict(self.__dict__)


def test_objects_are_known_by_their_attributes(own: ModuleType) -> None:
    own.THINGS = [Plain() for _ in range(3)]
    own.THINGS[0].inner = Plain()
    namespace = {"__name__": own.__name__, "own": own}
    exec("def use(): return own.THINGS", namespace)
    use: Any = namespace["use"]
    before = describe(use, Keep)
    assert describe(use, Keep) is before
    for change in (
        lambda: setattr(own.THINGS[0].inner, "deep", 1),
        lambda: setattr(own.THINGS[1], "new", 2),
        lambda: setattr(own.THINGS[1], "__class__", Own),
    ):
        change()
        after = describe(use, Keep)
        assert after is not before
        before = after
    assert describe(use, Keep) is not before, "nobody knows what `__getstate__` looks at"


def test_a_function_that_its_own_object_holds_can_go() -> None:
    def use_one() -> weakref.ref[Plain]:
        one: Any = Plain()
        one.ask = lambda: one
        describe(one.ask, Keep)
        return weakref.ref(one)

    gone = use_one()
    gc.collect()
    assert gone() is None
