"""Reads finished calls out of the records in which a worker tells of them.

Each call that ends comes by here, so this is among the few loops whose speed counts; the benchmarks
`noop` and `noop_map` show it. `loop` calls it, in its thread.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from mars.attempt.capture import Log, Segment
from mars.engines.driver.events import Outcome
from mars.engines.wire.messages import FLAG_FAILURES, FLAG_PACKED, FLAG_STDERR, FLAG_STORED
from mars.task import RECORD, RECORD_HEAD, TIMES


def outcomes_in(
    told: bytes,
    segment: Segment,
    arrived: Callable[[Any], object],
    printed: Callable[[Segment, Log], object],
) -> list[Outcome]:
    """The outcomes that records tell of, in their order.

    Parameters
    ----------
    told : bytes
        The records.
    segment : Segment
        What the worker has printed.
    arrived : callable
        Told of each result that has parts in an arena.
    printed : callable
        Told of the segment and the log of each call that has printed something.
    """
    outcomes: list[Outcome] = []
    new = tuple.__new__
    position = 0
    end = len(told)
    size_of = RECORD.size
    unpack = RECORD_HEAD.unpack_from
    times_from, times_to = TIMES.start, TIMES.stop
    while position < end:
        attempt, status, flags, log_start, log_end, received, stored, peak, size = unpack(
            told, position
        )
        payload = position + size_of
        result: Any = told[payload : payload + size]
        if flags & FLAG_PACKED:
            result = pickle.loads(result)
            if flags & FLAG_STORED:
                arrived(result)
        log = None
        if log_end > log_start:
            log = Log(segment, log_start, log_end, bool(flags & FLAG_STDERR))
            printed(segment, log)
        # As `Outcome(…)` makes it, without a frame of its own.
        outcomes.append(
            new(
                Outcome,
                (
                    attempt,
                    status,
                    (stored - received) * 1e-9,
                    result,
                    flags & FLAG_STORED != 0,
                    len(result[1]) if flags & FLAG_FAILURES else 0,
                    told[position + times_from : position + times_to],
                    log,
                    peak * 1024,
                    False,
                ),
            )
        )
        position = payload + size
    return outcomes
