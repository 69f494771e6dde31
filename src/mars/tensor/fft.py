"""Fourier transforms of tensors: ``mt.fft.fft(a)``. Each chunk has all of the transformed axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from mars.tensor.calling import lowered, of_dask, placed

ONE_AXIS: Final = frozenset(["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
TWO_AXES: Final = frozenset(["fft2", "ifft2", "rfft2", "irfft2"])
ALL_AXES: Final = frozenset(["fftn", "ifftn", "rfftn", "irfftn"])
HELPERS: Final = frozenset(["fftfreq", "rfftfreq", "fftshift", "ifftshift"])


def _transform(name: str) -> Callable[..., object]:
    def transform(
        a: object, n: int | Sequence[int] | None = None, axis: int | Iterable[int] | None = None,
        norm: str | None = None, *, s: Sequence[int] | None = None,
        axes: Iterable[int] | None = None, **_: object,
    ) -> object:  # fmt: skip
        import dask.array as da

        given = da.asarray(lowered(a))
        lengths = n if s is None else s
        wanted = axis if axes is None else axes
        if wanted is None and name in ONE_AXIS:
            wanted = -1
        elif wanted is None and name in TWO_AXES:
            wanted = (-2, -1)
        elif wanted is None:
            count = len(lengths) if isinstance(lengths, Sequence) else given.ndim
            wanted = range(given.ndim - count, given.ndim)
        chosen = tuple(wanted) if isinstance(wanted, Iterable) else (wanted,)
        given = given.rechunk({one % given.ndim: -1 for one in chosen})
        func = getattr(da.fft, name)
        return placed(func(given, lengths, wanted if name in ONE_AXIS else chosen, norm=norm))

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = f"As `numpy.fft.{name}`, for a tensor."
    return transform


def __getattr__(name: str) -> Any:
    if name in ONE_AXIS | TWO_AXES | ALL_AXES:
        return _transform(name)
    if name in HELPERS:
        import dask.array as da

        if name.endswith("freq"):

            def freq(n: int, d: float = 1.0, chunk_size: object = None, **_: object) -> object:
                return placed(getattr(da.fft, name)(n, d, chunks=chunk_size or "auto"))

            return freq
        return of_dask(name, getattr(da.fft, name))
    raise AttributeError(f"module 'mars.tensor.fft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(ONE_AXIS | TWO_AXES | ALL_AXES | HELPERS)
