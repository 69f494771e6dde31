"""scikit-learn's `sklearn.ensemble` with tensors and frames; see `mars.learn.facade`.

`BlockwiseVotingClassifier` and `BlockwiseVotingRegressor` are of `mars.learn.blockwise`.
"""

from __future__ import annotations

import functools

from mars.learn.blockwise import BlockwiseVotingClassifier, BlockwiseVotingRegressor
from mars.learn.facade import names_of
from mars.learn.fitting import of_class


@functools.cache
def _bagging(name: str) -> object:
    """A class of scikit-learn whose first argument may have the name that it had before 1.2."""
    from sklearn import ensemble

    made = of_class(getattr(ensemble, name))
    begin = vars(getattr(ensemble, name))["__init__"]

    @functools.wraps(begin)
    def begun(self: object, *args: object, **kwargs: object) -> None:
        if "base_estimator" in kwargs:
            kwargs["estimator"] = kwargs.pop("base_estimator")
        begin(self, *args, **kwargs)

    type.__setattr__(made, "__init__", begun)
    return made


_get, __dir__ = names_of(
    "sklearn.ensemble",
    {
        "BlockwiseVotingClassifier": BlockwiseVotingClassifier,
        "BlockwiseVotingRegressor": BlockwiseVotingRegressor,
    },
)


def __getattr__(name: str) -> object:
    return _bagging(name) if name in ("BaggingClassifier", "BaggingRegressor") else _get(name)
