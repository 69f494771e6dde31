"""What estimators do with tensors and frames.

- `fit` runs as one call that owns all cores of a worker. Searches, such as GridSearchCV, run in the
  program instead, and give their candidates to calls by joblib.
- `fit` of an estimator that has `partial_fit`, on data of several chunks, gets one chunk after the
  other, so that the data need not fit into memory.
- `predict`, `transform` and the like run on all chunks of rows beside each other.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import uuid
from collections.abc import Callable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Final, Protocol, Self, SupportsIndex, TypeVar, cast

from mars.calls.objects import ExecutableTuple
from mars.calls.spawn import spawn
from mars.code import places
from mars.dataframe.handle import Handle
from mars.dataframe.whole import has_rows
from mars.learn.cores import cores_of_one
from mars.learn.fetchable import fetchable, plain
from mars.sessions.opening import choose
from mars.tensor.core import Tensor
from mars.tileables.tileable import Tileable, unwrap, value_of, wrap

if TYPE_CHECKING:
    from numpy import ndarray

    from mars.dataframe.protocols import Rows

ROWWISE: Final = (
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform",
    "score_samples", "inverse_transform",
)  # fmt: skip
"""Methods that look at each row by itself."""


@functools.cache
def of_class(origin: type, fit: Callable[..., object] | None = None) -> type:
    """A class of scikit-learn that takes tensors and frames.

    Parameters
    ----------
    origin : type
        The class of scikit-learn, or of a library that has its conventions.
    fit : callable, optional
        The method that learns. Default: `Fitted.fit`.
    """
    if not hasattr(origin, "fit"):
        return origin
    own = {"__doc__": origin.__doc__, **({} if fit is None else {"fit": fit})}
    made = type(origin.__name__, (Fitted, origin), own)
    made.__module__ = "mars.learn" + origin.__module__.removeprefix("sklearn")
    return made


class Estimator(Protocol):
    """What an estimator of scikit-learn's conventions is asked for."""

    def fit(self, X: object, *args: object, **kwargs: object) -> object: ...
    def partial_fit(self, X: object, *args: object, **kwargs: object) -> object: ...
    def score(self, X: object, *args: object, **kwargs: object) -> object: ...


class Fitted:
    """An estimator of scikit-learn that takes tensors and frames."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[object, ...]:
        # The class is made by `facade`, so a pickle names the class of scikit-learn.
        origin = type(self).__mro__[2]
        return _remade, (origin, dict(self.__dict__))

    def __sklearn_clone__(self) -> Self:
        from sklearn.base import clone

        values = {key: clone(one, safe=False) for key, one in self.get_params(deep=False).items()}  # type: ignore[attr-defined]
        return type(self)(**values)

    def fit(self, X: object, y: object = None, **kwargs: object) -> Self:
        """Learn from data; see scikit-learn's `fit`."""
        for hint in ("session", "run_kwargs"):
            kwargs.pop(hint, None)
        given = () if y is None else (y,)
        if not any(isinstance(one, Tileable) for one in (X, y, *kwargs.values())):
            with _backend(self):
                super().fit(X, *given, **kwargs)  # type: ignore[misc]
            return learned(self, {})
        if _is_search(self):
            values = [*map(value_of, (X, *given))]
            with _backend(self):
                super().fit(*values, **kwargs)  # type: ignore[misc]
            return learned(self, {})
        session = choose(None)
        if (
            hasattr(self, "partial_fit")
            and not kwargs
            and _chunks(X) > 1
            and _chunks(X) == max(1, _chunks(y) if y is not None else _chunks(X))
        ):
            chunks = _by_rows(X), (None if y is None else _by_rows(y))
            state = spawn(
                _fit_in_parts, (bare(self), *chunks), name=f"{type(self).__name__}.fit"
            ).to_object(show_progress=False)
        else:
            with places.whole_values():
                call = spawn(
                    fit_whole, (bare(self), X, y, kwargs), name=f"{type(self).__name__}.fit",
                    cpus=cores_of_one(session),
                )  # fmt: skip
            state = call.to_object(show_progress=False)
        return learned(self, state)

    def to_local(self) -> object:
        """The model as the library's own, which takes only arrays and frames of the program."""
        return bare(self)

    def fit_predict(self, X: object, y: object = None, **kwargs: object) -> object:
        """Learn from data and predict for them."""
        given = () if y is None else (y,)
        if not isinstance(X, Tileable):
            return fetchable(super().fit_predict(X, *given, **kwargs))  # type: ignore[misc]
        self.fit(X, y, **kwargs)
        labels = getattr(self, "labels_", None)
        if labels is not None:
            from mars.tensor import find

            return find.call("tensor", labels)
        return self.predict(X)  # type: ignore[attr-defined]

    def fit_transform(self, X: object, y: object = None, **kwargs: object) -> object:
        """Learn from data and transform them."""
        given = () if y is None else (y,)
        if not isinstance(X, Tileable):
            return fetchable(super().fit_transform(X, *given, **kwargs))  # type: ignore[misc]
        self.fit(X, y, **kwargs)
        if hasattr(self, "transform"):
            return self.transform(X)
        return _on_rows(self, "embedding_", X)

    def score(self, X: object, y: object = None, **kwargs: object) -> object:
        """The score on data; see scikit-learn's `score`."""
        kwargs = {key: one for key, one in kwargs.items() if key not in ("session", "run_kwargs")}
        if not any(isinstance(one, Tileable) for one in (X, y)):
            return super().score(X, y, **kwargs)  # type: ignore[misc]
        with places.whole_values():
            call = spawn(_score, (bare(self), X, y, kwargs), name=f"{type(self).__name__}.score")
        return call.to_object(show_progress=False)


def _rowwise(name: str) -> Callable[..., object]:
    def method(self: Fitted, X: object, *args: object, **kwargs: object) -> object:
        for hint in ("session", "run_kwargs"):
            kwargs.pop(hint, None)
        if not isinstance(X, Tileable):
            return fetchable(getattr(super(Fitted, self), name)(X, *args, **kwargs))
        return on_rows(bare(self), name, X, args, kwargs)

    method.__name__ = name
    method.__doc__ = f"scikit-learn's `{name}`, on all chunks of rows beside each other."
    return method


class Searcher(Protocol):
    """An estimator that finds nearest rows."""

    n_neighbors: int

    def kneighbors(
        self, X: object, n_neighbors: int | None, return_distance: bool = ...
    ) -> Sequence[ndarray]: ...


def _neighbours(
    self: Fitted, X: object = None, n_neighbors: int | None = None, return_distance: bool = True
) -> object:
    """scikit-learn's `kneighbors`, on all chunks of rows beside each other."""
    model = cast("Searcher", bare(self))
    if not isinstance(X, Tileable):
        return fetchable(model.kneighbors(X, n_neighbors, return_distance))
    count = model.n_neighbors if n_neighbors is None else n_neighbors
    both = cast("Tensor", on_rows(_Neighbours(model, count), "both", X))
    near: Tensor = both[:, count:].astype("int64").execute()
    return ExecutableTuple([both[:, :count].execute(), near]) if return_distance else near


class _Neighbours:
    """Distances of rows to their neighbours, and beside them which rows these are."""

    def __init__(self, model: Searcher, count: int) -> None:
        self._model, self._count = model, count

    def both(self, rows: object) -> ndarray:
        import numpy

        return numpy.hstack(self._model.kneighbors(rows, self._count))


class _IfThere:
    """A method that an estimator has only if scikit-learn's has it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._method = _neighbours if name == "kneighbors" else _rowwise(name)

    def __get__(self, instance: Fitted | None, owner: type[Fitted]) -> Callable[..., object]:
        if instance is None:
            getattr(super(Fitted, owner), self._name)  # an AttributeError if it is not there
            return self._method
        getattr(super(Fitted, instance), self._name)
        return MethodType(self._method, instance)


for _name in (*ROWWISE, "kneighbors"):
    setattr(Fitted, _name, _IfThere(_name))


def on_rows(
    model: object, name: str, X: Tileable, args: tuple[object, ...] = (),
    kwargs: dict[str, object] | None = None,
) -> Tileable:  # fmt: skip
    """A method of a fitted model, on all chunks of rows; the result is executed."""
    import dask.array as da
    import numpy

    given = X.lazy
    run = _OnRows(model, name, args, kwargs or {})
    if isinstance(given, da.Array):
        lazy = given.rechunk({1: -1}) if given.ndim > 1 else given
        small = _tried(run, lambda: numpy.ones((1, *lazy.shape[1:]), lazy.dtype), wrap(lazy[:1]))
    elif isinstance(X, Handle):
        from dask.dataframe.utils import meta_nonempty

        frame = X.lazy
        meta: Rows = frame._meta
        kinds = meta.dtypes.to_dict() if X.ndim == 2 else meta.dtype
        small = _tried(run, lambda: meta_nonempty(meta).astype(kinds), X.head(1))
        _refuse_sparse(name, small)
        run.of_no_rows = small.iloc[:0] if has_rows(small) else small[:0]
        if has_rows(small):
            return _executed(wrap(frame.map_partitions(run, meta=run.of_no_rows)))
        len(X)  # executes it if the lengths of its chunks are not known
        array = cast("da.Array", X.lazy.map_partitions(run, meta=run.of_no_rows))
        array._chunks = (X.nsplits[0], *((n,) for n in small.shape[1:]))
        return _executed(wrap(array))
    else:
        raise TypeError(f"{name}() takes a tensor or a frame, got {X!r}")
    _refuse_sparse(name, small)
    if has_rows(small):
        run.as_array, small = True, small.to_numpy()
    run.of_no_rows = small[:0]
    shape = small.shape[1:]
    chunks = (lazy.chunks[0], *((n,) for n in shape))
    drop = [1] if lazy.ndim > 1 and not shape else []
    new = [1] if lazy.ndim == 1 and shape else None
    made = lazy.map_blocks(
        run, dtype=small.dtype, chunks=chunks, drop_axis=drop, new_axis=new,
        meta=numpy.empty((0,) * (1 + len(shape)), small.dtype),
    )  # fmt: skip
    return _executed(wrap(made))


def _refuse_sparse(name: str, small: object) -> None:
    if hasattr(small, "toarray"):
        raise NotImplementedError(f"{name} gives a sparse matrix; ask for a dense one")


def _executed(made: Tileable) -> Tileable:
    made.execute()
    return made


def _tried(run: _OnRows, make: Callable[[], ndarray | Rows], first: Tileable) -> ndarray:
    """What a method gives for one row: made up, or a real one if the model does not know those."""
    try:
        return run(make())
    except (
        Exception
    ):  # of any kind; if the row is to blame, a real one tells, and else it fails too
        return run(first.to_object())


class _OnRows:
    """A method of a fitted model, called with rows."""

    def __init__(
        self, model: object, name: str, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        self.__name__ = name
        self._model, self._args, self._kwargs = model, args, kwargs
        self.as_array = False
        self.of_no_rows: object = None
        # Not the id of the model: that of another one may be the same, once this one is gone.
        self._token = uuid.uuid4().hex

    def __call__(self, rows: ndarray | Rows) -> ndarray:
        import numpy

        if len(rows) == 0 and self.of_no_rows is not None:  # models refuse to look at none
            return cast("ndarray", self.of_no_rows)
        made: ndarray = getattr(self._model, self.__name__)(rows, *self._args, **self._kwargs)
        return numpy.asarray(made) if self.as_array else made

    def __dask_tokenize__(self) -> object:
        return ("mars-rows", self._token, self.__name__)


def _on_rows(model: object, name: str, X: object) -> object:
    from mars.tensor import find

    return find.call("tensor", getattr(model, name))


def _remade(origin: type, state: dict[str, object]) -> object:
    kind = of_class(origin)
    new: Callable[..., object] = kind.__new__
    made = new(kind)
    made.__dict__.update(state)
    return made


def bare(model: object) -> object:
    """The model as scikit-learn's own class, for a worker."""
    if not isinstance(model, Fitted):
        return model
    origin = type(model).__mro__[2]
    new: Callable[..., object] = origin.__new__
    made = new(origin)
    made.__dict__.update({name: plain(value) for name, value in vars(model).items()})
    return made


Model = TypeVar("Model", bound=Fitted)


def learned(model: Model, state: dict[str, object]) -> Model:
    """The model with attributes that it learned, of which arrays can be fetched."""
    vars(model).update(state)
    for name, value in vars(model).items():
        if name.endswith("_"):
            setattr(model, name, fetchable(value))
    return model


def _is_search(model: object) -> bool:
    return hasattr(model, "param_grid") or hasattr(model, "param_distributions")


def _backend(model: object) -> contextlib.AbstractContextManager[object]:
    """Joblib gives the candidates of a search to calls, if joblib is installed."""
    if not _is_search(model) or importlib.util.find_spec("mars.joblib") is None:
        return contextlib.nullcontext()
    import joblib

    importlib.import_module("mars.joblib")
    config: contextlib.AbstractContextManager[object] = joblib.parallel_config("mars")
    return config


def _chunks(value: object) -> int:
    lazy = unwrap(value)
    return int(getattr(lazy, "numblocks", (getattr(lazy, "npartitions", 1),))[0])


def _by_rows(value: object) -> object:
    """Objects of the chunks of rows."""
    if not isinstance(value, Tileable):
        return value
    import dask.array as da

    lazy = value.lazy
    if isinstance(lazy, da.Array) and lazy.ndim > 1:
        value = wrap(lazy.rechunk({1: -1}))
    value.describe_beside((value,), choose(None))
    return list(value.objects or ())


class Sliced(Protocol):
    """What gives some of its rows."""

    def __getitem__(self, rows: slice, /) -> object: ...


def rows_between(value: object, begin: int, end: int) -> object:
    """Some rows of a tensor, a frame or an array."""
    return cast("Sliced", getattr(value, "iloc", value))[begin:end]


def fit_whole(
    model: Estimator, X: object, y: object, kwargs: dict[str, object]
) -> dict[str, object]:
    """Have a model learn from whole data; gives its attributes."""
    model.fit(X, y, **kwargs) if y is not None else model.fit(X, **kwargs)
    return dict(vars(model))


def _fit_in_parts(
    model: Estimator, parts: list[object], labels: list[object] | None
) -> dict[str, object]:
    import numpy

    more: dict[str, object] = {}
    if labels is not None:
        from sklearn.base import is_classifier

        if is_classifier(model):
            more["classes"] = numpy.unique(
                numpy.concatenate([numpy.asarray(one) for one in labels])
            )
    for number, part in enumerate(parts):
        if labels is None:
            model.partial_fit(part)
        else:
            model.partial_fit(part, labels[number], **more)
    return dict(vars(model))


def _score(model: Estimator, X: object, y: object, kwargs: dict[str, object]) -> object:
    return model.score(X, **kwargs) if y is None else model.score(X, y, **kwargs)


__all__ = ["Fitted", "bare", "fit_whole", "learned", "of_class", "on_rows", "rows_between"]
