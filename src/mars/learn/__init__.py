"""scikit-learn with tensors and frames, under the names of the original: `mars.learn.metrics`, ….

Its modules have the names of scikit-learn's. `facade` makes their functions and classes, `fitting`
has what estimators do with tensors and frames. Needs the extra ``learn``:
``pip install "mars-remote[learn]"``.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

MODULES: Final = (
    "cluster", "contrib", "datasets", "decomposition", "ensemble", "feature_extraction", "glm",
    "linear_model", "metrics", "model_selection", "neighbors", "preprocessing", "semi_supervised",
    "svm", "utils", "wrappers",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"mars.learn.{name}")
    raise AttributeError(f"module 'mars.learn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(MODULES)
