"""Which names `mars.tensor` has, and what is behind each: the tables that modules and docs read.

A name of `DASK` is the function of `dask.array` with the same name, one of `RENAMED` has another
name there. `OWN` names are in `mars.tensor.creation`, `own`, `ranking` and `files`. `WHOLE` names
are functions of numpy that one call runs on the whole arrays. `VALUES` are numpy's constants and
types. `MISSING` says what to use for names of the original that are not there.
"""

from __future__ import annotations

from typing import Final

CREATING: Final = frozenset(
    [
        "arange", "empty", "empty_like", "full", "full_like", "indices", "linspace", "ones",
        "ones_like", "tri", "zeros", "zeros_like",
    ]
)  # fmt: skip
"""Functions that make arrays, and take ``chunk_size``."""

TAKES_LISTS: Final = frozenset(
    [
        "apply_along_axis", "apply_over_axes", "atleast_1d", "atleast_2d", "atleast_3d", "block",
        "broadcast_arrays", "concatenate", "dstack", "einsum", "fromfunction", "histogramdd",
        "hstack", "meshgrid", "ndim", "result_type", "select", "stack", "vstack",
    ]
)  # fmt: skip
"""Functions whose first argument is no array, or may be a list of arrays."""

VARYING: Final = frozenset(
    [
        "argwhere", "bincount", "compress", "extract", "flatnonzero", "histogram", "nonzero",
        "repeat", "union1d", "unique",
    ]
)  # fmt: skip
"""Functions whose results have lengths that values decide."""

OF_NUMBERS: Final = frozenset({"cumprod", "cumsum", "nancumprod", "nancumsum", "std", "var"})
"""Functions that Dask begins with a number, which Python objects may not take."""

KEEPS_ORDER: Final = frozenset({"cumprod", "cumsum", "nancumprod", "nancumsum"})
"""Functions that Dask puts together by rows, and numpy as the elements lie in memory."""

OWN_ORDER: Final = frozenset({"ravel_multi_index", "reshape", "unravel_index"})
"""Functions whose argument ``order`` says how to count, not how the result lies in memory."""

PLAIN: Final = frozenset({"ndim", "result_type"})
"""Functions whose results are no tensors."""

TRIED_ELEMENTS: Final = 100_000
"""To find out what the result of a function looks like, it is called with arrays of ones. Those
that stand for arrays of at most so many elements have the same lengths: it takes less than 1 ms."""

DASK: Final = frozenset(
    [
        "abs", "absolute", "add", "all", "allclose", "angle", "any", "apply_along_axis",
        "apply_over_axes", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
        "argmax", "argmin", "argwhere", "around", "atleast_1d", "atleast_2d", "atleast_3d",
        "average", "bincount", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "block",
        "broadcast_arrays", "cbrt", "ceil", "choose", "clip", "concatenate", "conj",
        "copysign", "corrcoef", "cos", "cosh", "count_nonzero", "cov", "cumprod", "cumsum",
        "deg2rad", "degrees", "diag", "diagonal", "diff", "digitize", "divide", "divmod", "dot",
        "dstack", "ediff1d", "einsum", "empty_like", "equal", "exp", "exp2", "expand_dims", "expm1",
        "extract", "fabs", "fix", "flatnonzero", "flip", "fliplr", "flipud", "float_power", "floor",
        "floor_divide", "fmax", "fmin", "fmod", "frexp", "fromfunction", "full_like", "gradient",
        "greater", "greater_equal", "histogram", "histogram2d", "histogramdd", "hstack", "hypot",
        "i0", "imag", "indices", "invert", "isclose", "iscomplex", "isfinite", "isin", "isinf",
        "isnan", "isneginf", "isposinf", "isreal", "ldexp", "left_shift", "less", "less_equal",
        "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2", "logical_and", "logical_not",
        "logical_or", "logical_xor", "matmul", "max", "maximum", "mean", "meshgrid", "min",
        "minimum", "mod", "modf", "moveaxis", "multiply", "nan_to_num", "nanargmax", "nanargmin",
        "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmin", "nanprod", "nanstd", "nansum",
        "nanvar", "ndim", "negative", "nextafter", "nonzero", "not_equal", "ones_like", "outer",
        "pad", "piecewise", "positive", "power", "prod", "ptp", "rad2deg", "radians",
        "ravel_multi_index", "real", "reciprocal", "remainder", "repeat", "reshape", "result_type",
        "right_shift", "rint", "roll", "rollaxis", "rot90", "round", "select", "sign", "signbit",
        "sin", "sinc", "sinh", "spacing", "sqrt", "square", "squeeze", "stack", "std", "subtract",
        "sum", "swapaxes", "tan", "tanh", "tensordot", "tile", "trace", "transpose", "tri", "tril",
        "triu", "true_divide", "trunc", "union1d", "unique", "unravel_index", "var", "vdot",
        "vstack", "where", "zeros_like",
    ]
)  # fmt: skip

RENAMED: Final = {
    "amax": "max",
    "amin": "min",
    "conjugate": "conj",
    "product": "prod",
    "round_": "round",
    "row_stack": "vstack",
    "concat": "concatenate",
    "permute_dims": "transpose",
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atanh": "arctanh",
    "atan2": "arctan2",
    "pow": "power",
    "bitwise_invert": "invert",
    "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift",
}
"""Other names of functions; those of the array API standard are among them."""

OWN: Final = frozenset(
    [
        "append", "arange", "argpartition", "argsort", "argtopk", "array", "array2string",
        "array_equal", "array_repr", "array_split", "array_str", "asarray", "ascontiguousarray",
        "asfortranarray", "astype", "broadcast_to", "column_stack", "compress", "copy", "copyto",
        "delete",
        "diagflat", "dsplit", "einsum_path", "empty", "eye", "fill_diagonal", "flatten",
        "from_dataframe", "from_hdf5", "from_zarr", "fromhdf5", "fromzarr", "full", "hsplit",
        "identity", "in1d", "inner", "innerproduct", "insert", "iscomplexobj", "isrealobj",
        "isscalar", "linspace", "map_chunk", "matrix_transpose", "median", "nanmedian",
        "nanpercentile", "nanquantile", "ones", "partition", "percentile", "quantile", "ravel",
        "rebalance", "rechunk", "reshape", "resize", "scalar", "searchsorted", "setdiff1d", "shape",
        "size", "sort", "split", "take", "take_along_axis", "tensor", "to_cpu", "to_gpu", "to_hdf5",
        "to_zarr", "tohdf5", "topk", "tozarr", "trapezoid", "trapz", "unique", "vsplit", "zeros",
    ]
)  # fmt: skip

WHOLE: Final = {
    "convolve": 1,
    "correlate": 1,
    "cross": None,
    "histogram_bin_edges": 1,
    "interp": None,
    "intersect1d": 1,
    "kron": None,
    "lexsort": None,
    "setxor1d": 1,
    "trim_zeros": 1,
    "unwrap": None,
    "vander": 2,
}
"""Functions of numpy on whole arrays, and the number of axes of the result; None: found out."""

INDEX_TRICKS: Final = frozenset({"c_", "mgrid", "ndindex", "ogrid", "r_"})

VALUES: Final = frozenset(
    [
        "newaxis", "inf", "nan", "pi", "e", "errstate", "geterr", "seterr", "dtype", "number",
        "inexact", "floating", "complexfloating", "integer", "signedinteger", "unsignedinteger",
        "character", "generic", "flexible", "int_", "bool_", "bytes_", "void", "object_", "intc",
        "intp", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "uint",
        "float16", "float32", "float64", "complex64", "complex128", "datetime64", "timedelta64",
        "finfo", "iinfo", "can_cast", "promote_types", "issubdtype", "isdtype", "bool", "long",
        "ulong", "longlong", "str_", "euler_gamma", "set_printoptions", "get_printoptions",
        "printoptions",
    ]
)  # fmt: skip

RENAMED_VALUES: Final = {
    "AxisError": "exceptions.AxisError",
    "Inf": "inf",
    "NaN": "nan",
    "NAN": "nan",
    "float_": "float64",
    "cfloat": "complex128",
    "complex_": "complex128",
    "unicode_": "str_",
    "half": "float16",
    "single": "float32",
    "double": "float64",
}

MODULES: Final = frozenset({"fft", "lib", "linalg", "random", "spatial", "special", "stats"})

ORIGINAL_MODULES: Final[dict[str, dict[str, str]]] = {
    "arithmetic": {
        "bitand": "bitwise_and",
        "bitor": "bitwise_or",
        "bitxor": "bitwise_xor",
        "floordiv": "floor_divide",
        "lshift": "left_shift",
        "rshift": "right_shift",
        "truediv": "true_divide",
    },
    **{
        name: {}
        for name in ("base", "datasource", "datastore", "indexing", "merge", "reduction",
                     "reshape", "statistics")
    },
}  # fmt: skip
"""Modules of the original, and the functions that had other names there."""

MISSING: Final = {
    "fromtiledb": "TileDB is not supported; write Zarr, and read it with from_zarr",
    "totiledb": "TileDB is not supported; use to_zarr",
    "fromvineyard": "vineyard is not supported; use from_zarr",
    "tovineyard": "vineyard is not supported; use to_zarr",
    "from_vineyard": "vineyard is not supported; use from_zarr",
    "to_vineyard": "vineyard is not supported; use to_zarr",
    "nditer": "iterate over fetch()",
    "put": "assign by index: x[indices] = values",
    "putmask": "assign by mask: x[mask] = values",
    "tiledb": "TileDB is not supported; use from_zarr and to_zarr",
    "create_mutable_tensor": "use mars.put for each version of the values",
    "nested": "use map_chunk",
}

METHODS: Final = frozenset(
    [
        "all", "any", "argmax", "argmin", "argpartition", "argsort", "argtopk", "choose", "clip",
        "conj", "conjugate", "cumprod", "cumsum", "diagonal", "max", "mean", "min", "nansum",
        "nonzero", "prod", "ptp", "ravel", "repeat", "round", "searchsorted", "squeeze", "std",
        "sum", "swapaxes", "take", "to_cpu", "to_gpu", "to_hdf5", "to_zarr", "tohdf5", "topk",
        "tozarr", "trace", "var",
    ]
)  # fmt: skip
