"""Names that programs of the original find here: ``mt.lib.index_tricks``."""

from __future__ import annotations

from types import SimpleNamespace

from mars.tensor.own import c_, mgrid, ndindex, ogrid, r_

index_tricks = SimpleNamespace(c_=c_, mgrid=mgrid, ndindex=ndindex, ogrid=ogrid, r_=r_)

__all__ = ["index_tricks"]
