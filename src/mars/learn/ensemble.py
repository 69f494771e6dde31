"""scikit-learn's `sklearn.ensemble` with tensors and frames; see `mars.learn.facade`.

`BlockwiseVotingClassifier` and `BlockwiseVotingRegressor` are of `mars.learn.blockwise`.
"""

from __future__ import annotations

from mars.learn.blockwise import BlockwiseVotingClassifier, BlockwiseVotingRegressor
from mars.learn.facade import names_of

__getattr__, __dir__ = names_of(
    "sklearn.ensemble",
    {
        "BlockwiseVotingClassifier": BlockwiseVotingClassifier,
        "BlockwiseVotingRegressor": BlockwiseVotingRegressor,
    },
)
