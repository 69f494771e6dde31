"""Nothing of the program runs in the engine's thread, and nobody waits there for the engine."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.errors import UsageError


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    with mars.new_session(n_cpu=1) as session:
        yield session


def in_the_engine_s_thread(session: mars.session.Session, act: Any) -> Any:
    """Do something there, as a finalizer does that the collector happens to run there."""
    found: list[Any] = []
    done = threading.Event()

    def finalize() -> None:
        try:
            found.append(act())
        except BaseException as error:
            found.append(error)
        done.set()

    session.engine.loop.post(finalize)  # type: ignore[attr-defined]
    assert done.wait(20)
    return found[0]


def test_who_waits_for_a_call_in_the_engine_s_thread_gets_an_error_and_no_hang(
    session: mars.session.Session,
) -> None:
    def execute() -> Any:
        return mr.spawn(abs, args=(-1,)).execute(session=session)

    assert isinstance(in_the_engine_s_thread(session, execute), UsageError)
    future = in_the_engine_s_thread(
        session, lambda: mr.spawn(abs, args=(-2,)).to_object(session=session, wait=False)
    )
    assert future.result(20) == 2
    assert mr.spawn(abs, args=(-3,)).execute().fetch() == 3


def test_a_stderr_that_takes_nothing_holds_up_no_engine(
    session: mars.session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, asked = threading.Event(), threading.Event()
    written: list[str] = []

    class Full(io.StringIO):
        """As a pipe that nobody reads."""

        def write(self, text: str) -> int:
            asked.set()
            gate.wait(20)
            written.append(text)
            return len(text)

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        loop = session.engine.loop  # type: ignore[attr-defined]
        loop.post(lambda: loop.tell("mars: something that the engine tells"))
        assert asked.wait(20)
        assert mr.spawn(abs, args=(-3,)).execute().fetch() == 3
        gate.set()
        session.engine._lines[-1].wait(20)  # type: ignore[attr-defined]
    assert written == ["mars: something that the engine tells\n"]
