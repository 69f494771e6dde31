"""What a call does that trains a model of XGBoost: by itself, or as one of several members.

The first member has XGBoost's tracker, which tells the members of each other. Runs in workers only;
`mars.learn.contrib.xgboost` describes the calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from mars.learn.contrib.collective import Data, Measured, Options, Seat, Training, own_ip

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix

Trained: TypeAlias = "tuple[Booster, Options]"
"""A booster, and what was measured."""

GRACE_S: Final = 20.0
"""How long members wait for each other's end. They notice that one has failed within seconds."""


def train_part(
    seat: Seat, own: Data, others: Measured, params: Options, rounds: int, kwargs: Options
) -> Trained | None:
    """Train as one of several members. The first one has the tracker, and returns the model."""
    from xgboost import collective

    with contextlib.ExitStack() as stack:
        if seat.rank == 0:
            seat.tell(stack.enter_context(_tracker(seat.count)))
        [found] = seat.ask(1)
        address = cast("dict[str, str | int]", found)
        with collective.CommunicatorContext(**address, dmlc_task_id=f"{seat.rank:06}"):
            own_params = {**params, "nthread": seat.cores}
            trained = train_here(own_params, own, others, rounds, kwargs, seat.rank == 0)
    return trained if seat.rank == 0 else None


ON_NODES: Final = Training("xgboost.train", train_part, GRACE_S)


@contextlib.contextmanager
def _tracker(count: int) -> Iterator[Options]:
    """XGBoost's tracker in this process; gives what members need to find it."""
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(count, host_ip=own_ip(), sortby="task")
    tracker.start()
    try:
        yield dict(tracker.worker_args())
        tracker.wait_for(timeout=int(GRACE_S))  # until the other members have left, too
    finally:
        with contextlib.suppress(XGBoostError):  # it says that members are missing, not why
            tracker.free()


def train_here(
    params: Options, given: Data, others: Measured, rounds: int, kwargs: Options, tells: bool = True
) -> Trained:
    """Train in this process; ``tells`` says whether it prints what was measured."""
    import xgboost

    def matrix(data: object, label: object, more: Options) -> DMatrix:
        return xgboost.DMatrix(data, label, **more)

    measured: dict[str, object] = {}
    booster = xgboost.train(
        params, matrix(*given), rounds, evals=[(matrix(*one), name) for one, name in others],
        evals_result=measured, verbose_eval=bool(others) and tells, **kwargs,
    )  # fmt: skip
    return booster, measured


__all__ = ["ON_NODES", "train_here"]
