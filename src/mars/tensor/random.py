"""Random tensors: ``mt.random.rand(1000, 1000, chunk_size=100)``.

The numbers belong to the seed, the shape and the chunks. So they are the same on any number of
workers, and on each machine.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

from mars.tensor.calling import chunks_for, drop_hints, lowered, placed, whole

DISTRIBUTIONS: Final = frozenset(
    [
        "beta", "binomial", "chisquare", "choice", "exponential", "f", "gamma", "geometric",
        "gumbel", "hypergeometric", "laplace", "logistic", "lognormal", "logseries", "multinomial",
        "negative_binomial", "noncentral_chisquare", "noncentral_f", "normal", "pareto",
        "permutation", "poisson", "power", "randint", "random", "random_integers", "random_sample",
        "rayleigh", "standard_cauchy", "standard_exponential", "standard_gamma", "standard_normal",
        "standard_t", "triangular", "uniform", "vonmises", "wald", "weibull", "zipf",
    ]
)  # fmt: skip
"""Names that a `RandomState` of Dask has."""

_WHOLE: Final = frozenset({"bytes", "dirichlet", "multivariate_normal"})
_SAMPLES: Final = frozenset({"ranf", "sample"})


class RandomState:
    """A source of random tensors with a seed of its own.

    Parameters
    ----------
    seed : int, optional
        Default: a new one each time.

    Examples
    --------
    >>> one, two = RandomState(0), RandomState(0)
    >>> bool((one.rand(3) == two.rand(3)).all())
    True
    """

    def __init__(self, seed: Any = None) -> None:
        self.seed(seed)

    def seed(self, seed: Any = None) -> None:
        """Begin anew with a seed."""
        import dask.array as da
        import numpy

        self._source = da.random.RandomState(seed)
        self._whole = numpy.random.RandomState(seed)

    def rand(self, *shape: int, chunk_size: Any = None, **kwargs: Any) -> Any:
        """Numbers from 0 to 1, of a shape."""
        return self._make(
            "random_sample", (), {"size": shape or None, "chunk_size": chunk_size, **kwargs}
        )

    def randn(self, *shape: int, chunk_size: Any = None, **kwargs: Any) -> Any:
        """Numbers of the standard normal distribution, of a shape."""
        return self._make(
            "standard_normal", (), {"size": shape or None, "chunk_size": chunk_size, **kwargs}
        )

    def randint(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = "l", **kwargs: Any
    ) -> Any:
        """Whole numbers from ``low`` to ``high``, without ``high``."""
        density = kwargs.pop("density", None)
        if density is not None:
            raise NotImplementedError("sparse tensors are not there; leave density= away")
        return self._make("randint", (low, high), {"size": size, "dtype": dtype, **kwargs})

    def tomaxint(self, size: Any = None, **kwargs: Any) -> Any:
        """Whole numbers from 0 to the largest int."""
        import numpy

        return self.randint(0, numpy.iinfo(numpy.int64).max, size, numpy.int64, **kwargs)

    def shuffle(self, x: Any) -> None:
        """Put a tensor into random order along its first axis, in place."""
        x.become(placed(self._shuffled(lowered(x), 0)))

    def permutation(self, x: Any, axis: int = 0, chunk_size: Any = None) -> Any:
        """The elements, or the numbers below ``x``, in random order."""
        import dask.array as da
        import numpy

        given = lowered(x)
        if isinstance(given, (int, numpy.integer)):
            given = da.arange(given, chunks=chunks_for((int(given),), int, chunk_size))
        elif not isinstance(given, da.Array):
            array = numpy.asarray(given)
            given = da.from_array(array, chunks=chunks_for(array.shape, array.dtype, chunk_size))
        if not -given.ndim <= axis < given.ndim:
            from numpy.exceptions import AxisError

            raise AxisError(axis, given.ndim)
        return placed(self._shuffled(given, axis % given.ndim))

    def _shuffled(self, given: Any, axis: int) -> Any:
        order = self._whole.permutation(given.shape[axis])
        return given[(slice(None),) * axis + (order,)]

    def _make(self, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        import numpy

        drop_hints(kwargs)
        chunk_size, dtype = kwargs.pop("chunk_size", None), kwargs.pop("dtype", None)
        args = _named_by_place(name, args, kwargs)
        given = [lowered(one) for one in args]
        more = {key: lowered(one) for key, one in kwargs.items()}
        if name == "random_integers":
            low, high = (*given, None)[:2]
            low = more.pop("low", low)
            high = more.pop("high", high)
            name, given = "randint", [1, low + 1] if high is None else [low, high + 1]
        if name == "choice" and given and isinstance(given[0], (list, tuple)):
            given[0] = numpy.asarray(given[0])
        size = more.get("size")
        if size is None and "size" in more and not any(map(numpy.ndim, given)):
            more["size"] = size = ()
        if name not in ("choice", "permutation") or size is not None:
            shape = None
            if size is not None:
                shape = tuple(size) if hasattr(size, "__iter__") else (int(size),)
                more["size"] = shape
            if shape is not None and name != "multinomial":
                more["chunks"] = chunks_for(shape, float, chunk_size)
        if dtype is not None and name == "randint":
            more["dtype"] = numpy.dtype(dtype)
            dtype = None
        try:
            made = getattr(self._source, name)(*given, **more)
        except Exception:  # Dask refuses; numpy tells what is wrong, if anything is
            more.pop("chunks", None)
            return self._make_whole(name, given, more)
        return placed(made if dtype is None else made.astype(dtype))

    def _make_whole(self, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        drop_hints(kwargs)
        kwargs.pop("chunk_size", None)
        seed = int(self._whole.randint(2**31))
        if name == "bytes":
            return self._whole.bytes(*args, **kwargs)
        dtype = kwargs.pop("dtype", None)
        made = whole(functools.partial(_drawn, seed, name), args, kwargs, varying=False)
        return placed(made if dtype is None else made.astype(dtype))

    def __getattr__(self, name: str) -> Any:
        if name in DISTRIBUTIONS:
            return lambda *args, **kwargs: self._make(
                name, args, {"size": None, **kwargs} if name != "permutation" else kwargs
            )
        if name in _SAMPLES:
            return lambda *args, **kwargs: self._make("random_sample", args, kwargs)
        if name in _WHOLE:
            return lambda *args, **kwargs: self._make_whole(name, args, kwargs)
        raise AttributeError(f"RandomState has no {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *DISTRIBUTIONS, *_SAMPLES, *_WHOLE})


def _named_by_place(name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """The arguments before ``size``. What follows, programs of numpy may give by place, too."""
    import dask.array as da

    known = ["low", "high", "size"]
    if name != "random_integers":
        known = list(inspect.signature(getattr(da.random.RandomState, name)).parameters)[1:]
    if "size" not in known or len(args) <= known.index("size"):
        return args
    first = known.index("size")
    kwargs.update(
        zip([one for one in known[first:] if one != "chunks"], args[first:], strict=False)
    )
    return args[:first]


def default_rng(seed: Any = None) -> RandomState:
    """A `RandomState`, under numpy's newer name."""
    return RandomState(seed)


def _drawn(seed: int, name: str, *args: Any, **kwargs: Any) -> Any:
    import numpy

    return getattr(numpy.random.RandomState(seed), name)(*args, **kwargs)


_shared: list[RandomState] = []


def _state() -> RandomState:
    if not _shared:
        _shared.append(RandomState())
    return _shared[0]


def seed(seed: Any = None) -> None:
    """Begin the numbers of this module anew with a seed."""
    _state().seed(seed)


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        getattr(RandomState, name, None) or getattr(_state(), name)
    except AttributeError:
        import numpy

        if hasattr(numpy.random, name):
            raise NotImplementedError(
                f"mars.tensor.random.{name} is not there; call numpy.random.{name} in map_chunk()"
            ) from None
        raise AttributeError(f"module 'mars.tensor.random' has no attribute {name!r}") from None
    return lambda *args, **kwargs: getattr(_state(), name)(*args, **kwargs)


def __dir__() -> list[str]:
    return sorted(
        {
            *DISTRIBUTIONS,
            *_SAMPLES,
            *_WHOLE,
            "RandomState",
            "default_rng",
            "rand",
            "randn",
            "tomaxint",
            "seed",
            "shuffle",
        }
    )
