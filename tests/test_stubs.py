"""What the stubs of Dask say of it is so: the type checker believes them, so a test compares them.

They are partial. Each name, method and parameter that they have must be there in the Dask that is
installed; types are not compared. The same of the protocols that stand for frames of pandas.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pytest

from mars.dataframe import protocols

STUBS = Path(__file__).parents[1] / "stubs"


def module_of(path: Path) -> str:
    parts = path.relative_to(STUBS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def wrong_parameters(node: ast.FunctionDef, real: Callable[..., object]) -> Iterator[str]:
    """Parameters of a function in a stub that the real one does not take."""
    try:
        there = inspect.signature(real).parameters
    except ValueError:  # a builtin that does not tell
        return
    kinds = {one.kind for one in there.values()}
    if not {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL} & kinds:
        named = [*node.args.args, *node.args.kwonlyargs]
        for one in named:
            if one.arg not in there and one.arg not in ("self", "cls"):
                yield one.arg


def wrong_in_class(node: ast.ClassDef, real: type) -> Iterator[str]:
    for one in node.body:
        if not isinstance(one, ast.FunctionDef):
            continue  # attributes of instances, which a class does not tell
        kinds = [real, *real.__subclasses__()]  # some of what a collection has, frames have alone
        found = next(
            (inspect.getattr_static(kind, one.name) for kind in kinds if hasattr(kind, one.name)),
            None,
        )
        if found is None:
            yield f"{node.name}.{one.name}"
        elif inspect.isfunction(found) and not one.name.startswith("__"):
            for name in wrong_parameters(one, found):
                yield f"{node.name}.{one.name}({name})"


def wrong_in(tree: ast.Module, real: object) -> list[str]:
    """Names in a stub that the real module does not have."""
    wrong: list[str] = []
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
            continue
        found = getattr(real, node.name, None)
        if found is None:
            wrong.append(node.name)
        elif isinstance(node, ast.ClassDef):
            wrong += wrong_in_class(node, found)
        else:
            wrong += [f"{node.name}({name})" for name in wrong_parameters(node, found)]
    return wrong


@pytest.mark.parametrize("path", sorted(STUBS.rglob("*.pyi")), ids=module_of)
def test_what_a_stub_names_is_there(path: Path) -> None:
    real = importlib.import_module(module_of(path))
    assert not wrong_in(ast.parse(path.read_text(encoding="utf-8")), real)


@pytest.mark.parametrize("kind", [protocols.Axis, protocols.Cut, protocols.Rows])
def test_what_a_protocol_of_pandas_names_is_there(kind: type) -> None:
    index = pandas.RangeIndex(2)
    series = pandas.Series([1, 2], index)
    real = [index, series, series.to_frame(), series.iloc]
    named = {name for name in {*inspect.get_annotations(kind), *vars(kind)} if name[0] != "_"}
    assert [one for one in sorted(named) if not any(hasattr(value, one) for value in real)] == []


def test_what_is_not_there_is_seen() -> None:
    text = "class Path:\n    def gone(self): ...\n    def open(self, gone): ...\ndef gone(): ...\n"
    assert wrong_in(ast.parse(text), importlib.import_module("pathlib")) == [
        "Path.gone", "Path.open(gone)", "gone",
    ]  # fmt: skip
