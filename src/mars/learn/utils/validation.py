"""scikit-learn's `sklearn.utils.validation` with tensors and frames; see `mars.learn.facade`."""

from __future__ import annotations

from mars.learn.facade import names_of

__getattr__, __dir__ = names_of("sklearn.utils.validation")
