"""Linear algebra on tensors: ``mt.linalg.svd(a)``.

`qr`, `svd`, `norm`, `inv`, `solve`, `cholesky`, `lu` and `lstsq` run in blocks. Other functions of
numpy.linalg run as one call on the whole array.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from mars.tensor.calling import lowered, of_dask, of_whole, whole
from mars.tensor.core import Tensor, tensor_of

if TYPE_CHECKING:
    from dask.array import Array

    from mars.calls.objects import ExecutableTuple

BLOCKWISE: Final = frozenset(
    [
        "cholesky", "inv", "lstsq", "lu", "norm", "qr", "solve", "solve_triangular", "svd",
        "svd_compressed",
    ]
)  # fmt: skip
WHOLE: Final = {
    "cond": 0,
    "det": None,
    "eig": None,
    "eigh": None,
    "eigvals": 1,
    "eigvalsh": 1,
    "matrix_power": 2,
    "matrix_rank": 0,
    "multi_dot": None,
    "pinv": 2,
    "slogdet": None,
}
SHARED: Final = frozenset(
    {"dot", "inner", "innerproduct", "matmul", "tensordot", "vdot", "outer", "trace"}
)


def qr(a: object, method: str = "tsqr", **_: object) -> ExecutableTuple:
    """Orthogonal and triangular factors. The chunks are made rows as wide as the array.

    An array that is wider than high is cut into columns, as with ``method="sfqr"``.
    """
    import dask.array as da

    given = _matrix(a, "qr")
    rows, columns = given.shape
    if rows < columns:
        ready = given.rechunk({0: -1, 1: max(rows, *given.chunks[1])})
        return tensor_of(da.linalg.sfqr(ready))
    return tensor_of(da.linalg.qr(given.rechunk({1: -1})))


def svd(
    a: object, method: str = "tsqr", full_matrices: bool = False, compute_uv: bool = True,
    **_: object,
) -> Tensor | ExecutableTuple:  # fmt: skip
    """Singular values and vectors. The chunks are made rows as wide as the array."""
    import dask.array as da

    if full_matrices:
        raise NotImplementedError("full_matrices=True is not there; leave it away")
    given = _matrix(a, "svd")
    rows, columns = given.shape
    given = given.rechunk({1: -1}) if rows >= columns else given.rechunk({0: -1})
    found = da.linalg.svd(given)
    return tensor_of(found) if compute_uv else tensor_of(found[1])


def randomized_svd(
    a: object, n_components: int, n_oversamples: int = 10, n_iter: int | str = "auto",
    random_state: object = None, **_: object,
) -> ExecutableTuple:  # fmt: skip
    """The largest singular values and their vectors, by random projections.

    Parameters
    ----------
    a : Tensor
        A matrix.
    n_components : int
        How many singular values.
    n_oversamples : int, default 10
        How many more random vectors are used.
    n_iter : int or "auto", default "auto"
        Power iterations, for matrices whose singular values decay slowly. "auto": 4.
    random_state : int or RandomState, optional
        The seed.
    """
    import dask.array as da

    given = _matrix(a, "randomized_svd")
    seed = getattr(random_state, "_source", random_state)
    source = seed if hasattr(seed, "normal") else da.random.RandomState(seed)
    return tensor_of(
        da.linalg.svd_compressed(
            given, n_components, n_oversamples=n_oversamples,
            n_power_iter=4 if n_iter == "auto" else int(n_iter), seed=source,
        )
    )  # fmt: skip


def cholesky(a: object, lower: bool = False) -> Tensor:
    """The Cholesky factor of a matrix: the upper one, as of scipy, unless ``lower`` is true."""
    import dask.array as da

    return tensor_of(da.linalg.cholesky(_squared(a), lower=lower))


def inv(a: object) -> Tensor:
    """The inverse of a matrix."""
    import dask.array as da

    return tensor_of(da.linalg.inv(_squared(a)))


def solve(a: object, b: object, sym_pos: bool = False, **_: object) -> Tensor:
    """The solution of a system of equations."""
    import dask.array as da

    matrix = _squared(a)
    right = da.asarray(lowered(b)).rechunk({0: matrix.chunks[0]})
    return tensor_of(da.linalg.solve(matrix, right, assume_a="pos" if sym_pos else "gen"))


def solve_triangular(a: object, b: object, lower: bool = False, **_: object) -> Tensor:
    """The solution of a system of equations whose matrix is a triangular one."""
    import dask.array as da

    matrix = _squared(a)
    right = da.asarray(lowered(b)).rechunk({0: matrix.chunks[0]})
    return tensor_of(da.linalg.solve_triangular(matrix, right, lower=lower))


def lstsq(a: object, b: object, rcond: float | None = None) -> Tensor | ExecutableTuple:
    """The solution with the least squares, the residuals, the rank and the singular values."""
    import dask.array as da
    import numpy

    matrix, right = _matrix(a, "lstsq"), da.asarray(lowered(b))
    if rcond is not None or matrix.shape[0] < matrix.shape[1]:
        func = functools.partial(numpy.linalg.lstsq, rcond=rcond)
        return tensor_of(whole(func, (matrix, right), {}))
    matrix = matrix.rechunk({1: -1})
    return tensor_of(da.linalg.lstsq(matrix, right.rechunk({0: matrix.chunks[0]})))


def lu(a: object) -> Tensor | ExecutableTuple:
    """Permutation, lower and upper triangular factors of a matrix."""
    import dask.array as da

    given = _matrix(a, "lu")
    if given.shape[0] != given.shape[1]:
        import scipy.linalg

        return tensor_of(whole(scipy.linalg.lu, (given,), {}, varying=False))
    return tensor_of(da.linalg.lu(_squared(given)))


def norm(
    x: object,
    ord: object = None,  # noqa: A002  as numpy's
    axis: object = None,
    keepdims: bool = False,
) -> Tensor | ExecutableTuple:
    """A norm of a matrix or a vector, or of several along axes; see `numpy.linalg.norm`."""
    import dask.array as da
    import numpy

    from mars.tensor.creation import tensor

    given = tensor(x)
    if given.dtype.kind not in "fc":
        given = given.astype(float)
    if isinstance(axis, int) and -given.ndim <= axis < given.ndim and given.ndim > 1:
        along = axis % given.ndim
        if given.numblocks[along] == 1:  # each chunk has what numpy needs, and makes no copies
            chunks = list(given.chunks)
            chunks[along : along + 1] = [(1,)] if keepdims else []
            func = functools.partial(numpy.linalg.norm, ord=ord, axis=along, keepdims=keepdims)
            kind = numpy.empty(0, given.dtype).real.dtype
            return tensor_of(
                given.map_blocks(
                    func, dtype=kind, chunks=tuple(chunks), drop_axis=[] if keepdims else [along]
                )
            )
    try:
        return tensor_of(da.linalg.norm(given, ord, axis, keepdims))
    except Exception:  # Dask refuses; numpy tells what is wrong, if anything is
        func = functools.partial(numpy.linalg.norm, ord=ord, axis=axis, keepdims=keepdims)
        return tensor_of(whole(func, (given,), {}, varying=False))


def _matrix(a: object, name: str) -> Array:
    import dask.array as da
    import numpy

    given = da.asarray(lowered(a))
    if given.ndim != 2:
        raise numpy.linalg.LinAlgError(
            f"{given.ndim}-dimensional tensor given. Tensor must be two-dimensional"
        )
    return given if given.dtype.kind in "fc" else given.astype(float)


def _squared(a: object) -> Array:
    """A matrix in square chunks."""
    import numpy

    given = _matrix(a, "matrix")
    if given.shape[0] != given.shape[1]:
        raise numpy.linalg.LinAlgError("Input must be square")
    count = given.shape[0]
    side = max(n for n in range(1, max(given.chunks[0]) + 1) if count % n == 0)
    return given.rechunk((side, side))


def __getattr__(name: str) -> Any:
    import numpy

    if name in BLOCKWISE:
        import dask.array as da

        return of_dask(name, getattr(da.linalg, name))
    if name in WHOLE:
        return of_whole(name, getattr(numpy.linalg, name), WHOLE[name])
    if name in SHARED:
        from mars.tensor import find

        return find.find(name)
    if name == "LinAlgError":
        return numpy.linalg.LinAlgError
    if not name.startswith("_") and hasattr(numpy.linalg, name):
        raise NotImplementedError(
            f"mars.tensor.linalg.{name} is not there: fetch the matrix and call numpy.linalg.{name}"
        )
    raise AttributeError(f"module 'mars.tensor.linalg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*BLOCKWISE, *WHOLE, *SHARED})
