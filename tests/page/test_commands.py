"""The commands that find running sessions by a private folder."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.cli import main
from mars.web import whereabouts


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "mars"


def say(what: str) -> None:
    """Prints a line."""
    print("said", what)


def test_calls_and_logs_of_a_running_session_are_found(
    own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard"]) == 1
    assert "web=True" in capfd.readouterr().err
    with mars.new_session(n_cpu=1, web=True, default=False) as session:
        kept = mr.spawn(say, args=("hello",), name="greeting").execute(session=session)
        (path,) = own_folder.iterdir()
        assert stat.S_IMODE(own_folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        capfd.readouterr()
        assert main(["dashboard"]) == 0
        assert capfd.readouterr().out.strip() == session.get_web_endpoint()
        assert main(["calls"]) == 0
        assert "done" in (out := capfd.readouterr().out) and "greeting" in out
        assert main(["logs", "greeting", "--follow"]) == 0
        assert capfd.readouterr().out == "said hello\n"
        assert main(["logs", kept.call.key]) == 0
        assert main(["logs", "nobody"]) == 1
        with mars.new_session(engine="inline", web=True, default=False) as other:
            assert main(["dashboard"]) == 1
            assert main(["dashboard", "--session", other.session_id]) == 0
    assert not list(own_folder.iterdir())


def test_what_a_killed_program_left_is_removed_and_what_others_may_read_refused(
    own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    left = whereabouts.Whereabouts(child, "s", "http://127.0.0.1:1/", "t", None)
    path = whereabouts.note(left)
    assert path is not None and json.loads(path.read_text())["pid"] == child
    assert whereabouts.everything() == [] and not path.exists()
    own_folder.chmod(0o755)
    assert main(["dashboard"]) == 1
    assert "chmod 700" in capfd.readouterr().err
    assert whereabouts.note(left) is None
