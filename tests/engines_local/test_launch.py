"""What the processes of an engine are started with: as the program was, wherever that began."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr

LOOK = """
import sys
import mars, mars.remote as mr
mars.new_session(n_cpu=1)
def look():
    import sys
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != "_"}
    for method in ("count", "index"):
        del flags[method]
    for name in ("quiet", "verbose", "debug", "inspect", "interactive"):
        del flags[name]  # they print, or ask
    return flags, dict(sys._xoptions), list(sys.warnoptions), __debug__
call = mr.spawn(look).execute()
assert call.fetch() == look(), (call.fetch(), look())
print(repr(str(call.fetch_log())))
"""


@pytest.mark.parametrize(
    "options",
    [
        "-X utf8=0", "-X utf8", "-O", "-OO", "-b", "-bb", "-B", "-I", "-E", "-s", "-P", "-u",
        "-X dev", "-X importtime", "-X tracemalloc=2", "-X no_debug_ranges",
        "-X warn_default_encoding -W error", "-X int_max_str_digits=0", "-X own=3", "-X own",
        "-W error", "-W ignore::DeprecationWarning", "-q", "-v",
    ],
)  # fmt: skip
def test_workers_have_the_flags_of_the_program(
    options: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    file = tmp_path / "program.py"
    source = script_environment["PYTHONPATH"].split(os.pathsep)
    file.write_text(f"import sys; sys.path[:0] = {source!r}\n{LOOK}")
    done = subprocess.run(
        [sys.executable, *options.split(), str(file)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200,
        env=script_environment, check=False,
    )  # fmt: skip
    assert done.stdout == "''\n", done.stderr


def test_a_variable_that_the_program_sets_changes_no_flag_of_its_workers(
    run_python: Callable[..., Any],
) -> None:
    """The interpreter has read it long before, and does not follow it either."""
    done = run_python(
        f"import os\nos.environ['PYTHONUTF8'] = str(1 - __import__('sys').flags.utf8_mode)\n{LOOK}"
    )
    assert done.stdout == "''\n", done.stderr


# -- hashes -------------------------------------------------------------------------------------

HASHES = """
import os, signal, sys
import mars, mars.remote as mr
mars.new_session(n_cpu=2)
def look():
    return hash("a text"), os.environ.get("PYTHONHASHSEED")
def many():
    return {call.to_object() for call in [mr.spawn(look) for _ in range(4)]}
first = many()
assert len(first) == 1, first
import psutil
zygote, = psutil.Process().children()
os.kill(zygote.pid, signal.SIGKILL)
zygote.wait(10)
assert many() == first, (many(), first)
print(first == {(hash("a text"), os.environ.get("PYTHONHASHSEED"))}, *first.pop())
"""


def test_texts_have_one_hash_in_all_workers_also_after_the_zygote_was_killed(
    run_python: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    done = run_python(HASHES)
    assert done.stdout.endswith(" None\n"), done.stderr
    assert run_python(HASHES).stdout != done.stdout  # another one in another session


@pytest.mark.parametrize("seed", ["0", "42"])
def test_texts_have_the_hash_of_a_program_that_was_started_with_a_seed(
    seed: str, run_python: Callable[..., Any], script_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(script_environment, "PYTHONHASHSEED", seed)
    done = run_python(HASHES)
    assert done.stdout.startswith("True ") and done.stdout.endswith(f" {seed}\n"), done.stderr


# -- what cannot be started ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executable", "told"),
    [
        ("", "sys.executable is ''"),
        (None, "sys.executable is None"),
        ("/nowhere/python", "No such file"),
        ("a\0b", "cannot start"),
    ],
)
def test_a_python_that_cannot_be_started_is_one_clear_error(
    executable: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(mars.errors.StartupFailed, match=told):
        mars.new_session(n_cpu=1)


@pytest.mark.parametrize("limit", [0, 1024, 65_536])
def test_files_that_may_not_be_large_enough_are_one_clear_error(
    limit: int, run_python: Callable[..., Any]
) -> None:
    done = run_python(
        f"""
import resource
import mars, mars.remote as mr
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    mars.new_session(n_cpu=1)
    mr.spawn(abs, -1).execute()
except mars.errors.StartupFailed as error:
    print(error)
with mars.new_session(engine="inline"):
    print(mr.spawn(abs, -1).to_object())
"""
    )
    assert f"a file may have {limit:,} bytes here (ulimit -f)" in done.stdout, done.stderr
    assert done.stdout.endswith("\n1\n")


# -- odd programs -------------------------------------------------------------------------------


@pytest.fixture
def timeout_of_sockets() -> Iterator[None]:
    import socket

    socket.setdefaulttimeout(0.2)
    yield
    socket.setdefaulttimeout(None)


def test_workers_of_a_program_with_a_timeout_for_sockets_sleep_and_outlast_it(
    timeout_of_sockets: None,
) -> None:
    """Their ends of a connection did not block: they asked without end, with a core each."""
    with mars.new_session(n_cpu=1, default=False) as session:
        call = mr.spawn(os.getpid).execute(session=session)
        worker = psutil.Process(call.fetch(session=session))
        before = sum(worker.cpu_times()[:2])
        time.sleep(0.6)  # what it uses while it has nothing to do is what we ask
        assert sum(worker.cpu_times()[:2]) - before < 0.2
        nap = mr.spawn(time.sleep, args=0.5)
        assert nap.execute(session=session).fetch(session=session) is None


def test_a_path_of_other_types_starts_workers(run_python: Callable[..., Any]) -> None:
    done = run_python(
        """
import pathlib, sys
class Text(str):
    pass
sys.path += [pathlib.Path("."), b"x", None, Text("y")]
import mars, mars.remote as mr
session = mars.new_session(n_cpu=1)
print(mr.spawn(abs, -1).to_object())
session.stop_server()
sys.path = tuple(sys.path)
mars.new_session(n_cpu=1)
print(mr.spawn(abs, -1).to_object())
"""
    )
    assert done.stdout == "1\n1\n", done.stderr
