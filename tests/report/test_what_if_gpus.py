"""What-if with GPUs: recorded calls that asked for some, on machines with others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.errors import UsageError


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[mars.Session]:
    opened = mars.new_session(n_cpu=4, n_gpu=1, default=True)
    calls = [mr.spawn(time.sleep, (0.01,), gpus=1) for _ in range(8)]
    mr.ExecutableTuple([*calls, mr.spawn(os.getpid)]).execute()
    yield opened
    opened.stop_server()


def test_more_gpus_make_a_run_shorter_that_waited_for_them(session: mars.Session) -> None:
    one, four = (session.what_if(cpus=4, gpus=count).asked for count in (1, 4))
    assert (one.gpus, four.gpus) == (1, 4)
    assert one.wall_s > 0.08 > 0.07 > four.wall_s


def test_machines_have_as_many_gpus_as_a_call_asked_for(session: mars.Session) -> None:
    found = session.what_if(cpus=4)
    assert found.asked.gpus == 1
    assert "on 1 x 4 cores, 1 GPUs" in str(found)


def test_machines_with_too_few_gpus_are_refused(session: mars.Session) -> None:
    with pytest.raises(UsageError, match=r"gpus=0: a call of `.*` has asked for gpus=1"):
        session.what_if(gpus=0)
    with pytest.raises(UsageError, match="gpus=-1: give the GPUs of one machine"):
        session.what_if(gpus=-1)


def test_the_timeline_tells_of_gpus(session: mars.Session, tmp_path: Path) -> None:
    session.timeline(f"{tmp_path}/trace.json")
    with open(f"{tmp_path}/trace.json", encoding="utf-8") as file:
        assert file.read().count('"gpus": 1') == 8
