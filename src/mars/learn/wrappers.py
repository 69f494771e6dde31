"""Estimators around other estimators: `ParallelPostFit`."""

from __future__ import annotations

from typing import Any

from mars.learn.fetchable import fetchable
from mars.learn.fitting import on_rows
from mars.tileables.tileable import Tileable, value_of


class ParallelPostFit:
    """An estimator that learns as it does, and predicts on all chunks beside each other.

    Parameters
    ----------
    estimator : estimator
        Any estimator with the conventions of scikit-learn.
    scoring : str or callable, optional
        As of scikit-learn; for `score`.

    Examples
    --------
    >>> import mars.tensor as mt
    >>> from sklearn.linear_model import LinearRegression
    >>> model = ParallelPostFit(LinearRegression()).fit([[0.0], [1.0]], [0.0, 2.0])
    >>> model.predict(mt.tensor([[2.0], [3.0]], chunk_size=1)).fetch().round(3).tolist()
    [4.0, 6.0]
    """

    def __init__(self, estimator: Any = None, scoring: object = None) -> None:
        self.estimator = estimator
        self.scoring = scoring

    def fit(self, X: object, y: object = None, **kwargs: object) -> ParallelPostFit:
        """Have the estimator learn from data, in the program."""
        self.estimator.fit(value_of(X), value_of(y), **kwargs)
        return self

    def partial_fit(self, X: object, y: object = None, **kwargs: object) -> ParallelPostFit:
        """Have the estimator learn from more data, in the program."""
        self.estimator.partial_fit(value_of(X), value_of(y), **kwargs)
        return self

    def score(self, X: object, y: object) -> Any:
        """The score on data."""
        from sklearn.metrics import check_scoring

        return check_scoring(self.estimator, self.scoring)(self.estimator, value_of(X), value_of(y))

    def _run(self, name: str, X: object) -> object:
        if isinstance(X, Tileable):
            return on_rows(self.estimator, name, X)
        return fetchable(getattr(self.estimator, name)(X))

    def predict(self, X: object) -> Any:
        """Predictions for rows."""
        return self._run("predict", X)

    def predict_proba(self, X: object) -> Any:
        """Probabilities of the classes, for rows."""
        return self._run("predict_proba", X)

    def transform(self, X: object) -> Any:
        """Transformed rows."""
        return self._run("transform", X)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "estimator" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.estimator, name)


__all__ = ["ParallelPostFit"]
