"""Numbers and flags that come out of numpy are taken wherever Python's own are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr

np = pytest.importorskip("numpy")


def options() -> dict[str, Any]:
    return {
        "name": np.str_("measured"),
        "cpus": np.int64(1),
        "memory": np.int64(10**9),
        "gpus": np.uint8(0),
        "gpu": np.False_,
        "timeout": np.float32(60),
        "retries": np.int32(1),
        "death_retries": np.int64(2),
        "idempotent": np.True_,
        "priority": np.int8(3),
        "cache": np.True_,
        "retry_when_fail": np.False_,
    }


@pytest.mark.parametrize("name", sorted(options()))
def test_a_call_takes_numpy_for(name: str) -> None:
    option = {name: options()[name]}
    assert mr.spawn(abs, -7, **option).execute().fetch() == 7
    assert mr.map(abs, [-7, 8], **option).execute().fetch() == [7, 8]


def test_a_call_takes_numpy_for_all_options_at_once_and_for_n_output() -> None:
    one, two = mr.spawn(divmod, (17, 5), n_output=np.int64(2), **options())
    assert mars.fetch(mars.execute(one, two)) == [3, 2]


def test_numpy_flags_and_counts_mean_what_they_say(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    def fail(name: str) -> None:
        note(tmp_path / name)
        raise ValueError(name)

    counted = mr.spawn(fail, "counted", retries=np.int64(1))
    flagged = mr.spawn(fail, "flagged", retry_when_fail=np.True_)
    for call, attempts in ((counted, 2), (flagged, 4)):
        with pytest.raises(ValueError) as caught:
            call.execute()
        assert len(lines(tmp_path / str(caught.value))) == attempts
    with pytest.raises(ValueError, match="at most once"):
        mr.spawn(abs, -1, idempotent=np.False_, retries=np.int64(1))


def test_execute_takes_numpy_for_its_arguments() -> None:
    call = mr.spawn(lambda: float(mr.rng().random()))
    call.execute(
        wait=np.True_, show_progress=np.False_, progress_update_interval=np.float32(0.5),
        seed=np.int64(5),
    )  # fmt: skip
    again = mr.spawn(lambda: float(mr.rng().random()))
    run = again.execute(wait=np.False_, seed=5)
    assert run.result(20).fetch() == call.fetch()


def test_options_of_the_program_and_items_of_a_map_take_numpy() -> None:
    mapped = mr.map(abs, range(-5, 0)).execute()
    assert mapped[np.int64(1)] is mapped[1]
    assert mapped[np.int8(-1)].fetch() == 1
    with mars.config.option_context(seed=np.int64(7), silent_notice=np.float32(20)):
        assert (mars.options.seed, mars.options.silent_notice) == (7, 20.0)
        mars.options.show_progress = np.False_
        assert mars.options.show_progress is False


def test_a_log_takes_numpy_for_offsets_and_sizes() -> None:
    call = mr.spawn(print, "abcdef").execute()
    assert str(call.fetch_log(offsets=np.int64(2), sizes=np.int32(3))) == "cde"


def test_a_session_takes_numpy_for_its_numbers(engine: str) -> None:
    if engine in ("dask", "ray"):
        pytest.skip("what a session is asked for is looked at before any engine is chosen")
    opened = mars.new_session(
        engine=engine, n_cpu=np.int64(2), n_worker=np.int64(2), seed=np.int64(3),
        timeout=np.float32(60), log_limit=np.int64(10**6), object_memory=np.int64(10**8),
        default=False,
    )  # fmt: skip
    try:
        assert len(opened.get_worker_addresses()) == 2
        assert mr.spawn(abs, -7).execute(session=opened).fetch(session=opened) == 7
    finally:
        opened.stop_server()


def test_copies_of_a_script_may_be_counted_by_numpy(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("pass")
    assert mr.run_script(script, n_workers=np.int64(2)).fetch() == {"status": "ok"}


@pytest.mark.parametrize("wrong", [np.float64(1.5), np.str_("two"), np.bool_(True)])
def test_what_is_no_whole_number_is_refused_from_numpy_too(wrong: object) -> None:
    with pytest.raises(TypeError, match="retries has to be an int"):
        mr.spawn(abs, -1, retries=wrong)
