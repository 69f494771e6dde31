"""Names that programs of the original find here: ``mt.lib.index_tricks``."""

from __future__ import annotations

from types import SimpleNamespace

from mars.tensor.tricks import c_, mgrid, nd_grid, ndindex, ogrid, r_

index_tricks = SimpleNamespace(
    c_=c_, mgrid=mgrid, nd_grid=nd_grid, ndindex=ndindex, ogrid=ogrid, r_=r_
)

__all__ = ["index_tricks"]
