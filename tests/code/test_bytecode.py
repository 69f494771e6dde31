"""What is read from instructions is what `dis` reads from them."""

from __future__ import annotations

import dis
import importlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Annotated, Any, Generic, Optional, ParamSpec, Required, TypedDict, TypeVar

import pytest

from mars.code.bytecode import codes_in, facts_of, names_in_hints, resolved

MODULES = ["argparse", "dataclasses", "enum", "inspect", "pickle", "typing", "unittest.mock"]


def codes(name: str) -> Iterator[CodeType]:
    module = importlib.import_module(name)
    yield compile(inspect.getsource(module), name, "exec", dont_inherit=True)


@pytest.mark.parametrize("name", MODULES)
def test_names_and_imports_are_those_of_dis(name: str) -> None:
    for code in codes(name):
        for inner in codes_in(code):
            wanted, imports = set(), set()
            for one in codes_in(inner):
                for step in dis.get_instructions(one):
                    if step.opname in (
                        "LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "STORE_NAME",
                        "DELETE_NAME", "LOAD_FROM_DICT_OR_GLOBALS",
                    ):  # fmt: skip
                        wanted.add(step.argval)
                    elif step.opname == "IMPORT_NAME":
                        imports.add(step.argval)
            facts = facts_of(inner)
            assert set(facts.globals) == wanted
            assert {imported for _, imported, _ in facts.imports} == imports


def test_imports_have_their_level_and_what_they_take() -> None:
    text = "import a.b\nfrom . import c, d\nfrom ..e.f import g as h\ndef i():\n    import j"
    facts = facts_of(compile(text, "", "exec"))
    assert set(facts.imports) == {
        (0, "a.b", ()), (1, "", ("c", "d")), (2, "e.f", ("g",)), (0, "j", ()),
    }  # fmt: skip
    assert facts.stored == {"a", "c", "d", "h", "i"}


def test_relative_names_are_resolved() -> None:
    assert resolved(0, "a.b", "p.q") == "a.b"
    assert resolved(1, "a", "p.q") == "p.q.a"
    assert resolved(1, "", "p.q") == "p.q"
    assert resolved(2, "a", "p.q") == "p.a"


def test_who_may_ask_for_any_name_is_known() -> None:
    assert facts_of(compile("getattr(a, b)", "", "exec")).dynamic
    assert facts_of(compile("a.__dict__", "", "exec")).dynamic
    assert not facts_of(compile("a.b", "", "exec")).dynamic


def test_names_of_modules_in_texts_count_where_text_is_imported_or_run() -> None:
    by_name = facts_of(
        compile("import importlib\nimportlib.import_module('a.b'); x = 'no name!'", "", "exec")
    )
    assert by_name.texts == ("a.b",)
    run = facts_of(compile("exec('import cfg; y = 1\\nfrom d.e import f')", "", "exec"))
    assert {"cfg", "d.e"} <= set(run.texts)
    assert facts_of(compile("x = 'a.b'", "", "exec")).texts == ()


class Near:
    pass


class Far:
    pass


class Tree:
    pass


class Marked(TypedDict):
    first: "Near | None"  # noqa: UP037  text twice, by the future import
    second: Required[Far]


P = ParamSpec("P")
T = TypeVar("T")


class Hook(Generic[P, T]):
    pass


@pytest.mark.parametrize(
    ("hint", "names"),
    [
        ("Optional[Near]", {"Optional", "Near"}),
        (dict[str, "Tree"], {"Tree"}),
        (list[dict[str, "Tree | None"]] | int, {"Tree", "None"}),
        (Optional["Near"], {"Near"}),
        (Annotated[list["Near"], "a note"], {"Near"}),
        (Callable[["Near"], "Far"], {"Near", "Far"}),
        (Hook[["Near", int], "Far"], {"Near", "Far"}),
        (T, set()),
        (int, set()),
        (None, set()),
        (Any, set()),
        (object(), set()),
    ],
)
def test_names_are_found_in_text_anywhere_in_annotations(hint: object, names: set[str]) -> None:
    assert set(names_in_hints({"value": hint})) == names


def test_names_are_found_in_annotations_of_a_typed_dictionary() -> None:
    assert {"Near", "Required", "Far"} <= set(names_in_hints(Marked.__annotations__))


def test_what_is_no_annotation_has_no_names() -> None:
    assert list(names_in_hints(None)) == []
