"""When the engine itself fails: nobody waits for ever, and the message says whose fault it is."""

from __future__ import annotations

import os
import threading
import time

import pytest

import mars
import mars.remote as mr
from mars.engines.driver import events, reactor


def test_an_error_in_the_loop_ends_every_run_with_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    session = mars.new_session(n_cpu=1, default=False)
    try:
        running = mr.spawn(time.sleep, args=(60,)).execute(session=session, wait=False)

        def broken() -> None:
            raise RuntimeError("a bug")

        session.engine.loop.post(broken)  # type: ignore[attr-defined]
        with pytest.raises(mars.errors.InternalError, match="a bug"):
            running.result(timeout=20)
        with pytest.raises(mars.errors.InternalError, match="new_session"):
            mr.spawn(abs, args=(1,)).execute(session=session)
    finally:
        session.stop_server()
    assert [str(error) for error in seen] == ["a bug"]


@pytest.mark.parametrize("dies", [False, True], ids=["while it is told", "after its death"])
def test_an_error_of_the_scheduler_is_ours_and_not_taken_for_a_forged_frame(
    dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's frames are right: it must not be blamed, nor anybody wait for ever."""
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    session = mars.new_session(n_cpu=1, default=False)
    try:
        mr.spawn(abs, args=(-1,)).execute(session=session)

        def broken(core: object, event: object, now: float) -> None:
            raise RuntimeError("a bug of the scheduler")

        monkeypatch.setitem(reactor.HANDLERS, events.Finished, broken)
        if dies:
            # What it has finished is told, or found in its outbox when it is buried.
            call = mr.spawn(os.kill, args=(os.getpid(), 0))
            end = mr.spawn(_end_after, args=(call,))
        else:
            end = mr.spawn(abs, args=(-2,))
        running = end.execute(session=session, wait=False)
        with pytest.raises(mars.errors.InternalError, match="a bug of the scheduler"):
            running.result(timeout=20)
    finally:
        session.stop_server()
    assert [str(error) for error in seen] == ["a bug of the scheduler"]


def _end_after(_: object) -> None:
    os._exit(1)
