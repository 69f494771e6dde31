"""Exceptions in what the program gives us to call: logged once, and the run feels nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr

pytestmark = pytest.mark.usefixtures("still_works")


@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt])
def test_an_exception_in_a_callback_is_logged_once_and_the_next_callbacks_are_called(
    kind: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    pass_gate: Callable[..., None],
    wait_until: Callable[..., None],
) -> None:
    def bad(_: object) -> None:
        raise kind("from the callback")

    called = threading.Event()
    with caplog.at_level(logging.ERROR):
        # A callback that is added after the end is called at once, by who adds it.
        gate = str(tmp_path / "gate")
        first, second = (mr.spawn(pass_gate, args=(gate,)).execute(wait=False) for _ in range(2))
        first.add_done_callback(bad)
        second.add_done_callback(lambda _: called.set())
        Path(gate).touch()
        first.result(20)
        second.result(20)
        assert called.wait(20)
        wait_until(lambda: [one for one in caplog.records if one.name == "concurrent.futures"])
    (record,) = [one for one in caplog.records if one.name == "concurrent.futures"]
    assert record.exc_info is not None and record.exc_info[0] is kind


class Hostile:
    """An argument whose looks cannot be asked for."""

    def __repr__(self) -> str:
        raise LookupError("from the repr")

    __str__ = __repr__


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"k": (x,)}])
def test_an_argument_whose_repr_raises_harms_neither_the_call_nor_its_error(
    wrap: Callable[[Any], Any],
) -> None:
    def take(_: object, fail: bool) -> int:
        if fail:
            raise ValueError("its own")
        return 7

    good, bad = (mr.spawn(take, args=(wrap(Hostile()), fail)) for fail in (False, True))
    assert good.execute().fetch() == 7
    with pytest.raises(ValueError, match="its own"):
        bad.execute()


def test_an_exception_of_what_watches_a_run_is_the_program_s_and_stops_the_run(
    session: mars.session.Session,
) -> None:
    """The event that ``cancelled=`` takes is the program's own, and may raise."""

    class Broken:
        def is_set(self) -> bool:
            raise LookupError("from the event")

    import time

    with pytest.raises(LookupError, match="from the event"):
        mr.spawn(time.sleep, args=(60,)).execute(cancelled=Broken())
