"""pandas in chunks, in parallel: ``import mars.dataframe as md``.

The names and the order of rows are those of pandas. Frames are described with `dask.dataframe`, and
the calls of a session compute them::

    import mars.dataframe as md

    df = md.read_csv("sales-*.csv")
    df.groupby("city").amount.sum().execute().fetch()

`names` has the tables of all names, `core` the kinds of frames, `handle` what they are, `methods`
how a method is computed, `groups` their groups, `rows` the order of rows over all chunks, `whole`
what needs a whole frame, `joining` cuts frames and puts them together, and `reading` has the
functions that make frames. Needs the extra ``dataframe``: ``pip install "mars-remote[dataframe]"``.
"""

from __future__ import annotations

import functools
from typing import Any

from mars.dataframe.names import ORIGINAL_MODULES, TOP, TOP_MISSING
from mars.tileables.module_names import stand_for

stand_for("mars.dataframe", ORIGINAL_MODULES)


def __getattr__(name: str) -> Any:
    found: object
    if name in ("DataFrame", "Series", "Index"):
        from mars.dataframe import reading

        found = getattr(reading, name)
    elif name == "ExecutableTuple":
        from mars.calls.objects import ExecutableTuple

        found = ExecutableTuple
    elif name == "ArrowStringDtype":
        import pandas

        found = functools.partial(pandas.StringDtype, "pyarrow")
    elif name in TOP:
        import pandas

        from mars.dataframe import joining, reading

        home = joining if name == "concat" else reading
        found = getattr(home, name, None) or getattr(pandas, name)
    elif name in TOP_MISSING:
        raise NotImplementedError(f"mars.dataframe.{name} is not there: {TOP_MISSING[name]}")
    else:
        import pandas

        if not name.startswith("_") and callable(getattr(pandas, name, None)):
            raise NotImplementedError(
                f"mars.dataframe.{name} is not there: use pandas.{name} on to_pandas(), or call it "
                f"in map_chunk()"
            )
        raise AttributeError(f"module 'mars.dataframe' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(TOP)
