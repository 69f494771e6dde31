"""The joblib backend "mars": what a program runs with joblib runs as calls of a session.

After ``import mars.joblib`` joblib knows the name::

    import joblib
    import mars.joblib

    with joblib.parallel_config("mars"):
        search.fit(X, y)  # scikit-learn, or any other program that uses joblib

`backend` is what joblib talks to, `flight` has the batches that are under way, `packing` stores
what they have in common, and `work` is what runs in a worker. The package needs joblib; nothing
else in mars imports it.
"""

from __future__ import annotations

from mars.joblib.backend import MarsBackend, register
from mars.joblib.flight import Batch

register()

__all__ = ["Batch", "MarsBackend", "register"]
