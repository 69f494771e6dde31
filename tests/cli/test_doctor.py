"""The doctor tells what is there, and survives what is not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import types
from importlib import metadata
from pathlib import Path

import pytest

import mars
from mars import resources
from mars.attempt.threads import VARIABLES
from mars.cli import doctor, main
from mars.cli.doctor import Finding, Section, examine, write_text


class Session:
    """An engine that answers at once."""

    def __init__(self, value: object = 42) -> None:
        self.value = value
        self.stopped = 0

    def stop_server(self) -> None:
        self.stopped += 1


class Call:
    def __init__(self, args: tuple[int]) -> None:
        self.args = args

    def execute(self, session: Session, show_progress: bool) -> Call:
        assert show_progress is False
        return self

    def fetch(self, session: Session) -> object:
        return session.value


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    fake = Session()
    remote = types.ModuleType("mars.remote")
    remote.spawn = lambda func, args: Call(args)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mars.remote", remote)
    monkeypatch.setattr(mars, "new_session", lambda engine, default: fake, raising=False)
    return fake


def facts(report: list[Section], section: str) -> dict[str, Finding]:
    (found,) = (part for part in report if part.name == section)
    return {finding.name: finding for finding in found.findings}


def test_report_has_every_part_and_stops_its_engine(session: Session) -> None:
    report = examine(environ={})
    names = [section.name for section in report]
    assert names == ["mars", "cores", "memory", "gpus", "system", "packages", "threads", "engine"]
    assert all(finding.ok for section in report for finding in section.findings)
    assert {"version", "python", "platform"} <= facts(report, "mars").keys()
    system = facts(report, "system")
    assert {"memfd", "descriptor passing", "pidfd", "large pages", "open files"} <= system.keys()
    engine = facts(report, "engine")
    assert engine["local engine"].value is True
    assert {"start, first result", "round trip", "stop"} <= engine.keys()
    assert session.stopped == 1


def test_cores_come_with_every_limit_that_was_considered() -> None:
    found = facts(examine(environ={"MARS_CPUS": "3"}, engine=False), "cores")
    assert found["used"].text == "3, because of: MARS_CPUS"
    assert {"machine", "MARS_CPUS"} <= found.keys()


def test_wrong_override_is_reported_and_the_rest_still_shown() -> None:
    report = examine(environ={"MARS_CPUS": "lots"}, engine=False)
    problem = facts(report, "cores")["error"]
    assert not problem.ok
    assert "MARS_CPUS" in problem.text
    assert facts(report, "memory")


def test_quota_that_was_rounded_says_how_to_decide_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = resources.CpuCount(1, "cgroup v2 /", (("machine", 8.0), ("cgroup v2 /", 1.5)))
    monkeypatch.setattr(doctor, "cpu_count", lambda environ: count)
    found = facts(examine(environ={}, engine=False), "cores")
    assert "MARS_CPUS" in found["used"].hint
    assert found["cgroup v2 /"].text == "1.5"


def test_packages_are_never_imported() -> None:
    code = (
        "import sys; from mars.cli import main; main(['doctor', '--no-engine'])\n"
        "heavy = {'numpy', 'pandas', 'sklearn', 'xgboost', 'ray', 'distributed', 'rich'}\n"
        "sys.exit(1 if heavy & set(sys.modules) else 0)"
    )
    source = os.path.dirname(os.path.dirname(resources.__file__))
    environ = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, capture_output=True)


def test_xgboost_of_either_distribution_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "xgboost-cpu":
            return "3.1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = facts(examine(environ={}, engine=False), "packages")
    assert found["xgboost"].text == "3.1 (xgboost-cpu)"
    assert "xgboost-cpu" not in found
    assert (found["ray"].text, found["ray"].value) == ("not installed", None)


def test_thread_variables_come_with_what_they_mean() -> None:
    found = facts(examine(environ={"OMP_NUM_THREADS": "8"}, engine=False), "threads")
    assert found["OMP_NUM_THREADS"].value == "8"
    assert "task's cpus" in found["OMP_NUM_THREADS"].hint


def test_all_variables_that_mars_sets_for_calls_are_shown() -> None:
    found = facts(examine(environ=dict.fromkeys(VARIABLES, "2"), engine=False), "threads")
    assert [name for name in VARIABLES if name not in found] == []


def test_missing_kernel_features_are_named_with_what_happens_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(doctor, "_try_memfd", missing)
    found = facts(examine(environ={}, engine=False), "system")
    assert found["memfd"].value is False
    assert "unlinked files" in found["memfd"].hint


@pytest.mark.parametrize("error", [RuntimeError("no\nworkers"), SystemExit(3), MemoryError()])
def test_engine_that_fails_is_reported_and_gives_status_1(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    def fail(engine: str, default: bool) -> Session:
        raise error

    monkeypatch.setattr(mars, "new_session", fail)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert f"does not work: {type(error).__name__}" in " ".join(shown.split())
    assert "cloudpickle" in shown


def test_engine_that_returns_something_else_does_not_work(session: Session) -> None:
    session.value = 41
    assert not facts(examine(environ={}), "engine")["local engine"].ok
    assert session.stopped == 1


def test_stuck_engine_does_not_take_the_doctor_with_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def stuck(engine: str, default: bool) -> Session:
        go_on.wait(60)
        return session

    monkeypatch.setattr(mars, "new_session", stuck)
    monkeypatch.setattr(doctor, "DOCTOR_ENGINE_S", 0.01)
    try:
        found = facts(examine(environ={}), "engine")
    finally:
        go_on.set()
        for thread in threading.enumerate():
            if thread.name == "mars-doctor":
                thread.join(10)
    assert "no answer within 10 ms" in found["local engine"].text
    assert not found["local engine"].ok


def test_json_holds_the_same_facts(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cores"]["used"]["value"] >= 1
    assert report["engine"]["round trip"]["value"] >= 0
    assert report["packages"]["cloudpickle"]["value"]


def test_text_is_aligned_and_plain_in_a_pipe() -> None:
    stream = io.StringIO()
    report = [Section("cores", [Finding("used", "word " * 40, hint="do " * 60, ok=False)])]
    write_text(report, stream)
    title, first, *rest = stream.getvalue().splitlines()
    assert title == "cores"
    column = first.index("word")
    assert all(line.startswith(" " * column) and line[column] != " " for line in rest)
    assert max(map(len, [first, *rest])) <= doctor.LINE_COLUMNS
    assert any(line.strip().startswith("->") for line in rest)
    assert "\x1b" not in stream.getvalue()


def test_text_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = Terminal()
    write_text([Section("cores", [Finding("used", "2")])], coloured)
    assert "\x1b[1mcores" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    write_text([Section("cores", [Finding("used", "2")])], plain)
    assert "\x1b" not in plain.getvalue()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mars ")


def test_no_command_prints_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "doctor" in capsys.readouterr().out


def test_wrong_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["docter"])
    assert refused.value.code == 2
    assert "docter" in capsys.readouterr().err


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    source = os.path.dirname(os.path.dirname(resources.__file__))
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "mars", "doctor", "--no-engine"],
            stdout=write,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": source},
            check=False,
        )
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")
