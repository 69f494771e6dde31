"""Fourier transforms of tensors: ``mt.fft.fft(a)``. Each chunk has all of the transformed axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mars.tensor.calling import lowered, of_dask, placed

ONE_AXIS: Final = frozenset(["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
TWO_AXES: Final = frozenset(["fft2", "ifft2", "rfft2", "irfft2"])
ALL_AXES: Final = frozenset(["fftn", "ifftn", "rfftn", "irfftn"])
HELPERS: Final = frozenset(["fftfreq", "rfftfreq", "fftshift", "ifftshift"])


def _transform(name: str) -> Callable[..., Any]:
    def transform(a: Any, n: Any = None, axis: Any = None, norm: Any = None, **more: Any) -> Any:
        import dask.array as da

        given = da.asarray(lowered(a))
        several = name not in ONE_AXIS
        n = more.get("s", n)
        axis = more.get("axes", axis)
        if axis is None:
            axis = (-2, -1) if name in TWO_AXES else (-1 if not several else None)
        if axis is None:
            count = given.ndim if n is None else len(n)
            axis = tuple(range(given.ndim - count, given.ndim))
        axes = tuple(axis) if several else (axis,)
        given = given.rechunk({one % given.ndim: -1 for one in axes})
        func = getattr(da.fft, name)
        return placed(func(given, n, axes if several else axis, norm=norm))

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = f"As `numpy.fft.{name}`, for a tensor."
    return transform


def __getattr__(name: str) -> Any:
    if name in ONE_AXIS | TWO_AXES | ALL_AXES:
        return _transform(name)
    if name in HELPERS:
        import dask.array as da

        if name.endswith("freq"):

            def freq(n: int, d: float = 1.0, chunk_size: Any = None, **_: Any) -> Any:
                return placed(getattr(da.fft, name)(n, d, chunks=chunk_size or "auto"))

            return freq
        return of_dask(name, getattr(da.fft, name))
    raise AttributeError(f"module 'mars.tensor.fft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(ONE_AXIS | TWO_AXES | ALL_AXES | HELPERS)
