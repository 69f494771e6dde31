"""Names of `scipy.spatial` on tensors: ``mt.spatial.distance.cdist(a, b)``."""

from __future__ import annotations

from mars.tensor.spatial import distance

__all__ = ["distance"]
