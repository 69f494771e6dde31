"""scikit-learn's made-up data, as tensors: ``X, y = make_blobs(1000)``."""

from __future__ import annotations

from typing import Any

from mars.learn.facade import of_function


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from sklearn import datasets

    found = getattr(datasets, name)
    return of_function(found, always=name.startswith("make_")) if callable(found) else found


def __dir__() -> list[str]:
    from sklearn import datasets

    return sorted(datasets.__all__)
