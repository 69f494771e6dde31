"""What happens when frames are lost, repeated, late or cut between a worker and the program.

A socket pair does none of that by itself; a call that finds the socket of its worker can. Such a
worker is not believed any more and replaced; each call still ends with its value. What nobody can
know is that the last frame of all is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr

Note = Callable[..., None]
Lines = Callable[[object], list[str]]


class Faulty:
    """The socket of a worker, on which something happens to one of the next frames."""

    def __init__(self, sock: object, fault: str, countdown: int) -> None:
        self.sock, self.fault, self.countdown = sock, fault, countdown
        self.late = b""

    def __getattr__(self, name: str) -> object:
        return getattr(self.sock, name)

    def sendall(self, data: bytes) -> None:
        send = self.sock.sendall  # type: ignore[attr-defined]
        self.countdown -= 1
        if self.countdown:
            send(data)
            if self.late:
                send(self.late)
                self.late = b""
        elif self.fault == "repeated":
            send(data + data)
        elif self.fault == "cut":
            send(data[: len(data) // 2])
        elif self.fault == "late":
            self.late = data


def spoil(fault: str, countdown: int) -> None:
    """Have a fault on the channel of the worker that this call runs in."""
    from mars.attempt import context

    attempt = context.current()
    assert attempt is not None
    worker = attempt.engine._worker
    worker.sock = Faulty(worker.sock, fault, countdown)


@pytest.mark.parametrize("fault", ["lost", "repeated", "late", "cut"])
@pytest.mark.parametrize("countdown", [1, 2, 3])
def test_a_frame_that_is_lost_repeated_late_or_cut_costs_its_worker_and_no_result(
    fault: str, countdown: int, tmp_path: Path, note: Note, lines: Lines
) -> None:
    ledger = tmp_path / "runs"

    def step(index: int, path: str) -> int:
        import time

        note(path, index)
        time.sleep(0.001)
        return index * 3

    session = mars.new_session(n_cpu=2, default=False)
    try:
        mr.spawn(step, args=(0, str(tmp_path / "warm"))).execute(session=session)
        mr.spawn(spoil, args=(fault, countdown)).execute(session=session, wait=False)
        calls = [mr.spawn(step, args=(i, str(ledger))) for i in range(300)]
        running = mr.ExecutableTuple(calls).execute(session=session, wait=False)
        running.result(timeout=30)
        assert [call.fetch(session=session) for call in calls] == [i * 3 for i in range(300)]
    finally:
        session.stop_server()
    begun = Counter(int(line) for line in lines(ledger))
    assert set(begun) == set(range(300))
    assert max(begun.values()) <= 2
