"""Which names frames have, and how each is computed: the tables that the classes and docs read.

Names of `PARALLEL` are computed in chunks by `dask.dataframe`. `BY_ROW` names look at each row by
itself, so pandas does them chunk by chunk. All other names of pandas run as one call that gets the
whole frame: right, but not parallel. `MISSING` says what to use for what is not there.
"""

from __future__ import annotations

from typing import Final

PARALLEL: Final = frozenset(
    [
        "all", "any", "count", "max", "min", "mean", "prod", "product", "sum", "std", "var", "sem",
        "nunique", "idxmax", "idxmin", "memory_usage", "cumsum", "cumprod", "cummax", "cummin",
        "merge", "nlargest", "nsmallest", "corr", "cov", "ffill", "bfill",
    ]
)  # fmt: skip
"""Computed in chunks; where Dask refuses the arguments, one call gets the whole frame."""

BY_ROW: Final = frozenset(
    [
        "abs", "add", "astype", "between", "clip", "div", "divide", "dropna", "eq", "fillna",
        "floordiv", "ge", "gt", "isin", "isna", "isnull", "le", "lt", "map", "mask", "mod", "mul",
        "multiply", "ne", "notna", "notnull", "pow", "radd", "rdiv", "rename_axis", "replace",
        "rfloordiv", "rmod", "rmul", "round", "rpow", "rsub", "rtruediv", "select_dtypes", "sub",
        "subtract", "to_frame", "to_timestamp", "truediv", "where", "eval", "query", "drop",
        "rename", "add_prefix", "add_suffix", "combine_first", "applymap", "assign", "explode",
        "set_index",
    ]
)  # fmt: skip
"""Each row by itself, if no other frame is among the arguments."""

UNKNOWN: Final = frozenset({"to_clipboard", "to_gbq", "to_iceberg", "to_orc", "to_stata", "to_xml"})
"""Left to pandas: fetch the frame for these."""

MISSING: Final = {
    "to_vineyard": "vineyard is not supported; use to_parquet()",
    "to_ray_dataset": "use to_pandas(), or to_parquet() and ray.data.read_parquet()",
    "to_ray_mldataset": "use to_pandas(), or to_parquet() and ray.data.read_parquet()",
    "set_flags": "frames are never changed by others",
}

TOP: Final = [
    "DataFrame", "Series", "Index", "read_csv", "read_parquet", "read_sql", "read_sql_table",
    "read_sql_query", "read_json", "concat", "merge", "date_range", "to_datetime", "to_numeric",
    "to_timedelta", "unique", "cut", "qcut", "get_dummies", "isna", "isnull", "notna", "notnull",
    "from_pandas", "from_tensor", "from_records", "pivot_table", "crosstab", "melt", "factorize",
    "ExecutableTuple", "Timestamp", "Timedelta", "DateOffset", "Interval", "NamedAgg", "NaT", "NA",
    "Categorical", "CategoricalDtype", "Period", "Grouper", "MultiIndex", "IndexSlice",
    "ArrowStringDtype", "CustomReduction", "eval", "offsets", "timedelta_range", "period_range",
    "interval_range", "merge_asof", "merge_ordered", "wide_to_long",
]  # fmt: skip
"""The names of `mars.dataframe`."""

TOP_MISSING: Final = {
    "read_ray_dataset": "write it as Parquet, and use read_parquet()",
    "read_raydataset": "write it as Parquet, and use read_parquet()",
    "read_ray_mldataset": "write it as Parquet, and use read_parquet()",
    "from_vineyard": "vineyard is not supported; use read_parquet()",
}

ORIGINAL_MODULES: Final[dict[str, dict[str, str]]] = {
    **{
        name: {}
        for name in ("arithmetic", "base", "datasource", "datastore", "groupby", "indexing",
                     "initializer", "merge", "missing", "reduction", "sort", "statistics",
                     "window", "datasource.dataframe", "datasource.date_range",
                     "datasource.from_records", "datasource.index", "datasource.read_csv",
                     "datasource.read_parquet", "datasource.read_sql", "datasource.series")
    },
    "datasource.from_tensor": {
        "dataframe_from_1d_tileables": "DataFrame",
        "dataframe_from_tensor": "from_tensor",
        "series_from_tensor": "Series",
    },
}  # fmt: skip
"""Modules of the original, and the functions that had other names there."""

GROUPED: Final = frozenset(
    [
        "all", "any", "count", "max", "min", "mean", "prod", "sum", "std", "var", "size", "first",
        "last", "nunique",
    ]
)  # fmt: skip
"""What groups are reduced to in chunks; other methods of groups get the whole frame."""

__all__ = [
    "BY_ROW", "GROUPED", "MISSING", "ORIGINAL_MODULES", "PARALLEL", "TOP", "TOP_MISSING", "UNKNOWN",
]  # fmt: skip
