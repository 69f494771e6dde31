"""Calls with ``gpus=`` see their own devices, and no whole one has two calls at a time.

There is no GPU here: the session declares two, and the calls look at what they are told.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.errors import NoAvailableBand

SESSION = {"n_cpu": 4, "n_gpu": 2}
"""The GPUs are declared: the folder's session has them."""


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def own(folder: str, number: int) -> str:
    """Fail if another call has one of the devices at the same time."""
    devices = os.environ["CUDA_VISIBLE_DEVICES"]
    files = [f"{folder}/{device}" for device in devices.split(",")]
    for file in files:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    sum(range(20_000))
    for file in files:
        os.unlink(file)
    return devices


def test_a_call_sees_as_many_devices_as_it_asked_for() -> None:
    wishes: list[dict[str, object]] = [
        {"gpus": 2}, {"gpus": 1}, {"gpu": True}, {"gpus": 0.5},
    ]  # fmt: skip
    calls = [mr.spawn(visible, **wish) for wish in wishes]
    seen = [str(one).split(",") for one in mr.ExecutableTuple(calls).execute().fetch()]
    assert [len(devices) for devices in seen] == [2, 1, 1, 1]
    assert {device for devices in seen for device in devices} == {"0", "1"}


def test_a_call_without_gpus_sees_what_the_program_sees() -> None:
    assert mr.spawn(visible).execute().fetch() in (visible(), "")  # Ray hides all of them


def test_no_whole_device_has_two_calls_at_a_time(tmp_path: Path) -> None:
    calls = [mr.spawn(own, (str(tmp_path), n), gpus=(1, 1, 2)[n % 3]) for n in range(24)]
    seen = mr.ExecutableTuple(calls).execute().fetch()
    assert {len(devices.split(",")) for devices in seen} == {1, 2}


def test_items_of_a_map_have_gpus(tmp_path: Path) -> None:
    seen = mr.map(lambda n: own(str(tmp_path), n), range(20), gpus=1).execute().fetch()
    assert set(seen) <= {"0", "1"}


def parent() -> tuple[str | None, str | None]:
    return visible(), mr.spawn(visible, gpus=2).execute().fetch()


def test_a_call_that_waits_for_its_own_calls_lends_its_devices() -> None:
    calls = [mr.spawn(parent, gpus=1) for _ in range(3)]
    for mine, inner in mr.ExecutableTuple(calls).execute().fetch():
        assert (mine in ("0", "1"), inner) == (True, "0,1")


def meddle() -> str | None:
    before = visible()
    os.environ["CUDA_VISIBLE_DEVICES"] = "7"
    return before


def test_what_a_call_or_the_program_sets_does_not_reach_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    for _ in range(3):
        assert mr.spawn(meddle, gpus=2).execute().fetch() == "0,1"


def test_more_gpus_than_there_are_are_refused_and_the_error_says_what_to_do() -> None:
    with pytest.raises(NoAvailableBand, match=r"asks for gpus=3, but a worker has 2; .*"):
        mr.spawn(visible, gpus=3).execute()


def fail_on_gpu() -> None:
    raise ValueError(visible())


def test_a_call_that_raises_gives_its_devices_back() -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="0,1"):
            mr.spawn(fail_on_gpu, gpus=2).execute()
    assert mr.spawn(visible, gpus=2).execute().fetch() == "0,1"


def test_a_call_that_kills_its_worker_gives_its_devices_back(local_only: None) -> None:
    with pytest.raises(mars.errors.WorkerDied):
        mr.spawn(os._exit, (3,), gpus=2, death_retries=0).execute()
    assert mr.spawn(visible, gpus=2).execute().fetch() == "0,1"


def test_attempts_tell_of_gpus(session: mars.session.Session) -> None:
    mr.spawn(visible, gpus=0.5, name="half").execute()
    rows = [one for one in session.report().record.attempts if one.name == "half"]
    assert [(one.gpus, one.cpus) for one in rows] == [(0.5, 1)]


def test_dependent_calls_with_and_without_gpus_pass_their_values_on() -> None:
    first = mr.spawn(lambda: [1, 2, 3])
    middle = mr.spawn(lambda some: (visible(), sum(some)), (first,), gpus=1)
    last = mr.spawn(lambda pair: pair[1] + 1, (middle,))
    assert last.execute().fetch() == 7
    assert middle.fetch()[0] in ("0", "1")
