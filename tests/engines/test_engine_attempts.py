"""Where each attempt of a call ran, and how it ended."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import mars.remote as mr


def test_attempts_tell_where_each_ran_and_how_it_ended(
    engine: str, note: Callable[..., None], lines: Callable[..., list[str]], tmp_path: Path
) -> None:
    ledger = tmp_path / "attempts"

    def second_time_lucky() -> int:
        note(ledger)
        if len(lines(ledger)) == 1:
            raise OSError("the first time")
        return 1

    call = mr.spawn(second_time_lucky, retries=1)
    assert call.attempts() == []
    call.execute()
    first, last = call.attempts()
    assert first.ending in ("error", "lost")  # which of them it was is not kept on one machine
    assert last.ending == "value"
    assert all(one.node.startswith(socket.gethostname()) for one in (first, last))


def test_a_call_that_failed_has_no_attempt_with_a_value(engine: str) -> None:
    call = mr.spawn(divmod, (1, 0))
    with pytest.raises(ZeroDivisionError):
        call.execute()
    (only,) = call.attempts()
    assert only.ending in ("error", "lost")
