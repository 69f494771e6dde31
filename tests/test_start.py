"""What `import mars` and a first call load, and what is left when a start fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
from mars.engine import Run
from mars.engines import one_machine
from mars.engines.local import launch
from mars.resources import cpu_count
from mars.session import get_default_session

TOLD = (
    "mars: No session found, local session will be created in background "
    f"({cpu_count().n:g} cpus); mars.new_session(...) makes one as you want it\n"
)


def loaded(run_python: Callable[..., Any], statement: str, *names: str) -> set[str]:
    """Which of the modules a fresh process has after a statement."""
    code = f"import sys\n{statement}\nprint(*[one for one in {names} if one in sys.modules])"
    return set(run_python(code).stdout.split())


def test_import_mars_loads_nothing_of_sessions(run_python: Callable[..., Any]) -> None:
    names = (
        "mars.session",
        "mars.sessions.session",
        "mars.config",
        "pickle",
        "socket",
        "threading",
        "typing",
        "re",
    )
    assert loaded(run_python, "import mars", *names) == set()


def test_import_mars_remote_loads_no_engine_and_nothing_heavy(
    run_python: Callable[..., Any],
) -> None:
    names = (
        "mars.engines.one_machine", "mars.engines.driver.engine", "mars.engines.inline",
        "mars.execution", "concurrent.futures",
        "logging", "cloudpickle", "inspect", "dataclasses", "asyncio", "tempfile", "subprocess",
        "rich", "threadpoolctl", "numpy",
    )  # fmt: skip
    assert loaded(run_python, "import mars.remote", *names) == set()


@pytest.mark.parametrize("name", mars.__all__)
def test_each_public_name_is_there_when_it_is_asked_for(
    name: str, run_python: Callable[..., Any]
) -> None:
    code = f"import mars; print(mars.{name} is not None, {name!r} in dir(mars))"
    assert run_python(code).stdout == "True True\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    for module in (mars, mars.errors, sys.modules["mars.session"]):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = module.nothing


class _Realm:
    def forget(self, task: object) -> None:
        """Nothing was kept."""


STARTS = """
import os, sys
import mars.remote as mr

def look(*args, **kwargs):
    print(*[one for one in {names} if one in sys.modules], flush=True)
    return spawn_process(*args, **kwargs)

spawn_process, os.posix_spawn = os.posix_spawn, look
print(mr.spawn(abs, -1).execute().fetch())
"""


def test_processes_start_before_the_program_loads_what_runs_and_results_need(
    run_python: Callable[..., Any],
) -> None:
    names = (
        "mars.sessions.session", "mars.sessions.runs", "mars.calls.maps", "mars.calls.put",
        "mars.attempt.rows", "mars.attempt.failure", "mars.engines.outcome", "mars.engine",
        "mars.logs", "mars.observe.attempts",
    )  # fmt: skip
    assert run_python(STARTS.format(names=names)).stdout == "\n1\n"


def test_a_run_has_so_few_attributes_that_python_keeps_them_without_a_dict() -> None:
    # With more than 30 an object gets a dict of its own, which each round trip would pay for.
    assert len(vars(Run("", _Realm()))) <= 30


FIRST_CALL = """
import sys
import mars.remote as mr

def names(x):
    return sorted({{"cloudpickle", "logging", "mars.sessions.session"}} & set(sys.modules))

{more}
print(mr.spawn(names, args=(1,)).execute().fetch(), "cloudpickle" in sys.modules)
"""


def test_the_first_call_of_a_plain_function_loads_cloudpickle_nowhere(
    run_python: Callable[..., Any],
) -> None:
    assert run_python(FIRST_CALL.format(more="")).stdout == "[] False\n"


def test_workers_share_cloudpickle_where_the_program_had_it(
    run_python: Callable[..., Any],
) -> None:
    told = run_python(FIRST_CALL.format(more="seen = dict().keys(); mr.spawn(lambda: seen)")).stdout
    assert told == "['cloudpickle', 'logging'] True\n"


def test_an_engine_that_cannot_be_made_ends_the_process_that_was_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched: list[launch.Launch] = []

    class Known(launch.Launch):
        def __init__(self) -> None:
            super().__init__()
            launched.append(self)
            self.first_pid = self.pid

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(launch, "Launch", Known)
    monkeypatch.setattr(one_machine, "Store", refuse)
    with pytest.raises(mars.errors.StartupFailed, match="no memory"):
        mars.new_session(n_cpu=1)
    (one,) = launched
    assert one.pid == 0 and not Path(f"/proc/{one.first_pid}").exists()
    with pytest.raises(OSError):
        os.fstat(one.socket.fileno())
    one.close()  # once more does nothing


@pytest.mark.filterwarnings("error")
def test_a_program_that_makes_errors_of_warnings_needs_no_session_either(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mars.remote as mr

    assert get_default_session() is None
    try:
        assert mr.spawn(abs, args=(-1,)).to_object() == 1
        assert mr.spawn(abs, args=(-2,)).to_object() == 2
    finally:
        mars.stop_server()
    assert capsys.readouterr().err == TOLD


@pytest.mark.parametrize("options", ["-W error", "-W error::UserWarning", "-bb -W error"])
def test_the_first_use_works_under_warnings_as_errors(
    options: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import mars.remote as mr\nprint(mr.spawn(abs, -1).to_object())\n")
    done = subprocess.run(
        [sys.executable, *options.split(), str(program)],
        capture_output=True, text=True, timeout=200, env=script_environment, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert done.stderr == TOLD


def test_a_test_suite_with_warnings_as_errors_can_use_mars_at_once(
    tmp_path: Path, script_environment: dict[str, str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_own.py").write_text(
        "import mars.remote as mr\n"
        "def double(x):\n    return 2 * x\n"
        "def test_one():\n    assert mr.spawn(double, 2).to_object() == 4\n"
        "def test_two():\n    assert mr.map(double, range(3)).execute().fetch() == [0, 2, 4]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True, text=True, timeout=200, env=script_environment, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


REPLACED = """
import os
import mars, mars.remote as mr

mars.new_session(n_cpu=1)
has = mr.spawn(eval, ("'cloudpickle' in __import__('sys').modules",))
one = {1: 2}.keys()  # only cloudpickle takes such a view
print(has.execute().fetch(), mr.spawn(lambda: len(one)).execute().fetch())
try:
    mr.spawn(os._exit, (1,), death_retries=0).execute()
except mars.errors.WorkerDied:
    print(mr.spawn(eval, ("'cloudpickle' in __import__('sys').modules",)).execute().fetch())
"""


def test_a_worker_in_the_place_of_another_finds_cloudpickle_if_the_program_needs_it(
    run_python: Callable[..., Any],
) -> None:
    assert run_python(REPLACED).stdout.split() == ["False", "1", "True"]
