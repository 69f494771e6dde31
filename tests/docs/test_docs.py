"""The documentation is true: its programs print what they say, and its names exist.

Each page with Python blocks is one program, run in a fresh process. Where a line of a block ends
in ``# -> text``, or is only that, the block has to print exactly these texts, in this order;
``...`` in a text stands for anything.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mars
import mars.calls.options
import mars.cli
import mars.config
import mars.errors
import mars.execution
import mars.remote as mr
import mars.settings
from mars.attempt.context import Context

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMES = [page.relative_to(DOCS).as_posix() for page in PAGES]
PAGE_LIMIT_S = 50.0

FOR_MARS_ONLY = runpy.run_path(str(DOCS / "make_reference.py"))["FOR_MARS_ONLY"]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_ARROW = re.compile(r"# (?:[^#\n]* )?->(?: (.*))?$")
_BLOCK_END = "<end of the block in line {}>"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


# -- pages are programs ---------------------------------------------------------------------------


def program_of(page: str) -> tuple[str, dict[int, list[str]]]:
    """The page's blocks with their line numbers kept, and what each of them has to print."""
    lines = [""] * (page.count("\n") + 2)
    expected: dict[int, list[str]] = {}
    for block in _FENCE.finditer(page):
        if block[1] != "python":
            continue
        first = page[: block.start(2)].count("\n")
        code = block[2].splitlines()
        lines[first : first + len(code)] = code
        end = first + len(code)
        lines[end] = f"print({_BLOCK_END.format(first)!r}, flush=True)"
        found = [_ARROW.search(line) for line in code]
        expected[first] = [(match[1] or "").rstrip() for match in found if match is not None]
    return "\n".join(lines), expected


@pytest.mark.parametrize("name", [name for name in NAMES if "```python" in read(name)])
def test_the_blocks_of_a_page_run_and_print_what_they_say(
    name: str, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    program, expected = program_of(read(name))
    ended = run_python(program, limit_s=PAGE_LIMIT_S)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    rest = ended.stdout
    for line, texts in expected.items():
        printed, _, rest = rest.partition(_BLOCK_END.format(line) + "\n")
        if texts:
            got = [text.rstrip() for text in printed.splitlines()]
            patterns = [re.escape(text).replace(r"\.\.\.", ".*") for text in texts]
            assert len(got) == len(texts) and all(map(re.fullmatch, patterns, got)), (
                f"the block in line {line} of {name} prints\n{printed}"
            )


def test_the_guide_states_what_it_prints() -> None:
    _, expected = program_of(read("guide.md"))
    assert len(expected) >= 20
    assert sum(map(len, expected.values())) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_a_page_work(name: str, script_environment: dict[str, str]) -> None:
    for block in _FENCE.finditer(read(name)):
        for line in block[2].splitlines() if block[1] == "sh" else ():
            if line.startswith("python -m mars"):
                command = [sys.executable, *line.split()[1:]]
                ended = subprocess.run(
                    command, capture_output=True, text=True, env=script_environment, timeout=40
                )
                assert ended.returncode == 0, ended.stderr


# -- links ----------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """How GitHub calls the headings of a page."""
    outside = _FENCE.sub("", page)
    found = set()
    for heading in re.findall(r"^#+ +(.+)$", outside, re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    return found | set(re.findall(r'<a id="([^"]+)">', outside))


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    page = read(name)
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", page):
        page_file = DOCS / name
        file = (page_file.parent / target).resolve() if target else page_file
        assert file.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_every_page_is_linked_from_the_readme() -> None:
    """Pages in folders are linked from the site's first page; Sphinx sees to that."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if "/" not in name and f"docs/{name}" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_files_that_a_page_names_exist(name: str) -> None:
    """Also the modules and the files that stand between backticks."""
    for path in re.findall(r"`((?:src|tests|docs|benchmarks|examples)/[\w./*-]+)`", read(name)):
        assert list(ROOT.glob(path.rstrip("/"))), f"{name} names {path}"


@pytest.mark.parametrize("name", ["design.md", "promises.md", "guide.md"])
def test_modules_that_a_page_names_exist(name: str) -> None:
    for dotted in set(re.findall(r"`(mars(?:\.\w+)+)(?:\(\))?`", read(name))):
        value: Any = mars
        for part in dotted.split(".")[1:]:
            if not hasattr(value, part) and isinstance(value, ModuleType):
                importlib.import_module(f"{value.__name__}.{part}")
            assert hasattr(value, part), f"{name} names {dotted}"
            value = getattr(value, part)


# -- the site -------------------------------------------------------------------------------------


def test_a_page_of_the_site_loads_nothing_from_the_network(tmp_path: Path) -> None:
    """`make check` builds the whole site; all its pages load what this one loads."""
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "index.md").write_text("# A page\n\n```python\nprint(1)\n```\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", str(DOCS), str(source), str(site)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    loaded = re.compile(
        r"""(?:src=|<link\b[^>]*\bhref=|url\(|@import)\s*["']?(?:https?:)?//[^"')]*"""
    )
    files = [file for kind in ("html", "css") for file in site.rglob(f"*.{kind}")]
    assert files
    for file in files:
        assert loaded.findall(file.read_text(encoding="utf-8")) == [], file


# -- promises -------------------------------------------------------------------------------------


def test_every_promise_names_tests_that_exist() -> None:
    assert len(_named_tests("promises.md")) >= 40


def _named_tests(name: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read(name))


@pytest.mark.parametrize("name", [name for name in NAMES if _named_tests(name)])
def test_tests_that_a_page_names_exist(name: str) -> None:
    known: dict[str, set[str]] = {}
    for file, test in _named_tests(name):
        if file not in known:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            known[file] = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
        assert test in known[file], f"{file}::{test}"


def test_every_promise_has_a_test() -> None:
    promised = read("promises.md").partition("## Not promised")[0]
    rows = [row for row in promised.splitlines() if row.startswith("| ")]
    without = [
        row
        for row in rows
        if "::" not in row and not row.startswith(("| promise", "| ---", "| what"))
    ]
    assert rows
    assert without == []


# -- reference ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> str:
    build: Callable[[], str] = runpy.run_path(str(DOCS / "make_reference.py"))["build"]
    return build()


def test_the_reference_is_up_to_date(generated: str) -> None:
    assert read("reference.md") == generated, "run: python docs/make_reference.py"


def public_members(owner: type) -> Iterator[str]:
    for name, value in vars(owner).items():
        documented = inspect.isfunction(value) or isinstance(value, property)
        internal = name.startswith("_") or f"{owner.__name__}.{name}" in FOR_MARS_ONLY
        if not internal and documented and inspect.getdoc(value):
            yield name


def public_names() -> Iterator[str]:
    yield from (f"mars.{name}" for name in mars.__all__ if name not in ("__version__", "session"))
    described = {"ItemCall", "Run"}  # imported there for the engines, not for programs
    yield from (f"mars.remote.{name}" for name in mr.__all__ if name not in described)
    yield from (f"mars.errors.{name}" for name in mars.errors.__all__)
    for name in (
        "new_session", "get_default_session", "clear_default_session", "get_default_or_create",
        "get_default_async_session", "Session", "AsyncSession", "execute", "fetch", "fetch_log",
        "stop_server", "get_context",
    ):  # fmt: skip
        assert hasattr(mars.session, name)
        yield name
    for owner in (
        mars.Session, mr.Object, mr.ExecutableTuple, mr.MapObjects, mars.execution.Execution,
        Context,
    ):  # fmt: skip
        yield from (f"{owner.__name__}.{name}" for name in public_members(owner))
    yield from ("LogFetcher", "mars.config.option_context")
    yield from (f"mars {command}" for command in mars.cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_the_reference_has(name: str) -> None:
    short = name.removeprefix("mars.remote.").removeprefix("mars.errors.").removeprefix("mars.")
    headings = re.findall(r"^#+ `([^`(]+)", read("reference.md"), re.M)
    assert any(heading in (name, short) or heading.endswith(f".{short}") for heading in headings)


def test_every_option_of_a_call_is_documented() -> None:
    page = read("reference.md")
    for name in {*mars.calls.options.CHECKS, *mars.calls.options.HINTS}:
        assert re.search(rf"^\| `{name}` \|", page, re.M), name


def test_every_option_of_a_program_is_documented() -> None:
    page = read("reference.md")
    for name in {*mars.config._DEFAULTS, *mars.config.INERT, *mars.config.INERT_SECTIONS}:
        assert f"`{name}`" in page, name


def test_every_tunable_is_documented_with_its_reason() -> None:
    page = read("reference.md")
    for name, value in vars(mars.settings).items():
        if name.isupper() and name not in ("KIB", "MIB"):
            assert isinstance(value, (int, float, tuple, dict)), name
            assert re.search(rf"^\| `{name}` \| [^|]+ \| [^|]{{20,}}\|$", page, re.M), name


def test_every_tunable_is_used() -> None:
    used = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src" / "mars").rglob("*.py")
        if path.name != "settings.py"
    )
    unused = [n for n in vars(mars.settings) if n.isupper() and not re.search(rf"\b{n}\b", used)]
    assert unused == []


def _words(count: float) -> str:
    return {0.5: "half a second", 2: "two seconds", 3: "three times"}[count]


def _figures() -> list[tuple[str, str]]:
    """Figures of `mars.settings` as they stand on pages."""
    of = mars.settings
    kept_apart = f"{of.BUFFER_BYTES // of.KIB} KiB on"
    _, second, later = of.BACKOFF_S
    return [
        ("guide.md", f"Buffers from {kept_apart}, such as those of numpy"),
        ("differences.md", f"only buffers from {kept_apart} at `execute`"),
        ("promises.md", f"below {of.INLINE_BYTES // of.KIB} KiB, are outside of the budget"),
        ("guide.md", f"({of.LOG_READ_BYTES // of.MIB} MiB unless you say otherwise)"),
        ("guide.md", f"runs again in a new worker, up to {_words(of.DEATH_RETRIES)}"),
        ("guide.md", f"after the call's process died; {of.DEATH_RETRIES} unless"),
        ("guide.md", f"| `retry_when_fail=True` | as `retries={of.RETRY_WHEN_FAIL}` |"),
        ("guide.md", f"{second:g} seconds before the second, and {later:g} second before each"),
        ("guide.md", f"when it has not ended {_words(of.INTERRUPT_GRACE_S)} later"),
        ("guide.md", f"get a `KeyboardInterrupt` and, {_words(of.CANCEL_GRACE_S)} later"),
        ("differences.md", f"about {_words(of.CANCEL_GRACE_S)}; `result()` raises"),
        ("clusters.md", f"Up to {of.WORKING_DIR_BYTES // of.MIB} MiB go to a node"),
        ("clusters.md", f"is lost after about {of.LINE_LOST_S} seconds."),
        ("clusters.md", f"what was printed in the last {of.LOG_SHIP_S:g} seconds"),
        ("promises.md", f"outlives its node, but for the last {of.LOG_SHIP_S:g} seconds"),
        ("promises.md", f"| lost after about {of.LINE_LOST_S} seconds |"),
        ("promises.md", f"for the others for {of.NODES_SILENT_S:g} seconds, or"),
        ("promises.md", f"tried again every {of.CLOSED_S:g} seconds"),
        ("clusters.md", f"tried again every {of.CLOSED_S:g} seconds"),
        ("promises.md", f"looked for every {of.JOIN_LOOK_S:g} seconds"),
    ]


@pytest.mark.parametrize(("page", "text"), _figures())
def test_figures_on_pages_are_those_of_the_settings(page: str, text: str) -> None:
    """A page that says it in other words has them here as well: who changes one, changes both."""
    assert " ".join(text.split()) in " ".join(read(page).split())


# -- docstrings -----------------------------------------------------------------------------------


def documented_functions() -> Iterator[tuple[str, Any]]:
    owners: list[tuple[str, Any]] = [("mars.remote", mr), ("mars.session", mars.session)]
    for module_name, module in owners:
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module_name
            if own and not name.startswith("_") and name not in FOR_MARS_ONLY:
                yield f"{module_name}.{name}", value
    for owner in (
        mars.Session, mr.Object, mr.ExecutableTuple, mr.MapObjects, mars.execution.Execution,
        Context,
    ):  # fmt: skip
        for name in public_members(owner):
            value = inspect.unwrap(vars(owner)[name]) if owner is not None else None
            if inspect.isfunction(value):
                yield f"{owner.__name__}.{name}", value


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(*pair, id=pair[0]) for pair in documented_functions()]
)
def test_every_parameter_is_documented_or_referred_to(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert text, name
    if re.search(r"(?:[Aa]s of|[Aa]s|see) `", text):
        return  # another docstring has them
    parameters = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
        and not (parameter.kind is parameter.VAR_KEYWORD and parameter.name in ("_", "accepted"))
    ]
    section = text.partition("Parameters\n---")[2]
    missing = [
        parameter
        for parameter in parameters
        if not re.search(rf"^(?:[*\w]+, )*\**{parameter}\b.*(?: :|,|$)", section, re.M)
    ]
    assert missing == []


def module_names() -> list[str]:
    found = pkgutil.walk_packages(mars.__path__, "mars.")
    return ["mars", *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.fixture(scope="module")
def local_session(leak_guard: None) -> Iterator[mars.Session]:
    opened = mars.new_session(n_cpu=2)
    yield opened
    opened.stop_server()


def is_foreign(module: ModuleType, test: doctest.DocTest) -> bool:
    """Whether an example is of a function of numpy or Dask that has been looked up in ``module``.

    `mars.tensor` keeps these, with their docstrings, once a test before this one has used them.
    """
    found = vars(module).get(test.name.removeprefix(f"{module.__name__}."))
    origin = getattr(found, "__wrapped__", found)
    return not (getattr(origin, "__module__", None) or "mars").startswith("mars")


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings_are_true(name: str, local_session: mars.Session) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        if test.examples and not is_foreign(module, test):
            local_session.as_default()
            runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_the_main_functions_have_an_example() -> None:
    for function in (
        mr.spawn, mr.map, mr.rng, mr.run_script, mr.Object.execute, mr.Object.fetch_log,
        mr.ExecutableTuple, mars.new_session, mars.config.option_context,
    ):  # fmt: skip
        assert ">>> " in (inspect.getdoc(function) or ""), function
