"""Code travels as it is now: edited modules, redefined cells, scripts without a guard."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import mars.remote as mr

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def module(folder: Path, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    if name in sys.modules:
        return importlib.reload(sys.modules[name])
    return importlib.import_module(name)


@pytest.fixture
def main() -> Iterator[Callable[[str], None]]:
    """Run text as a notebook runs a cell: in the namespace of ``__main__``."""
    namespace = sys.modules["__main__"].__dict__
    before = dict(namespace)

    def cell(text: str) -> None:
        exec(compile(text, "<cell>", "exec"), namespace)  # noqa: S102  what a notebook does

    yield cell
    for name in set(namespace) - set(before):
        del namespace[name]


def value_of(name: str) -> Callable[..., object]:
    found: Callable[..., object] = sys.modules["__main__"].__dict__[name]
    return found


def test_a_function_of_a_project_module_runs(project: Path) -> None:
    text = "CONSTANT = 5\ndef helper(x): return x + CONSTANT\ndef run(x): return helper(x)\n"
    assert mr.spawn(module(project, "own_plain", text).run, args=(1,)).execute().fetch() == 6


def test_an_edited_and_reloaded_module_runs_its_new_code(project: Path) -> None:
    for version in (1, 22, 333):
        loaded = module(project, "own_edited", f"def run(): return {version}\n")
        assert mr.spawn(loaded.run).execute().fetch() == version


def test_an_edited_helper_of_a_function_runs_its_new_code(project: Path) -> None:
    for version in (1, 22, 333):
        helper = module(project, "own_helper", f"def helper(): return {version}\n")
        text = "import own_helper\ndef run(): return own_helper.helper()\n"
        user = module(project, "own_user", text)
        assert helper.helper() == version
        assert mr.spawn(user.run).execute().fetch() == version


def test_a_class_of_a_project_module_comes_back_as_that_class(project: Path) -> None:
    loaded = module(project, "own_class", "class Made:\n    value = 3\ndef make(): return Made()\n")
    made = mr.spawn(loaded.make).execute().fetch()
    assert isinstance(made, loaded.Made)
    assert made.value == 3


def test_a_module_imported_inside_a_call_is_found(project: Path) -> None:
    (project / "own_late.py").write_text("def late(): return 'late'\n")

    def run() -> str:
        import own_late

        text: str = own_late.late()
        return text

    assert mr.spawn(run).execute().fetch() == "late"


def test_a_relative_import_inside_a_call_of_a_package_is_found(project: Path) -> None:
    package = project / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def inner(): return 'inner'\n")
    text = "def run():\n    from .inner import inner\n    return inner()\n"
    (package / "outer.py").write_text(text)
    importlib.invalidate_caches()
    loaded = importlib.import_module("own_package.outer")
    assert mr.spawn(loaded.run).execute().fetch() == "inner"


def test_a_function_of_main_that_is_defined_again_runs_its_new_code(
    main: Callable[[str], None],
) -> None:
    for version in (1, 2, 3):
        main(f"def cell_function(): return {version}")
        assert mr.spawn(value_of("cell_function")).execute().fetch() == version


def test_a_helper_of_main_that_is_defined_again_is_seen_by_its_unchanged_user(
    main: Callable[[str], None],
) -> None:
    main("def cell_user(): return cell_helper()")
    for version in (1, 2, 3):
        main(f"def cell_helper(): return {version}")
        assert mr.spawn(value_of("cell_user")).execute().fetch() == version


def test_a_global_of_main_that_changes_is_seen_by_the_next_call(
    main: Callable[[str], None],
) -> None:
    main("cell_state = {'n': 1}\ndef cell_read(): return cell_state['n']")
    assert mr.spawn(value_of("cell_read")).execute().fetch() == 1
    main("cell_state['n'] = 2")
    assert mr.spawn(value_of("cell_read")).execute().fetch() == 2


def test_a_closure_that_changes_is_seen_by_the_next_call() -> None:
    count = [1]
    assert mr.spawn(lambda: count[0]).execute().fetch() == 1

    def read() -> int:
        return count[0]

    assert mr.spawn(read).execute().fetch() == 1
    count[0] = 2
    assert mr.spawn(read).execute().fetch() == 2


def test_a_class_of_main_that_is_defined_again_makes_instances_of_the_new_one(
    main: Callable[[str], None],
) -> None:
    for version in (1, 2):
        main(f"class CellClass:\n    def value(self): return {version}")
        main("def cell_make(): return CellClass().value()")
        assert mr.spawn(value_of("cell_make")).execute().fetch() == version


SCRIPT = """
import mars, mars.remote as mr

def square(x):
    return x * x

class Box:
    def __init__(self, value):
        self.value = value

def box(x):
    return Box(square(x))

session = mars.new_session(engine={engine!r}, n_cpu=2)
calls = mr.ExecutableTuple([mr.spawn(square, args=(i,)) for i in range(5)])
print(calls.execute().fetch())
made = mr.spawn(box, args=(3,)).execute().fetch()
print(isinstance(made, Box), made.value)
print(mr.spawn(lambda b: b.value, args=(made,)).execute().fetch())
{end}
"""


@pytest.mark.parametrize("stdin", [True, False], ids=["stdin", "file"])
@pytest.mark.parametrize("end", ["session.stop_server()", ""], ids=["stopped", "just ends"])
def test_a_script_needs_no_main_guard(
    engine: str, run_python: RunPython, stdin: bool, end: str
) -> None:
    done = run_python(SCRIPT.format(engine=engine, end=end), stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 1, 4, 9, 16]", "True 9", "9"]
    assert done.stderr == ""


def test_a_script_with_a_main_guard_works_too(engine: str, run_python: RunPython) -> None:
    text = (
        "import mars, mars.remote as mr\n"
        "def square(x): return x * x\n"
        "def main():\n"
        f"    mars.new_session(engine={engine!r}, n_cpu=1)\n"
        "    print(mr.spawn(square, args=(4,)).execute().fetch())\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    done = run_python(text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "16\n", "")


def test_a_script_that_fails_shows_the_calls_own_lines_and_exits_with_one(
    engine: str, run_python: RunPython
) -> None:
    text = (
        "import mars, mars.remote as mr\n"
        f"mars.new_session(engine={engine!r}, n_cpu=1)\n"
        "def broken(x):\n"
        "    print('seen before')\n"
        "    return x / 0  # the guilty line\n"
        "mr.spawn(broken, args=(4,)).execute()\n"
    )
    done = run_python(text)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "the guilty line" in done.stderr
    assert "task broken(4" in done.stderr
    assert "seen before" in done.stderr


UNGUARDED = """
import pathlib, sys
with open("imported", "a") as file:
    file.write("x")
import mars, mars.remote as mr

class Result:
    def __init__(self, n):
        self.n = n

class Failed(Exception):
    pass

def make(n):
    return Result(n)

def fail(n):
    raise Failed(n)

mars.new_session(engine=sys.argv[1], n_cpu=2, default=True)
made = mr.spawn(make, args=(1,)).to_object()
print(made.n, type(made) is Result)
try:
    mr.spawn(fail, args=(2,)).execute()
except Failed as error:
    print(error)
print([one.n for one in mr.map(make, range(3)).execute().fetch()])
"""


def test_a_module_that_asks_for_calls_while_it_is_imported_runs_once(
    engine: str, run_python: RunPython, tmp_path: Path
) -> None:
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    program = (
        "import unguarded, mars.remote as mr\nprint(mr.spawn(unguarded.make, (5,)).to_object().n)"
    )
    done = run_python(program, engine)
    assert done.stdout.splitlines() == ["1 True", "2", "[0, 1, 2]", "5"], done.stderr
    assert (tmp_path / "imported").read_text() == "x"


def test_functions_of_a_module_s_own_generator_draw_different_numbers() -> None:
    import random

    calls = [mr.spawn(random.random) for _ in range(20)]
    drawn = mr.ExecutableTuple(calls).execute().fetch()
    drawn += list(mr.map(random.uniform, [0.0] * 100, [1.0] * 100).execute().fetch())
    assert len(set(drawn)) == 120
    assert random.random() not in drawn
    np = pytest.importorskip("numpy")
    calls = [mr.spawn(np.random.normal) for _ in range(20)]
    assert len(set(mr.ExecutableTuple(calls).execute().fetch())) == 20


def test_a_generator_of_the_program_s_own_is_an_argument_like_any_other() -> None:
    import random

    own = random.Random(3)
    want = random.Random(3).random()
    assert mr.spawn(lambda r: r.random(), args=(own,)).to_object() == want == own.random()


def test_a_closure_over_an_array_sees_the_array_of_its_own_spawn() -> None:
    np = pytest.importorskip("numpy")

    def last_of(data: object) -> mr.Object[float]:
        return mr.spawn(lambda: float(data[-1]))  # type: ignore[index]

    for turn in range(6):
        # Freed at the end of each turn: the next one most likely gets the same memory.
        data = np.full(100_000, float(turn))
        assert last_of(data).execute().fetch() == turn
        data[:] = -1.0
        assert last_of(data).execute().fetch() == -1.0
