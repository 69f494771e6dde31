"""numpy in chunks, in parallel: ``import mars.tensor as mt``.

The names and conventions are those of Mars and numpy. Arrays are described with `dask.array`, and
the calls of a session compute them::

    import mars.tensor as mt

    a = mt.random.rand(10_000, 10_000, chunk_size=2_500)
    (a + a.T).sum().execute().fetch()

`names` has the tables of all names, `find` what is behind them, `core` has `Tensor`, `calling`
makes a function of numpy or Dask one of tensors, `creation` makes tensors of values, and `own` has
the functions that Dask lacks. Needs the extra ``tensor``: ``pip install "mars-remote[tensor]"``.
"""

from __future__ import annotations

from typing import Any

from mars.tensor import find
from mars.tensor.names import ORIGINAL_MODULES
from mars.tileables.module_names import stand_for

stand_for("mars.tensor", ORIGINAL_MODULES)


def __getattr__(name: str) -> Any:
    if name == "Tensor":
        from mars.tensor.core import Tensor

        found: object = Tensor
    elif name == "__all__":
        found = find.starred_names()
    elif name == "ExecutableTuple":
        from mars.calls.objects import ExecutableTuple

        found = ExecutableTuple
    else:
        found = find.find(name)
        if found is None and name != "newaxis":
            raise AttributeError(f"module 'mars.tensor' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return find.public_names()
