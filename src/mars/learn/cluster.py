"""scikit-learn's `sklearn.cluster` with tensors and frames; see `mars.learn.facade`.

`KMeans` and `k_means` take what those of the original take: ``init="k-means||"`` begins with
scikit-learn's k-means++, and what belongs to the former only has no effect.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from mars.learn.facade import names_of, of_function
from mars.learn.fitting import of_class

_WAYS: Final = {"k-means||": "k-means++", "auto": "lloyd", "full": "lloyd"}
"""What the original calls otherwise, and what scikit-learn had another name for."""

_OF_ITS_OWN: Final = ("oversampling_factor", "init_iter")


def _translated(kwargs: dict[str, object]) -> dict[str, object]:
    made = {key: one for key, one in kwargs.items() if key not in _OF_ITS_OWN}
    for name in ("init", "algorithm"):
        given = made.get(name)
        if isinstance(given, str):
            made[name] = _WAYS.get(given, given)
    return made


@functools.cache
def _k_means_class() -> object:
    from sklearn import cluster

    made: Any = of_class(cluster.KMeans)
    begin = made.__init__

    @functools.wraps(begin)
    def begun(self: object, n_clusters: int = 8, *args: object, **kwargs: object) -> None:
        if args:  # the original takes it by place
            kwargs.setdefault("init", args[0])
        begin(self, n_clusters, **_translated(kwargs))

    made.__init__ = begun
    return made


@functools.cache
def _k_means() -> Callable[..., object]:
    from sklearn import cluster

    call = of_function(cluster.k_means, executed=True)

    @functools.wraps(cluster.k_means)
    def k_means(X: object, n_clusters: int, **kwargs: object) -> object:
        return call(X, n_clusters, **_translated(kwargs))

    return k_means


_get, _names = names_of("sklearn.cluster")


def __getattr__(name: str) -> Any:
    if name == "KMeans":
        return _k_means_class()
    return _k_means() if name == "k_means" else _get(name)


def __dir__() -> list[str]:
    return _names()
