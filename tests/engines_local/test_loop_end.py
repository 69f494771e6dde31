"""When the engine itself fails: nobody waits for ever, and the message says whose fault it is."""

from __future__ import annotations

import threading
import time

import pytest

import mars
import mars.remote as mr


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

        session._engine.loop.post(broken)  # type: ignore[attr-defined]
        with pytest.raises(mars.errors.InternalError, match="a bug"):
            running.result(timeout=20)
        with pytest.raises(mars.errors.InternalError, match="new_session"):
            mr.spawn(abs, args=(1,)).execute(session=session)
    finally:
        session.stop_server()
    assert [str(error) for error in seen] == ["a bug"]
