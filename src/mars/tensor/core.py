"""`Tensor`: an array in chunks that is computed when it is executed.

It has the operators, methods and protocols of `numpy.ndarray`; each makes another tensor. What they
compute is described with `dask.array`. `mars.tensor.names` says which methods there are.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, overload

from mars.calls.objects import ExecutableTuple
from mars.settings import TENSOR_COPY_BYTES
from mars.tensor import find, picking, protocols
from mars.tensor.calling import in_order, may_be_by_columns, ndim_of
from mars.tensor.names import METHODS
from mars.tileables.tileable import Tileable, facts_of, of_kind, stored_node, unwrap, wrap

if TYPE_CHECKING:
    from dask.array import Array
    from numpy import dtype, ndarray, ufunc
    from numpy.typing import DTypeLike

    from mars.sessions.session import AnySession


class Tensor(Tileable):
    """An array in chunks. Programs make one with `mars.tensor.tensor`, `ones`, and so on.

    Operators, indexing and methods are those of `numpy.ndarray`, and make another tensor. Functions
    of numpy take it, too: ``numpy.sqrt(tensor)`` is a tensor.

    Examples
    --------
    >>> import mars.tensor as mt
    >>> a = mt.ones((4, 4), chunk_size=2)
    >>> (a + a.T).sum().execute().fetch().item()
    32.0
    """

    __slots__ = ()
    __module__ = "mars.tensor"
    __array_priority__: ClassVar[float] = 100.0

    kind = "Tensor"
    __hash__ = Tileable.__hash__

    if TYPE_CHECKING:

        @property
        def lazy(self) -> Array: ...

        # Set below; those of numpy.
        def __add__(self, other: object) -> Tensor: ...

        __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __add__
        __matmul__ = __rmatmul__ = __and__ = __rand__ = __or__ = __ror__ = __add__
        __xor__ = __rxor__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __add__
        __lt__ = __le__ = __gt__ = __ge__ = __add__

        def __eq__(self, other: object) -> Any: ...
        def __ne__(self, other: object) -> Any: ...
        def __neg__(self) -> Tensor: ...

        __pos__ = __abs__ = __invert__ = __neg__

    # -- facts ----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes; nan where they are not known before it is executed."""
        return tuple(self.measured().shape)

    @shape.setter
    def shape(self, lengths: int | Sequence[int]) -> None:
        self.become(self.reshape(lengths))

    @property
    def dtype(self) -> dtype:
        return self.lazy.dtype

    @property
    def ndim(self) -> int:
        return int(self.lazy.ndim)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    @property
    def nsplits(self) -> tuple[tuple[int, ...], ...]:
        """The lengths of the chunks along each axis."""
        return tuple(self.measured().chunks)

    chunks = nsplits

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(map(len, self.nsplits))

    @property
    def T(self) -> Tensor:  # noqa: N802
        return self._of(self.lazy.T)

    @property
    def real(self) -> Tensor:
        return self._of(self.lazy.real)

    @real.setter
    def real(self, value: object) -> None:
        self.become(self._of(1j * self.lazy.imag + unwrap(value)))

    @property
    def imag(self) -> Tensor:
        return self._of(self.lazy.imag)

    @imag.setter
    def imag(self, value: object) -> None:
        self.become(self._of(self.lazy.real + operator.mul(1j, unwrap(value))))

    @property
    def flat(self) -> Tensor:
        """All elements in one axis. Unlike numpy's, it is a tensor."""
        return self._of(self.lazy.ravel())

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError("len() of unsized object")
        if math.isnan(shape[0]):
            self.execute()
            shape = self.shape
        return int(shape[0])

    # -- elements -------------------------------------------------------------------------------

    def __getitem__(self, index: object) -> Tensor:
        import dask.array as da

        lazy = self.measured()
        given = unwrap(index)
        if isinstance(given, str) or (
            isinstance(given, list) and given and all(isinstance(one, str) for one in given)
        ):
            return self._of(lazy[given], self)
        items = given if isinstance(given, tuple) else (given,)
        arrays = [
            one for one in items
            if isinstance(one, (list, da.Array)) or (hasattr(one, "dtype") and ndim_of(one))
        ]  # fmt: skip
        # Dask takes no new axes beside a mask.
        new_axes = any(one is None for one in items)
        if len(arrays) > 1 or any(
            _is_mask(one) and (ndim_of(one) > 1 or new_axes) for one in arrays
        ):
            return self._of(picking.picked(lazy, items), self)
        try:
            made = lazy[given]
        except Exception:  # Dask refuses; numpy tells what is wrong, if anything is
            return self._of(picking.picked(lazy, items), self)
        # Dask takes an axis of length 1 for one to broadcast, also if it has empty chunks beside.
        single = [d for d, n in enumerate(made.chunks) if len(n) > 1 and sum(n) == 1]
        return self._of(made.rechunk(dict.fromkeys(single, -1)) if single else made, self)

    def __setitem__(self, index: object, value: object) -> None:
        import dask.array as da

        lazy, given = self.measured().copy(), unwrap(index)
        new = unwrap(value)
        several = isinstance(given, tuple) and sum(map(_is_array, given)) > 1
        if isinstance(new, da.Array) and new.ndim and (_is_mask(given) or several):
            new = self._of(new).executed_value()
        try:
            if several or self.dtype.names or (_is_mask(given) and bool(getattr(new, "ndim", 0))):
                raise NotImplementedError  # Dask would assign by each array for itself
            lazy[given] = new
        except Exception:  # Dask refuses; numpy tells what is wrong, if anything is
            lazy = picking.put(self.measured(), given, new)
        if may_be_by_columns(self.lazy):
            lazy = in_order(lazy, "F")
        self.become(self._of(lazy))

    def __iter__(self) -> Iterator[Any]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        yield from self.executed_value()

    def __contains__(self, item: object) -> bool:
        return bool(find.call("any", find.call("equal", self, item)))

    def item(self, *args: int) -> Any:
        """One element as a scalar of Python; it is executed for that."""
        return self.executed_value().item(*args)

    def tolist(self) -> Any:
        """The elements in lists; it is executed for that."""
        return self.executed_value().tolist()

    def to_numpy(
        self, session: AnySession | None = None, wait: bool = True, **kwargs: object
    ) -> Any:
        """Execute it, unless that was done, and fetch it."""
        return self.executed_value(session, wait, **kwargs)

    def astype(
        self, dtype: DTypeLike, order: str = "K", casting: str = "unsafe", copy: bool = True
    ) -> Tensor:
        """The elements with another type."""
        return self._of(in_order(self.lazy.astype(dtype, casting=casting, copy=copy), order))

    def reshape(self, *shape: int | Sequence[int], order: str = "C") -> Tensor:
        """The elements in another shape."""
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return _called("reshape", self, tuple(given), order=order)

    def transpose(self, *axes: object) -> Tensor:
        """The axes in another order."""
        return self._of(self.lazy.transpose(*axes))

    def view(self) -> Tensor:
        return self.copy()

    def flatten(self, order: str = "C") -> Tensor:
        """All elements in one axis."""
        return _called("ravel", self, order=order)

    def sort(self, axis: int = -1, **kwargs: object) -> None:
        """Sort it in place, along an axis."""
        self.become(find.call("sort", self, axis=axis, **kwargs))

    def partition(self, kth: object, axis: int = -1, **kwargs: object) -> None:
        """Partition it in place, along an axis."""
        self.become(find.call("partition", self, kth, axis=axis, **kwargs))

    def fill(self, value: object) -> None:
        """Set all elements to a value."""
        self.become(find.call("full_like", self, value))

    def compress(self, condition: object, axis: int | None = None, out: object = None) -> Tensor:
        """The slices along an axis where a condition is true."""
        return _called("compress", condition, self, axis=axis, out=out)

    def dot(self, other: object, out: object = None) -> Tensor:
        return _called("dot", self, other, out=out)

    def rechunk(self, chunk_size: object, **_: object) -> Tensor:
        """The same elements in chunks of other lengths."""
        return self._of(self.measured().rechunk(_by_axis(chunk_size, self.ndim)))

    def rebalance(self, **_: object) -> Tensor:
        """Chunks of equal lengths."""
        return self._of(self.lazy)

    def map_chunk(
        self, func: Callable[..., object], args: Sequence[object] = (),
        elementwise: bool | None = None, dtype: DTypeLike | None = None, shape: object = None,
        with_chunk_index: bool = False, **kwargs: object,
    ) -> Tensor:  # fmt: skip
        """Have a function called with each chunk.

        Parameters
        ----------
        func : callable
            Gets a chunk, ``args`` and ``kwargs``, and returns an array.
        args : sequence, default ()
            Further arguments.
        elementwise : bool, optional
            True: the results have the shapes of the chunks. Default: found out with a small chunk.
        dtype : dtype, optional
            Type of the results. Default: found out by calling ``func`` with a small chunk.
        shape : tuple, optional
            Accepted for programs of the original; shapes are known once it is executed.
        with_chunk_index : bool, default False
            Whether ``func`` gets the number of the chunk along each axis as ``chunk_index``.
        **kwargs
            Further arguments.
        """
        return _called(
            "map_chunk", self, func, args=tuple(args), elementwise=elementwise, dtype=dtype,
            with_chunk_index=with_chunk_index, kwargs=kwargs,
        )  # fmt: skip

    def issparse(self) -> bool:
        """Whether it is sparse: never."""
        return False

    def todense(self) -> Tensor:
        """Itself."""
        return self

    def to_dask(self) -> Array:
        """The array of Dask that it stands for."""
        return self.lazy

    # -- protocols ------------------------------------------------------------------------------

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> ndarray:
        import numpy

        value = numpy.asarray(self.executed_value())
        return value if dtype is None else value.astype(dtype, copy=False)

    def __array_ufunc__(
        self, ufunc: ufunc, method: str, *inputs: object, **kwargs: object
    ) -> object:
        return protocols.ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:  # fmt: skip
        return protocols.numpy_function(func, args, kwargs)

    def __array_namespace__(self, api_version: str | None = None) -> ModuleType:
        return sys.modules["mars.tensor"]

    def __dask_tokenize__(self) -> object:
        return self.lazy.__dask_tokenize__()

    def __int__(self) -> int:
        return int(self.executed_value())

    def __float__(self) -> float:
        return float(self.executed_value())

    def __complex__(self) -> complex:
        return complex(self.executed_value())

    def __index__(self) -> int:
        return operator.index(self.executed_value())

    def __getattr__(self, name: str) -> Any:
        method = find.method(name)
        if method is None:
            raise AttributeError(f"'Tensor' object has no attribute {name!r}")
        return lambda *args, **kwargs: method(self, *args, **kwargs)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *METHODS})

    def __repr__(self) -> str:
        return self._shown(
            repr, f"Tensor <op={self._op()}, shape={self._told()}, key={self.key[:32]}>"
        )

    def __str__(self) -> str:
        return self._shown(str, f"Tensor(op={self._op()}, shape={self._told()})")

    # -- inside ---------------------------------------------------------------------------------

    def _op(self) -> str:
        return self._described().partition("op=")[2].partition(",")[0]

    def _told(self) -> str:
        return "unknown" if self._lazy is None else str(self.lazy.shape)

    def _described(self) -> str:
        if self._lazy is None:
            return "Tensor <op=RemoteFunction, the result of a call>"
        return super()._described()

    @staticmethod
    def _of(lazy: Array, part_of: Tileable | None = None) -> Tensor:
        return of_kind(Tensor, lazy, part_of)

    @classmethod
    def of_value(cls, value: object) -> Self:
        """A tensor of one chunk, which this process has."""
        import dask.array as da
        import numpy

        array = numpy.asarray(value)
        return cls(da.from_array(array, chunks=-1, name=False), here=True)

    def measured(self) -> Array:
        """The array of Dask; once it was executed, with the lengths of all chunks."""
        lazy = self.lazy
        if self._resolved or not any(math.isnan(one) for one in lazy.shape):
            return lazy
        if self._here or self._all_done():
            import numpy

            if self._here:
                nodes = lazy.__dask_graph__()
                from dask.core import flatten

                shapes = [numpy.shape(nodes[key].value) for key in flatten(lazy.__dask_keys__())]
            else:
                shapes = [facts_of(numpy.shape, one) for one in self._objects or ()]
            grid = numpy.empty(len(shapes), dtype=object)
            grid[:] = shapes
            grid = grid.reshape(lazy.numblocks)
            lazy._chunks = tuple(
                tuple(
                    int(grid[tuple(i if d == axis else 0 for d in range(lazy.ndim))][axis])
                    for i in range(lazy.numblocks[axis])
                )
                for axis in range(lazy.ndim)
            )
            self._resolved = True
        return lazy

    def _all_done(self) -> bool:
        return bool(self._objects) and all(
            one.call.task is not None and one.call.task.available for one in self._objects or ()
        )

    def _recipe(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        lazy = self.lazy
        return _rebuilt, (lazy.name, lazy.chunks, lazy.dtype, lazy._meta)

    def _assembled(self, values: list[object]) -> object:
        lazy = self.lazy
        return assembled(values, lazy.numblocks, lazy.name.startswith("ascontiguousarray"))

    def _found_out(self) -> Array:
        import dask.array as da

        from mars.sessions.opening import choose

        [stored] = self.objects or []
        shape, dtype = facts_of(_facts, stored)
        session = choose(None)
        name = f"spawn-{stored.key}-{stored.index}"
        key = (name, *(0 for _ in shape))
        return da.Array(
            {key: stored_node(key, stored, session)}, name,
            chunks=tuple((one,) for one in shape), dtype=dtype,
        )  # fmt: skip

    def _shown(self, show: Callable[[object], str], lazy: str) -> str:
        """Numpy's text of the elements at the edges, if it was executed."""
        import numpy

        if not (self._here or self._all_done()):
            return lazy
        from mars.sessions.opening import get_default_session

        session = get_default_session()
        if not self._here and (session is None or not self._is_done(session)):
            return lazy
        options = numpy.get_printoptions()
        if self._lazy is None or self.size <= options["threshold"] or not self.ndim:
            return show(self.fetch())
        edge = options["edgeitems"]
        corner = self.measured()
        for axis, length in enumerate(corner.shape):
            if length > 2 * edge + 1:
                ends = [*range(edge + 1), *range(length - edge, length)]
                corner = corner[(slice(None),) * axis + (ends,)]
        value = corner.compute(scheduler="sync")
        with numpy.printoptions(threshold=0 if value.size <= 1 else value.size - 1):
            return show(value).replace(f"shape={value.shape}", f"shape={self.shape}")


def assembled(
    values: Sequence[object], numblocks: tuple[int, ...], by_rows: bool = False
) -> object:
    """One array of the values of all chunks. Each is copied once, large ones by threads.

    It is by columns in memory if all chunks are, unless ``by_rows``: single rows and columns are
    both.
    """
    import numpy

    if len(values) == 1:
        value = values[0]
        if isinstance(value, numpy.ndarray) and not value.ndim and type(value) is numpy.ndarray:
            return value[()]
        return value
    grid = numpy.empty(len(values), dtype=object)
    grid[:] = list(values)
    grid = grid.reshape(numblocks)
    arrays = [one for one in values if isinstance(one, numpy.ndarray)]
    if any(type(one) is not numpy.ndarray for one in values):
        from dask.array.core import concatenate3

        return concatenate3(grid.tolist())
    ndim = len(numblocks)
    starts = []
    for axis in range(ndim):
        lengths = [
            grid[tuple(i if d == axis else 0 for d in range(ndim))].shape[axis]
            for i in range(numblocks[axis])
        ]
        starts.append([0, *numpy.cumsum(lengths).tolist()])
    by_columns = ndim > 1 and not by_rows and all(map(_is_by_columns, arrays))
    whole = numpy.empty(
        [ends[-1] for ends in starts], dtype=numpy.result_type(*{one.dtype for one in arrays}),
        order="F" if by_columns else "C",
    )  # fmt: skip

    def place(index: tuple[int, ...]) -> None:
        where = tuple(slice(starts[d][i], starts[d][i + 1]) for d, i in enumerate(index))
        whole[where] = grid[index]

    places = list(numpy.ndindex(*numblocks))
    if whole.nbytes < TENSOR_COPY_BYTES:
        for index in places:
            place(index)
        return whole
    from concurrent.futures import ThreadPoolExecutor

    from mars.resources import cpu_count

    with ThreadPoolExecutor(max(1, min(len(places), cpu_count().n))) as pool:
        list(pool.map(place, places))
    return whole


def _is_by_columns(value: ndarray) -> bool:
    return bool(value.flags.f_contiguous and (not value.flags.c_contiguous or value.ndim < 2
                or max(value.shape) == value.size))  # fmt: skip


def _facts(value: object) -> tuple[tuple[int, ...], dtype]:
    import numpy

    array = numpy.asarray(value)
    return array.shape, array.dtype


def _rebuilt(
    graph: Mapping[Hashable, object], name: str, chunks: object, dtype: DTypeLike, meta: object
) -> Array:
    import dask.array as da

    return da.Array(graph, name, chunks=chunks, meta=meta, dtype=dtype)


def _is_array(value: object) -> bool:
    return isinstance(value, list) or bool(getattr(value, "ndim", 0))


def _is_mask(value: object) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _by_axis(chunk_size: object, ndim: int) -> object:
    """``chunk_size`` of the original, as Dask's ``chunks``."""
    if isinstance(chunk_size, dict):
        return {axis % ndim: size for axis, size in chunk_size.items()}
    return chunk_size


_BINARY: Final = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
    "lshift", "rshift", "divmod",
)  # fmt: skip
_COMPARED: Final = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY: Final = ("neg", "pos", "abs", "invert")


def _called(name: str, *args: object, **kwargs: object) -> Tensor:
    """The tensor that a function of `mars.tensor` makes."""
    made: Tensor = find.call(name, *args, **kwargs)
    return made


@overload
def tensor_of(made: Array) -> Tensor: ...


@overload
def tensor_of(made: tuple[Array, ...]) -> ExecutableTuple: ...


def tensor_of(made: Array | tuple[Array, ...]) -> Tensor | ExecutableTuple:
    """An array of Dask as a tensor; several as a tuple of tensors, which is executed as one."""
    if isinstance(made, tuple):
        return ExecutableTuple([of_kind(Tensor, one) for one in made])
    return of_kind(Tensor, made)


def _binary(name: str) -> Callable[[Tensor, object], object]:
    def apply(self: Tensor, other: object) -> object:
        import numpy

        given = unwrap(other)
        if isinstance(given, (list, tuple)):
            given = numpy.asarray(given)
        found = getattr(self.lazy, name)(given)
        return found if found is NotImplemented else wrap(found)

    apply.__name__ = name
    return apply


def _in_place(name: str) -> Callable[[Tensor, object], object]:
    plain = _binary(name)

    def apply(self: Tensor, other: object) -> object:
        made = plain(self, other)
        if not isinstance(made, Tensor):
            return made
        if made.dtype != self.dtype:
            made = made.astype(_fitting(name, made, self))
        self.become(made)
        return self

    return apply


def _fitting(name: str, made: Tensor, own: Tensor) -> DTypeLike:
    """The type of a tensor that an operation changes; numpy refuses what would lose fractions."""
    import numpy

    if not numpy.can_cast(made.dtype, own.dtype, "same_kind"):
        raise TypeError(
            f"a tensor of {own.dtype} cannot hold the result of {name}, which is of {made.dtype}; "
            f"write x = x … y instead of x …= y"
        )
    return own.dtype


def _unary(name: str) -> Callable[[Tensor], object]:
    return lambda self: wrap(getattr(self.lazy, name)())


for _name in _BINARY:
    setattr(Tensor, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(Tensor, f"__r{_name}__", _binary(f"__r{_name}__"))
    if _name not in ("divmod", "matmul"):
        setattr(Tensor, f"__i{_name}__", _in_place(f"__{_name}__"))
for _name in _COMPARED:
    setattr(Tensor, f"__{_name}__", _binary(f"__{_name}__"))
for _name in _UNARY:
    setattr(Tensor, f"__{_name}__", _unary(f"__{_name}__"))

__all__ = ["Tensor", "assembled", "tensor_of"]
