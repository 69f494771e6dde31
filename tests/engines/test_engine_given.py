"""What a session gives to its calls: variables, and the folder that they run in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with data, a module, and what should stay where it is."""
    folder = tmp_path / "project"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "deep" / "numbers.txt").write_text("1 2 3")
    (folder / "given_module_of_test.py").write_text("VALUE = 17\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "history").write_text("long")
    (folder / "linked.txt").symlink_to(folder / "data" / "deep" / "numbers.txt")
    (folder / "round").symlink_to(folder)
    return folder


@pytest.fixture
def given(engine: str, project: Path, session: mars.session.Session) -> Iterator[Any]:
    """A session with variables and that folder, which is not the default one."""
    opened = mars.new_session(
        engine=engine, n_cpu=2, default=False, env={"MARS_TEST_GIVEN": "seen", "TZ": "Asia/Tokyo"},
        working_dir=project,
    )  # fmt: skip
    yield opened
    opened.stop_server()


def read_all() -> tuple[str, str, int, str | None]:
    import given_module_of_test

    with open("data/deep/numbers.txt") as file, open("linked.txt") as linked:
        return file.read(), linked.read(), given_module_of_test.VALUE, os.getenv("MARS_TEST_GIVEN")


def test_calls_run_in_the_folder_with_the_variables_that_the_session_gives(
    given: mars.session.Session,
) -> None:
    here, path = os.getcwd(), os.environ.get("MARS_TEST_GIVEN")
    call = mr.spawn(read_all)
    assert call.execute(session=given).fetch(session=given) == ("1 2 3", "1 2 3", 17, "seen")
    assert (os.getcwd(), os.environ.get("MARS_TEST_GIVEN")) == (here, path)


def test_a_time_zone_among_the_variables_is_that_of_the_calls(given: mars.session.Session) -> None:
    before = time.tzname
    call = mr.spawn(lambda: (time.tzname, time.localtime(0).tm_hour))
    assert call.execute(session=given).fetch(session=given) == (("JST", "JST"), 9)
    assert time.tzname == before


def test_nested_calls_run_there_too_and_leaving_it_is_undone(given: mars.session.Session) -> None:
    def leave() -> str:
        inner = mr.spawn(read_all).execute().fetch()
        os.chdir("/")
        return inner[0]  # type: ignore[no-any-return]

    for _ in range(2):
        call = mr.spawn(leave)
        assert call.execute(session=given).fetch(session=given) == "1 2 3"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"env": {"A": 1}}, "env has to map names to texts"),
        ({"env": {"A=B": "1"}}, "cannot be a variable"),
        ({"working_dir": "/nowhere/at/all"}, "is no folder"),
        ({"node_ports": "7300-7200"}, "the first and the last of a range"),
        ({"node_ports": 70_000}, "from 1 to 65535"),
        ({"node_ports": "seven"}, "are no ports"),
    ],
)
def test_what_cannot_be_given_is_refused_before_anything_starts(
    engine: str, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        mars.new_session(engine=engine, default=False, **wrong)
