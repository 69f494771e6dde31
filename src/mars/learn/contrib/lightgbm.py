"""LightGBM with tensors and frames: one call trains with all cores of a worker."""

from __future__ import annotations

from typing import Any

from mars.learn.fitting import of_class


def __getattr__(name: str) -> Any:
    if name in ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"):
        import lightgbm

        return of_class(getattr(lightgbm, name))
    raise AttributeError(f"module 'mars.learn.contrib.lightgbm' has no attribute {name!r}")
