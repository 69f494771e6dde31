"""What a call does that trains a model of LightGBM as one of several members.

Each member opens a port and learns the ports of the others; LightGBM connects them. Runs in workers
only; `mars.learn.contrib.lightgbm` describes the calls.
"""

from __future__ import annotations

import contextlib
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol, cast

from mars.learn.contrib.collective import Data, Measured, Options, Seat, Training, own_ip

if TYPE_CHECKING:
    from numpy import ndarray

GRACE_S: Final = 2.0
"""LightGBM does not notice that a member is gone, so the others need not be given long for it."""

CONNECT_MIN: Final = 2
"""How long members look for each other, in minutes. LightGBM's own limit is two hours."""

LEARNERS: Final = (
    "data",
    "data_parallel",
    "feature",
    "feature_parallel",
    "voting",
    "voting_parallel",
)
"""Values of LightGBM's ``tree_learner`` for several members."""


class Model(Protocol):
    """A model of LightGBM with the conventions of scikit-learn."""

    def get_params(self) -> Options: ...
    def set_params(self, **params: object) -> object: ...


def fit_part(
    seat: Seat, own: Data, _: Measured, model: Model, kwargs: Options, classes: ndarray | None,
    weights: Sequence[float] | None,
) -> Options | None:  # fmt: skip
    """Fit a model as one of several members; the first one returns what it has learned.

    Each node measures all data of ``eval_set``: LightGBM does not add up what nodes have measured,
    and all of them have to stop early after the same round.

    Parameters
    ----------
    seat : Seat
        Which member this is.
    own : tuple
        The rows of this node, what is to be learned, and what else belongs to them.
    model : LGBMModel
        As the program has it.
    kwargs : dict
        As of LightGBM's `fit`, without what belongs to the rows.
    classes : ndarray, optional
        The labels of all nodes, sorted; None for a model that is no classifier.
    weights : sequence of float, optional
        The weight of each class.
    """
    import lightgbm
    import numpy

    data, label, more = own
    before = model.get_params()
    if classes is not None:
        numbered = _numbering(model, classes)
        label = numbered(label)
        kwargs = _with_numbers(kwargs, numbered)
        if weights is not None:
            each = numpy.asarray(weights)[label]
            given = more.get("sample_weight")
            more = {**more, "sample_weight": each if given is None else each * numpy.asarray(given)}
    with _port(seat) as network:
        learner = before.get("tree_learner")
        model.set_params(
            **network, n_jobs=seat.cores, tree_learner=learner if learner in LEARNERS else "data",
            **({"class_weight": None} if weights is not None else {}),
        )  # fmt: skip
    fit: Callable[..., object] = lightgbm.LGBMModel.fit  # what a classifier's does before is done
    try:
        fit(model, data, label, **more, **kwargs)
    except BaseException as error:
        # The booster leaves the network when it goes, and the frames of the error keep it.
        traceback.clear_frames(error.__traceback__)
        raise
    booster = cast("lightgbm.LGBMModel", model).booster_
    booster.free_network()
    if seat.rank > 0:
        return None
    settings = {*model.get_params(), "_other_params"}
    for name in settings - before.keys():
        booster.params.pop(name, None)
    return {name: one for name, one in vars(model).items() if name not in settings}


def _begins_anew(error: BaseException) -> bool:
    """Whether another process took a port between the time when it was free and its use."""
    return type(error).__name__ == "LightGBMError" and "Binding port" in str(error)


ON_NODES: Final = Training("lightgbm.fit", fit_part, GRACE_S, _begins_anew)


def _numbering(model: Model, classes: ndarray) -> Callable[[object], ndarray]:
    """Tell a classifier all classes; gives what numbers labels. A node may lack some classes."""
    import numpy
    from sklearn.preprocessing import LabelEncoder

    encoder = LabelEncoder().fit(classes)
    numbers = {one: number for number, one in enumerate(classes.tolist())}
    known = {"_le": encoder, "_classes": classes, "_n_classes": len(classes), "_class_map": numbers}
    vars(model).update(known, _objective=model.get_params()["objective"])

    def numbered(labels: object) -> ndarray:
        made: ndarray = encoder.transform(numpy.ravel(numpy.asarray(labels)))
        return made

    return numbered


def _with_numbers(kwargs: Options, numbered: Callable[[object], ndarray]) -> Options:
    """Arguments of `fit` with numbers in the place of the labels to measure on."""
    made = dict(kwargs)
    if "eval_set" in made:
        pairs = cast("Sequence[tuple[object, object]]", made["eval_set"])
        made["eval_set"] = [(rows, numbered(labels)) for rows, labels in pairs]
    if "eval_y" in made:
        each = made["eval_y"]
        made["eval_y"] = tuple(map(numbered, each)) if isinstance(each, tuple) else numbered(each)
    return made


@contextlib.contextmanager
def _port(seat: Seat) -> Iterator[Options]:
    """A free port on this node, kept until the block ends; gives what LightGBM has to be told."""
    with socket.socket() as kept:
        kept.bind(("", 0))
        port = kept.getsockname()[1]
        seat.tell({"address": f"{own_ip()}:{port}"})
        found = seat.ask(seat.count)
        yield {
            "machines": ",".join(str(one["address"]) for one in found),
            "num_machines": seat.count, "local_listen_port": port, "time_out": CONNECT_MIN,
        }  # fmt: skip


__all__ = ["ON_NODES", "fit_part"]
