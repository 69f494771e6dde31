"""Linear models; the original has some of them under this name. See `mars.learn.linear_model`."""

from __future__ import annotations

from mars.learn.facade import names_of

__getattr__, __dir__ = names_of("sklearn.linear_model")
