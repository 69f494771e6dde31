"""Records of runs that tests make up."""

from __future__ import annotations

from mars.observe.attempts import Times
from mars.observe.observation import EndedAttempt
from mars.report.record import Record, RunRow, WorkerRow


def attempt(
    number: int,
    begun: float,
    seconds: float,
    *,
    worker: int = 1,
    name: str = "work",
    serial: int | None = None,
    ending: str = "value",
    tries: int = 1,
    cpu: float = 1.0,
    cpus: float = 1.0,
    size: int = 1,
    run: int = 1,
    around: float = 0.0,
    ready: float = 0.0,
    longest: float = 0.0,
    arguments: int = 0,
) -> EndedAttempt:
    """An attempt whose function ran for so long; ``around`` before it and after it."""
    serial = number if serial is None else serial
    called = begun + around
    returned = called + seconds
    ended = returned + around
    times = Times(0.0, ready, begun, begun, called, called, returned, ended)
    return EndedAttempt(
        number, f"{serial:032x}", name, size, run, 0, tries, "w0", worker, "host", 100 + worker,
        ending, times, 0, 0, 0, name, cpus, 0.0, ready, begun, ended, cpu * seconds, 0, 0, longest,
        serial, arguments,
    )  # fmt: skip


def record(
    attempts: list[EndedAttempt],
    inputs: dict[int, tuple[int, ...]] | None = None,
    *,
    cores: float = 1.0,
    ended: float | None = None,
    runs: dict[int, RunRow] | None = None,
) -> Record:
    """A record of one run that began at 0, unless ``runs`` are given."""
    end = max((one.ended for one in attempts), default=0.0) if ended is None else ended
    workers = {one.worker: WorkerRow(one.worker, "w0", "host", 100, 0.0, 0.0) for one in attempts}
    return Record(
        sorted(attempts, key=lambda one: one.ended), inputs or {},
        runs or {1: RunRow(1, "session", 0, 0, 0.0, end)}, workers, cores, end, {},
    )  # fmt: skip
