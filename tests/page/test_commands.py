"""The commands that find running sessions by a private folder, with a page and without."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.cli import live, main
from mars.deploy import records
from mars.web.desk import Desk, address_in, desk, enter, folder, is_mine


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "mars"


@pytest.fixture
def opened(wait_until: Callable[..., None]) -> Callable[..., Any]:
    """A session that can be found."""

    def make(**given: Any) -> Any:
        session = mars.new_session(default=False, **given)
        wait_until(lambda: desk.path is not None)
        return session

    return make


def say(what: str) -> None:
    """Prints a line."""
    print("said", what)


def fail() -> None:
    """Fails."""
    raise ValueError("it \x1b[31mdid not\x1b[0m work")


def wait_for(path: str) -> str:
    """Prints, and goes on until a file is there."""
    print("waits", flush=True)
    while not os.path.exists(path):
        threading.Event().wait(0.01)
    print("went on")
    return path


@pytest.mark.parametrize("given", [{"n_cpu": 1}, {"engine": "inline"}])
def test_calls_and_logs_of_a_session_without_a_page_are_found(
    own_folder: Path, opened: Any, given: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["calls"]) == 1
    assert "no program of yours" in capfd.readouterr().err
    with opened(**given) as session:
        kept = mr.spawn(say, args=("hello",), name="greeting").execute(session=session)
        failed = mr.spawn(fail)
        session.execute(failed, on_error="continue")
        (path,) = own_folder.iterdir()
        assert stat.S_IMODE(own_folder.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        capfd.readouterr()
        assert main(["calls"]) == 0
        assert "done" in (out := capfd.readouterr().out) and "greeting" in out
        for name in ("greeting", "greet", kept.call.key):
            assert main(["logs", name, "--follow"]) == 0
            assert capfd.readouterr().out == "said hello\n"
        assert main(["logs", "nobody"]) == 1
        assert main(["dashboard"]) == 1
        assert "has no page" in capfd.readouterr().err
        assert main(["top", "--once"]) == 0
        out = capfd.readouterr().out
        assert "1 call done" in out and "1 failed" in out
        assert "\\x1b[31mdid not" in out and "\x1b[31mdid" not in out
    assert not list(own_folder.iterdir())


def test_a_run_that_goes_on_is_shown_and_its_log_followed(
    opened: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], wait_until: Callable[..., None]
) -> None:
    go = tmp_path / "go"
    with opened(n_cpu=1) as session:
        call = mr.spawn(wait_for, args=(str(go),), name="slow one")
        run = session.execute(call, wait=False)
        wait_until(lambda: session.engine.observe().running(1))
        (found,) = live.everything()
        assert found.pid == os.getpid() and found.session == session.session_id
        told = live.ask(found, "/api/overview")
        assert [one["name"] for one in told["running"]] == ["slow one"] and told["total"] == 1
        assert main(["top", "--once"]) == 0
        assert "0 of 1 done" in (out := capfd.readouterr().out) and "slow one" in out
        parts = live.lines_of(found, "/api/log", call=call.call.key, follow=True)
        text = ""
        while "waits" not in text:
            text += next(parts)["text"]
        go.touch()
        assert (text + "".join(one["text"] for one in parts)) == "waits\nwent on\n"
        run.result()


def test_a_log_is_found_although_its_run_ended_before_anybody_looked(opened: Any) -> None:
    with opened(n_cpu=1) as session:
        calls = [mr.spawn(say, args=(n,), name=f"call {n}") for n in range(3)]
        session.execute(*calls)
        session.execute(mr.spawn(abs, args=(-1,)))
        (found,) = live.everything()
        for n, one in enumerate(calls):
            (told,) = live.lines_of(found, "/api/log", call=one.call.key)
            assert told["text"] == f"said {n}\n"
        with pytest.raises(OSError, match="let go"):
            list(live.lines_of(found, "/api/log", call="0" * 32))


def test_a_page_is_found_by_its_socket(opened: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(n_cpu=1, web=True) as session:
        assert main(["dashboard"]) == 0
        assert capfd.readouterr().out.strip() == session.get_web_endpoint()
        with opened(engine="inline") as other:
            assert main(["dashboard"]) == 1
            assert main(["dashboard", "--session", session.session_id]) == 0
            assert main(["calls", "--session", other.session_id[:9]]) == 0


def test_no_port_is_open_and_a_killed_programs_socket_is_removed(
    own_folder: Path, script_environment: dict[str, str]
) -> None:
    program = (
        "import mars, sys, time\n"
        "session = mars.new_session(n_cpu=1)\n"
        "from mars.web.desk import desk\n"
        "while desk.path is None: time.sleep(0.01)\n"
        "print('there', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=script_environment | {"XDG_RUNTIME_DIR": str(own_folder.parent)},
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == b"there\n"
    (found,) = live.everything()
    assert found.pid == child.pid
    for one in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended just now, and its ports have
            assert not one.net_connections("inet")
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert list(own_folder.iterdir())
    assert live.everything() == [] and not list(own_folder.iterdir())


def test_a_folder_that_others_may_enter_is_refused_by_both_sides(
    own_folder: Path, opened: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    own_folder.mkdir(mode=0o755)
    own_folder.chmod(0o755)
    assert main(["calls"]) == 1
    assert "chmod 700" in capfd.readouterr().err
    with pytest.raises(PermissionError):
        enter(str(own_folder))
    own_folder.rmdir()
    elsewhere = own_folder.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    own_folder.symlink_to(elsewhere)  # a link that somebody else may have made
    with pytest.raises(OSError):
        enter(str(own_folder))
    lone = Desk()
    lone.come(lambda asked: ())
    lone.leave()
    assert not list(elsewhere.iterdir())


def test_a_program_without_a_runtime_directory_leaves_room_for_clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    os.close(enter(folder()))
    record = records.Record("some", "dask", "127.0.0.1", 1, 1, 0, secure=False, origin="up")
    records.save(record)  # refuses folders that others may enter
    assert records.everything() == [record]


def test_whoever_connects_is_asked_for_their_user() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert is_mine(one)


def test_garbage_and_silence_at_the_socket_hurt_nobody(own_folder: Path, opened: Any) -> None:
    with opened(n_cpu=1) as session:
        place = enter(str(own_folder))
        (name,) = os.listdir(own_folder)
        silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        try:
            for one in silent[:30]:
                one.connect(address_in(place, name))
            for rubbish in (b"\xff\n", b"[]\n", b"{}\n", b'{"path": 7}\n', b"x" * 100_000):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(address_in(place, name))  # waits for its turn
                    sock.settimeout(60)
                    try:
                        sock.sendall(rubbish)
                        told = sock.makefile("rb").readline()
                    except (BrokenPipeError, ConnectionResetError):
                        continue
                    assert not told or "error" in json.loads(told)
            assert mr.spawn(abs, args=(-1,)).execute(session=session).fetch(session=session) == 1
        finally:
            for one in silent:
                one.close()
            os.close(place)
        assert [one.session for one in live.everything()] == [session.session_id]


def test_a_process_that_the_program_forks_answers_for_nobody(opened: Any) -> None:
    with opened(n_cpu=1):
        child = os.fork()
        if not child:
            os._exit(0 if desk.path is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(live.everything()) == 1
