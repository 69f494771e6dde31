"""A program is told what happens: by its hook, in its log, as spans of OpenTelemetry."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.config import option_context
from mars.observe.events import ATTEMPT, BEGAN, ENDED, Event
from mars.sessions import following


@pytest.fixture(scope="module", params=["local", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[Any]:
    with mars.new_session(engine=request.param, n_cpu=2, default=False) as opened:
        yield opened


def double(number: int) -> int:
    """A call that ends well."""
    return 2 * number


def fail() -> None:
    """A call that does not."""
    raise ValueError("so")


def test_a_hook_is_told_of_a_run_and_each_attempt_before_execute_returns(session: Any) -> None:
    told: list[Event] = []
    threads = set()

    def hook(event: Event) -> None:
        told.append(event)
        threads.add(threading.current_thread())

    with option_context(on_event=hook):
        calls = [mr.spawn(double, args=(n,), name=f"double {n}") for n in range(5)]
        failing = mr.spawn(fail, retries=1)
        session.execute(*calls, failing, on_error="continue")
    assert [one.kind for one in told] == [BEGAN, *[ATTEMPT] * 7, ENDED]
    assert told[0].total == 6 and told[-1].done == 5 and told[-1].failed == 1
    attempts = [one.attempt for one in told if one.attempt is not None]
    assert {one.name for one in attempts} == {*(f"double {n}" for n in range(5)), "fail"}
    assert sorted(one.ending for one in attempts) == ["error", "error", *["value"] * 5]
    assert {one.call for one in attempts} == {one.call.key for one in (*calls, failing)}
    assert {one.session for one in told} == {session.session_id}
    assert len({one.run for one in told}) == 1
    times = [one.time for one in told]
    assert times[0] == min(times) and times[-1] == max(times)
    assert threading.current_thread() not in threads
    before = len(told)
    session.execute(mr.spawn(double, args=(1,)))
    assert len(told) == before  # outside of the block nobody is told


def test_what_a_hook_raises_is_logged_and_ends_nothing(
    session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(event: Event) -> None:
        raise RuntimeError("the hook is wrong")

    with option_context(on_event=hook):
        assert mr.spawn(double, args=(2,)).execute(session=session).fetch(session=session) == 4
    assert (
        "exception in mars.options.on_event" in caplog.text and "the hook is wrong" in caplog.text
    )


def test_a_hook_may_ask_the_session(session: Any) -> None:
    seen = []

    def hook(event: Event) -> None:
        seen.append(session.report().work_s)
        if event.kind == ENDED:
            value = mr.spawn(double, args=(4,))
            with option_context(on_event=None):
                session.execute(value)
            seen.append(value.fetch(session=session))

    with option_context(on_event=hook):
        session.execute(mr.spawn(double, args=(3,)))
    assert seen[-1] == 8


def test_calls_of_an_executor_and_calls_inside_calls_are_told(session: Any) -> None:
    told: list[Event] = []
    with option_context(on_event=told.append):
        with session.executor() as executor:
            assert [one.result() for one in [executor.submit(double, n) for n in range(3)]] == [
                0, 2, 4,
            ]  # fmt: skip
        session.execute(mr.spawn(nested))
        session.runs.end_following()
    names = [one.attempt.function for one in told if one.attempt is not None]
    assert names.count("double") >= 4 and "nested" in names


def nested() -> Any:
    """Asks for a call."""
    return mr.spawn(double, args=(7,)).execute().fetch()


def test_a_session_that_is_closed_while_calls_run_tells_the_end(
    tmp_path: Path, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    opened = mars.new_session(n_cpu=1, default=False)
    with option_context(on_event=told.append):
        opened.execute(mr.spawn(until, args=(str(tmp_path / "never"),)), wait=False)
        wait_until(lambda: opened.engine.observe().running(1))
    monkeypatch.setattr(following, "EVENTS_WAIT_S", 600)
    opened.close()  # it waits for no hook that has nothing to do
    wait_until(lambda: ENDED in [one.kind for one in told])


def until(path: str) -> None:
    """Runs until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)


def test_a_program_that_just_ends_has_been_told_all(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run_python(
        "import mars, mars.remote as mr\n"
        "mars.options.on_event = lambda event: print(event.kind, flush=True)\n"
        "mr.map(abs, [-1, -2]).execute(wait=False).result()\n"
    )
    lines = ended.stdout.split("\n")
    assert lines[0] == "run began" and "run ended" in lines and "attempt ended" in lines


def test_an_option_that_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match="a function of one argument"):
        mars.options.on_event = 7
    with pytest.raises(ValueError, match="True or False"):
        mars.options.open_telemetry = "yes"  # type: ignore[assignment]


def test_the_log_names_calls_and_failures(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="mars"):
        good, bad = mr.spawn(double, args=(1,), name="good one"), mr.spawn(fail)
        session.execute(good, bad, on_error="continue")
    lines = {(one.levelname, one.getMessage()) for one in caplog.records if one.name == "mars"}
    assert any(level == "DEBUG" and good.call.key in text and "good one" in text
               for level, text in lines)  # fmt: skip
    assert any(level == "WARNING" and bad.call.key in text and "raised an error" in text
               for level, text in lines)  # fmt: skip
    assert any(level == "INFO" and "began: 2 calls" in text for level, text in lines)
    ended = [one for one in caplog.records if "1 of 2 calls done, 1 failed" in one.getMessage()]
    assert ended and ended[0].mars_session == session.session_id  # type: ignore[attr-defined]
    assert {one.mars_call for one in caplog.records if hasattr(one, "mars_call")} == {
        good.call.key, bad.call.key,
    }  # fmt: skip


def test_at_the_level_of_info_calls_that_went_well_are_not_logged(
    session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mars"):
        bad = mr.spawn(fail)
        session.execute(bad, mr.spawn(double, args=(1,)), on_error="continue")
    texts = [one.getMessage() for one in caplog.records if one.name == "mars"]
    assert len(texts) == 3 and bad.call.key in texts[1]


def test_each_attempt_is_a_span_below_that_of_the_program(session: Any) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    provider = trace.get_tracer_provider()
    if not isinstance(provider, sdk.TracerProvider):  # a process sets it once
        provider = sdk.TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    kept = memory.InMemorySpanExporter()
    processor = export.SimpleSpanProcessor(kept)
    provider.add_span_processor(processor)
    bad = mr.spawn(fail, retries=1)
    good = [mr.spawn(double, args=(n,), name=f"double {n}") for n in range(3)]
    with (
        option_context(open_telemetry=True),
        trace.get_tracer("program").start_as_current_span("program") as own,
    ):
        session.execute(*good, bad, on_error="continue")
    spans = {one.context.span_id: one for one in kept.get_finished_spans()}
    processor.shutdown()
    (run,) = [one for one in spans.values() if one.name == "mars run"]
    assert run.parent.span_id == own.get_span_context().span_id
    assert run.attributes["mars.calls"] == 4 and run.attributes["mars.failed"] == 1
    attempts = [one for one in spans.values() if "mars.call" in one.attributes]
    assert len(attempts) == 5
    assert all(one.parent.span_id == run.context.span_id for one in attempts)
    assert {one.context.trace_id for one in spans.values()} == {own.get_span_context().trace_id}
    assert {one.name for one in attempts} == {"double", "fail"}
    assert sorted(one.attributes["mars.attempt"] for one in attempts) == [1, 1, 1, 1, 2]
    wrong = [one for one in attempts if not one.status.is_ok and one.name == "fail"]
    assert len(wrong) == 2 and {one.attributes["mars.call"] for one in wrong} == {bad.call.key}
    times = session.times(good[0])
    (first,) = [one for one in attempts if one.attributes["mars.call"] == good[0].call.key]
    assert first.end_time - first.start_time == pytest.approx(
        (times.stored - times.received) * 1e9, abs=1e4
    )
    assert all(run.start_time <= one.start_time <= one.end_time for one in attempts)


def test_without_the_extra_the_error_names_it(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    session.runs.end_following()
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with mars.new_session(engine="inline", default=False) as other:
        with option_context(open_telemetry=True):
            call = mr.spawn(double, args=(1,))
            with pytest.raises(ImportError, match=r"mars-remote\[otel\]"):
                other.execute(call)
        other.execute(call)
        assert call.fetch(session=other) == 2
