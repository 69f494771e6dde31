"""`typing.get_type_hints` in a call finds the names that stand in text in annotations."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = """
import dataclasses, typing
from typing import Annotated, Callable, Generic, NamedTuple, NotRequired, Optional
from typing import Required, TypedDict, TypeVar
import mars, mars.remote as mr

T = TypeVar("T")
class Near: pass
class Far(Generic[T]): pass
class Only: pass
"""

KINDS = """
class Dictionary(TypedDict, total=False):
    a: "Far"; b: "Optional[Near]"; c: NotRequired["Near"]; d: Required["Only"]
class Tuple(NamedTuple):
    a: "Far"
    b: Optional["Near"] = None
@dataclasses.dataclass
class Data:
    a: Optional["Far[Near]"] = None
    b: "Near | None" = None
def function(x: "Annotated[Near, 1]", y: 'Callable[["Only"], Far]') -> typing.List["Far"]: pass
def alias(x: dict[str, "Optional[Only]"], y: list[list["Near"]]): pass
"""

TAIL = """
def look(what):
    return str(sorted(typing.get_type_hints(what, include_extras=True).items()))
if __name__ == "__main__":
    mars.new_session(n_cpu=1, engine="ENGINE")
    for name in "Dictionary Tuple Data function alias".split():
        what = globals()[name]
        asked = mr.spawn(lambda: look(what)).to_object(), mr.spawn(look, args=(what,)).to_object()
        assert asked == (look(what),) * 2, (name, asked)
        print(name)
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_type_hints_are_found_in_calls(engine: str, run_python: RunPython, future: str) -> None:
    done = run_python(future + HEAD + KINDS + TAIL.replace("ENGINE", engine))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Dictionary", "Tuple", "Data", "function", "alias"]
