"""Events as lines of `logging`, under the name ``mars``. Called by `mars.sessions.following`."""

from __future__ import annotations

import logging

from mars.observe.events import ATTEMPT, BEGAN, Event
from mars.observe.states import seconds

logger = logging.getLogger("mars")


def log(event: Event) -> None:
    """Log one event.

    Runs are INFO, or WARNING when calls of them failed. Attempts that ended well are DEBUG, others
    WARNING. Each record has ``mars_session`` and ``mars_run``, those of attempts ``mars_call``,
    too, for formats and filters.
    """
    extra: dict[str, object] = {"mars_session": event.session, "mars_run": event.run}
    one = event.attempt
    if event.kind == ATTEMPT and one is not None:
        well = one.ending == "value"
        took = "" if one.times is None else f" after {seconds(one.times.running_s)}"
        logger.log(
            logging.DEBUG if well else logging.WARNING,
            "call %s (%s): attempt %d %s%s on worker %d of %s",
            one.call, one.name, one.attempt, _ENDINGS[one.ending], took, one.worker, one.node,
            extra=extra | {"mars_call": one.call},
        )  # fmt: skip
    elif event.kind == BEGAN:
        logger.info("run %d began: %d calls", event.run, event.total, extra=extra)
    else:
        logger.log(
            logging.WARNING if event.failed else logging.INFO,
            "run %d ended: %d of %d calls done, %d failed",
            event.run, event.done, event.total, event.failed, extra=extra,
        )  # fmt: skip


_ENDINGS = {
    "value": "ended well", "error": "raised an error", "stopped": "was stopped",
    "died": "ended with its worker, which died", "lost": "lost its value, with its node",
    "unknown": "was lost with its node",
}  # fmt: skip

__all__ = ["log", "logger"]
