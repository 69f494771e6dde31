"""One model for each chunk of rows, which vote: they learn in calls beside each other.

The data never come together, so they may be larger than the memory of a worker.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any, Protocol, Self

from mars.calls.objects import ExecutableTuple
from mars.calls.spawn import spawn
from mars.code import places
from mars.learn.fitting import fit_whole, on_rows, rows_between
from mars.tileables.tileable import Tileable, value_of

if TYPE_CHECKING:
    from numpy import ndarray


class Regressor(Protocol):
    """A fitted model."""

    def predict(self, rows: object, /) -> ndarray: ...


class Classifier(Regressor, Protocol):
    """A fitted model that knows classes."""

    classes_: ndarray

    def predict_proba(self, rows: object, /) -> ndarray: ...


class _Voting:
    """What both kinds have in common.

    Attributes
    ----------
    estimators_ : list
        The fitted models, one for each chunk of rows.
    """

    estimators_: list[Any]  # of the class of the estimator

    def __init__(self, estimator: object) -> None:
        self.estimator = estimator

    def fit(self, X: Sized, y: Sized, **kwargs: object) -> Self:
        """Have a copy of the estimator learn from each chunk of rows, in a call of its own.

        Parameters
        ----------
        X : Tensor, frame or array_like
            The rows. What is no tensor or frame is one chunk.
        y : Tensor, frame or array_like
            What is to be learned, in chunks of any lengths.
        **kwargs
            As of the estimator's `fit`.
        """
        from sklearn.base import clone

        kwargs.pop("session", None)
        kwargs.pop("run_kwargs", None)
        if len(X) != len(y):
            raise ValueError(f"there are {len(X)} rows, but {len(y)} values to learn")
        lengths = X.nsplits[0] if hasattr(X, "nsplits") else (len(X),)
        ends = [0, *itertools.accumulate(int(one) for one in lengths)]
        with places.whole_values():
            calls = [
                spawn(
                    fit_whole,
                    (clone(self.estimator), rows_between(X, a, b), rows_between(y, a, b), kwargs),
                    name=f"{type(self.estimator).__name__}.fit",
                )
                for a, b in itertools.pairwise(ends)
                if b > a
            ]
        ExecutableTuple(calls).execute(show_progress=False)
        self.estimators_ = []
        for one in calls:
            model = clone(self.estimator)
            model.__dict__.update(one.fetch())
            self.estimators_.append(model)
        return self

    def predict(self, X: object) -> object:
        """What the models together say of each row, on all chunks beside each other."""
        return self._on_rows("predict", X)

    def _on_rows(self, name: str, X: object) -> object:
        models = self._together()
        return on_rows(models, name, X) if isinstance(X, Tileable) else getattr(models, name)(X)

    def _together(self) -> object:
        """Something that votes for rows of numpy or pandas."""
        raise NotImplementedError


class BlockwiseVotingClassifier(_Voting):
    """A classifier for each chunk of rows; they vote.

    Parameters
    ----------
    estimator : estimator of scikit-learn
        Copies of it learn.
    voting : {"hard", "soft"}, default "hard"
        "hard": the class that most models name. "soft": the class with the largest mean of their
        probabilities.
    classes : array_like, optional
        All classes. Default: those of ``y``. Each chunk has to have all of them for "soft".

    Examples
    --------
    >>> import mars.tensor as mt
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = mt.tensor([[0.0], [1.0], [0.0], [1.0]], chunk_size=2), mt.tensor([0, 1, 0, 1])
    >>> model = BlockwiseVotingClassifier(LogisticRegression()).fit(X, y)
    >>> len(model.estimators_), model.predict(X).fetch().tolist()
    (2, [0, 1, 0, 1])
    """

    __module__ = "mars.learn.ensemble"

    def __init__(self, estimator: object, voting: str = "hard", classes: object = None) -> None:
        super().__init__(estimator)
        self.voting, self.classes = voting, classes

    def fit(self, X: Sized, y: Sized, **kwargs: object) -> Self:
        """Have a copy of the classifier learn from each chunk of rows; see the base class."""
        import numpy

        if self.voting not in ("hard", "soft"):
            raise ValueError(f"voting has to be 'hard' or 'soft', got {self.voting!r}")
        super().fit(X, y, **kwargs)
        known = self.classes
        if known is None:
            known = numpy.concatenate([one.classes_ for one in self.estimators_])
        self.classes_ = numpy.unique(known)  # type: ignore[call-overload]
        return self

    def predict_proba(self, X: object) -> object:
        """The means of the models' probabilities, with ``voting="soft"``."""
        if self.voting != "soft":
            raise AttributeError("predict_proba() needs voting='soft'")
        return self._on_rows("predict_proba", X)

    def score(self, X: Sized, y: Sized) -> float:
        """The share of rows whose class is right."""
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(value_of(y), value_of(self.predict(X))))

    def _together(self) -> object:
        return _Classifiers(self.estimators_, self.classes_, self.voting == "soft")


class BlockwiseVotingRegressor(_Voting):
    """A regressor for each chunk of rows; the prediction is the mean of theirs.

    Parameters
    ----------
    estimator : estimator of scikit-learn
        Copies of it learn.
    """

    __module__ = "mars.learn.ensemble"

    def score(self, X: Sized, y: Sized) -> float:
        """The coefficient of determination."""
        from sklearn.metrics import r2_score

        return float(r2_score(value_of(y), value_of(self.predict(X))))

    def _together(self) -> object:
        return _Regressors(self.estimators_)


class _Classifiers:
    """Classifiers that vote for rows."""

    def __init__(self, models: Sequence[Classifier], classes: ndarray, soft: bool) -> None:
        self._models, self._classes, self._soft = models, classes, soft

    def predict_proba(self, rows: Sized) -> ndarray:
        import numpy

        made = numpy.zeros((len(rows), len(self._classes)))
        for model in self._models:
            made[:, numpy.searchsorted(self._classes, model.classes_)] += model.predict_proba(rows)
        return made / len(self._models)

    def predict(self, rows: Sized) -> object:
        import numpy

        if self._soft:
            return self._classes[self.predict_proba(rows).argmax(axis=1)]
        votes = numpy.zeros((len(rows), len(self._classes)))
        for model in self._models:
            votes[
                numpy.arange(len(rows)), numpy.searchsorted(self._classes, model.predict(rows))
            ] += 1
        return self._classes[votes.argmax(axis=1)]


class _Regressors:
    """Regressors whose predictions are averaged."""

    def __init__(self, models: Sequence[Regressor]) -> None:
        self._models = models

    def predict(self, rows: Sized) -> object:
        import numpy

        return numpy.mean([numpy.asarray(one.predict(rows)) for one in self._models], axis=0)


__all__ = ["BlockwiseVotingClassifier", "BlockwiseVotingRegressor"]
