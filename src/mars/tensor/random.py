"""Random tensors: ``mt.random.rand(1000, 1000, chunk_size=100)``.

The numbers belong to the seed, the shape and the chunks. So they are the same on any number of
workers, and on each machine.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, SupportsInt

from mars.tensor.calling import chunks_for, drop_hints, lowered, ndim_of, whole
from mars.tensor.core import Tensor, tensor_of

if TYPE_CHECKING:
    import numpy
    from dask.array import Array
    from numpy import dtype
    from numpy.typing import DTypeLike

    Seed = int | Sequence[int] | None

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

    def __init__(self, seed: Seed = None) -> None:
        self.seed(seed)

    @classmethod
    def from_numpy(cls, random_state: numpy.random.RandomState) -> RandomState:
        """A source whose seed is drawn of one of numpy, which goes on by one number."""
        return cls(int(random_state.randint(2**31)))

    def seed(self, seed: Seed = None) -> None:
        """Begin anew with a seed."""
        import dask.array as da
        import numpy

        self._source = da.random.RandomState(seed)
        self._whole = numpy.random.RandomState(seed)

    def rand(self, *shape: int, chunk_size: object = None, **kwargs: object) -> Tensor:
        """Numbers from 0 to 1, of a shape."""
        return self._make(
            "random_sample", (), {"size": shape or None, "chunk_size": chunk_size, **kwargs}
        )

    def randn(self, *shape: int, chunk_size: object = None, **kwargs: object) -> Tensor:
        """Numbers of the standard normal distribution, of a shape."""
        return self._make(
            "standard_normal", (), {"size": shape or None, "chunk_size": chunk_size, **kwargs}
        )

    def randint(
        self,
        low: object,
        high: object = None,
        size: object = None,
        dtype: DTypeLike = "l",
        **kwargs: object,
    ) -> Tensor:
        """Whole numbers from ``low`` to ``high``, without ``high``."""
        density = kwargs.pop("density", None)
        if density is not None:
            raise NotImplementedError("sparse tensors are not there; leave density= away")
        return self._make("randint", (low, high), {"size": size, "dtype": dtype, **kwargs})

    def tomaxint(self, size: object = None, **kwargs: object) -> Tensor:
        """Whole numbers from 0 to the largest int."""
        import numpy

        return self.randint(0, numpy.iinfo(numpy.int64).max, size, numpy.int64, **kwargs)

    def shuffle(self, x: Tensor) -> None:
        """Put a tensor into random order along its first axis, in place."""
        x.become(tensor_of(self._shuffled(x.lazy, 0)))

    def permutation(self, x: object, axis: int = 0, chunk_size: object = None) -> Tensor:
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
        return tensor_of(self._shuffled(given, axis % given.ndim))

    def _shuffled(self, given: Array, axis: int) -> Array:
        order = self._whole.permutation(given.shape[axis])
        return given[(slice(None),) * axis + (order,)]

    def _make(self, name: str, args: Sequence[object], kwargs: dict[str, object]) -> Tensor:
        import numpy

        drop_hints(kwargs)
        chunk_size, dtype = kwargs.pop("chunk_size", None), _taken_type(kwargs)
        args = _named_by_place(name, args, kwargs)
        given = [lowered(one) for one in args]
        more = {key: lowered(one) for key, one in kwargs.items()}
        if name == "random_integers":
            low, high, *_ = (*given, None, None)
            low, high = more.pop("low", low), more.pop("high", high)
            last = operator.add(low if high is None else high, 1)
            name, given = "randint", [1 if high is None else low, last]
        if name == "choice" and given and isinstance(given[0], (list, tuple)):
            given[0] = numpy.asarray(given[0])
        size = more.get("size")
        if size is None and "size" in more and not any(map(ndim_of, given)):
            more["size"] = size = ()
        if name not in ("choice", "permutation") or size is not None:
            shape = None
            if size is not None:
                shape = _shape_of(size)
                more["size"] = shape
            if shape is not None and name != "multinomial":
                more["chunks"] = chunks_for(shape, float, chunk_size)
        if dtype is not None and name == "randint":
            more["dtype"] = dtype
            dtype = None
        try:
            made: Array = getattr(self._source, name)(*given, **more)
        except Exception:  # Dask refuses; numpy tells what is wrong, if anything is
            more.pop("chunks", None)
            return self._make_whole(name, given, more)
        return tensor_of(made if dtype is None else made.astype(dtype))

    def _make_whole(self, name: str, args: Sequence[object], kwargs: dict[str, object]) -> Tensor:
        drop_hints(kwargs)
        kwargs.pop("chunk_size", None)
        seed = int(self._whole.randint(2**31))
        dtype = _taken_type(kwargs)
        made = whole(functools.partial(_drawn, seed, name), args, kwargs, varying=False)
        if isinstance(made, tuple):
            raise TypeError(f"{name}() makes several arrays")
        return tensor_of(made if dtype is None else made.astype(dtype))

    def _bytes(self, *args: int, **kwargs: object) -> bytes:
        drop_hints(kwargs)
        kwargs.pop("chunk_size", None)
        draw: Callable[..., bytes] = self._whole.bytes
        return draw(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in DISTRIBUTIONS:
            return lambda *args, **kwargs: self._make(
                name, args, {"size": None, **kwargs} if name != "permutation" else kwargs
            )
        if name in _SAMPLES:
            return lambda *args, **kwargs: self._make("random_sample", args, kwargs)
        if name == "bytes":
            return self._bytes
        if name in _WHOLE:
            return lambda *args, **kwargs: self._make_whole(name, args, kwargs)
        raise AttributeError(f"RandomState has no {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *DISTRIBUTIONS, *_SAMPLES, *_WHOLE})


def _taken_type(kwargs: dict[str, object]) -> dtype | None:
    """The type among the arguments, which is taken out."""
    import numpy

    given = kwargs.pop("dtype", None)
    make: Callable[..., dtype] = numpy.dtype
    return None if given is None else make(given)


def _shape_of(size: object) -> tuple[int, ...]:
    if isinstance(size, Iterable):
        return tuple(size)
    if isinstance(size, SupportsInt):
        return (int(size),)
    raise TypeError(f"size has to be an int or a tuple of int, got {size!r}")


def _named_by_place(
    name: str, args: Sequence[object], kwargs: dict[str, object]
) -> Sequence[object]:
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


def default_rng(seed: Seed = None) -> RandomState:
    """A `RandomState`, under numpy's newer name."""
    return RandomState(seed)


def _drawn(seed: int, name: str, *args: object, **kwargs: object) -> object:
    import numpy

    return getattr(numpy.random.RandomState(seed), name)(*args, **kwargs)


_shared: list[RandomState] = []


def _state() -> RandomState:
    if not _shared:
        _shared.append(RandomState())
    return _shared[0]


def seed(seed: Seed = None) -> None:
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
