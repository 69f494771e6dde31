"""The joblib backend, by the names that the original has for it. `mars.joblib` is what it is."""

from __future__ import annotations

from mars.joblib import MarsBackend
from mars.joblib import register as register_mars_backend

MarsDistributedBackend = MarsBackend
"""The name that the original has for the class."""

__all__ = ["MarsDistributedBackend", "register_mars_backend"]
