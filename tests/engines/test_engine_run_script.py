"""`mr.run_script`: a script on several workers at once, each with its rank."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mars.remote as mr

RECORD = """
import os, sys
folder = sys.argv[1]
with open(os.path.join(folder, "rank" + os.environ["RANK"]), "w") as file:
    print(os.environ["WORLD_SIZE"], sys.argv[1:] == [folder, "second"], __name__, file=file)
"""


def source(text: str) -> io.StringIO:
    """A script that can ``write(path, text)`` without leaving a file open."""
    head = "import pathlib\nwrite = lambda path, text: pathlib.Path(path).write_text(text)\n"
    return io.StringIO(head + text)


def recorded(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in folder.glob("rank*")}


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_script_runs_on_each_worker_with_rank_world_size_and_arguments(
    tmp_path: Path, n_workers: int
) -> None:
    script = tmp_path / "script.py"
    script.write_text(RECORD)
    argv = [str(tmp_path), "second"]
    executed = mr.run_script(str(script), n_workers=n_workers, command_argv=argv)
    assert executed.fetch() == {"status": "ok"}
    expected = f"{n_workers} True __main__"
    assert recorded(tmp_path) == {f"rank{i}": expected for i in range(n_workers)}


@pytest.mark.parametrize("form", ["path", "bytes file", "text file", "path object"])
def test_a_script_may_be_a_path_or_a_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(RECORD)
    script = {
        "path": lambda: str(path),
        "path object": lambda: path,
        "bytes file": lambda: io.BytesIO(RECORD.encode()),
        "text file": lambda: io.StringIO(RECORD),
    }[form]()
    executed = mr.run_script(script, command_argv=[str(tmp_path), "second"])
    assert executed.fetch()["status"] == "ok"
    assert recorded(tmp_path) == {"rank0": "1 True __main__"}


def test_a_script_runs_at_once(tmp_path: Path) -> None:
    mr.run_script(io.StringIO(RECORD), command_argv=[str(tmp_path), "second"])
    assert set(recorded(tmp_path)) == {"rank0"}


def test_data_arrives_as_globals_of_the_script(tmp_path: Path) -> None:
    script = f"write({str(tmp_path / 'rank')!r}, repr((first, second)))"
    mr.run_script(source(script), data={"first": [1, 2], "second": "two"})
    assert recorded(tmp_path) == {"rank": "([1, 2], 'two')"}


def test_objects_in_data_arrive_executed(tmp_path: Path) -> None:
    given = mr.spawn(pow, args=(2, 5))
    script = (
        "value = given.fetch() if hasattr(given, 'fetch') else given\n"
        f"write({str(tmp_path / 'rank')!r}, repr(value))"
    )
    mr.run_script(source(script), data={"given": given})
    assert recorded(tmp_path) == {"rank": "32"}


@pytest.mark.parametrize("wrong", [[("a", 1)], 3, "abc"])
def test_data_that_is_not_a_dict_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError):
        mr.run_script(io.StringIO("pass"), data=wrong)


def test_a_script_may_run_calls_in_its_session(tmp_path: Path) -> None:
    script = (
        "import mars.remote as mr\n"
        "value = mr.spawn(pow, args=(3, 3)).execute(session=session).fetch(session=session)\n"
        f"write({str(tmp_path / 'rank')!r}, repr(value))\n"
    )
    mr.run_script(source(script), n_workers=2)
    assert recorded(tmp_path) == {"rank": "27"}


def test_an_exception_of_the_script_comes_out() -> None:
    with pytest.raises(LookupError, match="in the script"):
        mr.run_script(io.StringIO("raise LookupError('in the script')"))


def test_a_script_with_a_syntax_error_says_so() -> None:
    with pytest.raises(SyntaxError):
        mr.run_script(io.StringIO("def broken(:"))


def test_a_script_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mr.run_script(str(tmp_path / "missing.py"))


def test_functions_of_a_script_see_its_globals_and_its_main_guard_runs(tmp_path: Path) -> None:
    script = (
        "VALUE = 7\n"
        "def compute(): return VALUE * helper()\n"
        "def helper(): return 6\n"
        "if __name__ == '__main__':\n"
        f"    write({str(tmp_path / 'rank')!r}, str(compute()))\n"
    )
    mr.run_script(source(script))
    assert recorded(tmp_path) == {"rank": "42"}


def test_what_a_script_prints_is_in_its_log() -> None:
    executed = mr.run_script(io.StringIO("print('printed by the script')"))
    assert "printed by the script" in str(executed.fetch_log())


def test_a_script_leaves_environment_and_arguments_as_they_were(tmp_path: Path) -> None:
    before = dict(os.environ), list(sys.argv), sys.modules["__main__"]
    mr.run_script(io.StringIO(RECORD), n_workers=2, command_argv=[str(tmp_path), "second"])

    def look() -> tuple[object, object, bool]:
        return os.environ.get("RANK"), os.environ.get("WORLD_SIZE"), "second" in sys.argv

    assert (dict(os.environ), list(sys.argv), sys.modules["__main__"]) == before
    looks = mr.ExecutableTuple([mr.spawn(look) for _ in range(4)]).execute().fetch()
    assert looks == [(None, None, False)] * 4


def test_ranks_of_one_script_run_at_the_same_time(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    script = (
        "import os, time\n"
        "rank = int(os.environ['RANK'])\n"
        f"mine, other = {str(tmp_path)!r} + f'/here{{rank}}', "
        f"{str(tmp_path)!r} + f'/here{{1 - rank}}'\n"
        "write(mine, '')\n"
        "deadline = time.monotonic() + 20\n"
        "while not os.path.exists(other):\n"
        "    assert time.monotonic() < deadline\n"
        "    time.sleep(0.005)\n"
    )
    assert mr.run_script(source(script), n_workers=2).fetch() == {"status": "ok"}


def test_a_script_runs_in_the_session_it_is_given(engine: str, tmp_path: Path) -> None:
    import mars

    other = mars.new_session(engine=engine, n_cpu=1, default=False)
    try:
        script = (
            "import mars\n"
            f"write({str(tmp_path / 'rank')!r}, "
            "session.session_id + ' ' + mars.get_context().session_id)"
        )
        executed = mr.run_script(source(script), session=other)
        assert executed.fetch(session=other) == {"status": "ok"}
        assert recorded(tmp_path) == {"rank": f"{other.session_id} {other.session_id}"}
    finally:
        other.stop_server()


def test_a_script_takes_the_options_of_its_execution() -> None:
    executed = mr.run_script(io.StringIO("pass"), run_kwargs={"show_progress": False})
    assert executed.fetch() == {"status": "ok"}


def test_a_script_that_fails_is_tried_again_when_asked(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = (
        "import os\n"
        f"if not os.path.exists({str(flag)!r}):\n"
        f"    write({str(flag)!r}, '')\n"
        "    raise OSError('first time')\n"
    )
    executed = mr.run_script(source(script), retry_when_fail=True)
    assert executed.fetch() == {"status": "ok"}


@pytest.mark.parametrize("n_workers", [1, 3])
def test_the_log_of_a_script_is_that_of_all_its_copies(tmp_path: Path, n_workers: int) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os\nprint('rank', os.environ['RANK'])\n")
    status = mr.run_script(script, n_workers=n_workers)
    assert str(status.fetch_log()) == "".join(f"rank {i}\n" for i in range(n_workers))
    assert str(status.fetch_log(offsets=0, sizes=6)) == "rank 0"


@pytest.mark.parametrize(("ending", "fails"), [("()", False), ("(0)", False), ("(3)", True)])
def test_a_script_may_end_with_sys_exit(ending: str, fails: bool) -> None:
    script = io.StringIO(f"import sys\nprint('done')\nsys.exit{ending}\n")
    if fails:
        with pytest.raises(SystemExit):
            mr.run_script(script)
    else:
        status = mr.run_script(script)
        assert (status.fetch(), str(status.fetch_log())) == ({"status": "ok"}, "done\n")
