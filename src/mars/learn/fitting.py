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
from collections.abc import Callable
from typing import Any, Final

from mars.calls.objects import ExecutableTuple
from mars.calls.spawn import spawn
from mars.code import places
from mars.dataframe.parts import array_of
from mars.learn.cores import cores_of_one
from mars.sessions.opening import choose
from mars.tileables.tileable import Tileable, unwrap, wrap

ROWWISE: Final = (
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform",
    "score_samples", "inverse_transform",
)  # fmt: skip
"""Methods that look at each row by itself."""


@functools.cache
def of_class(origin: Any) -> Any:
    """A class of scikit-learn that takes tensors and frames."""
    if not hasattr(origin, "fit"):
        return origin
    made = type(origin.__name__, (Fitted, origin), {"__doc__": origin.__doc__})
    made.__module__ = "mars.learn" + origin.__module__.removeprefix("sklearn")
    return made


class Fitted:
    """An estimator of scikit-learn that takes tensors and frames."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made by `facade`, so a pickle names the class of scikit-learn.
        origin = type(self).__mro__[2]
        return _remade, (origin, dict(self.__dict__))

    def __sklearn_clone__(self) -> Any:
        from sklearn.base import clone

        values = {key: clone(one, safe=False) for key, one in self.get_params(deep=False).items()}  # type: ignore[attr-defined]
        return type(self)(**values)

    def fit(self, X: Any, y: Any = None, **kwargs: Any) -> Any:
        """Learn from data; see scikit-learn's `fit`."""
        for hint in ("session", "run_kwargs"):
            kwargs.pop(hint, None)
        given = () if y is None else (y,)
        if not any(isinstance(one, Tileable) for one in (X, y, *kwargs.values())):
            with _backend(self):
                super().fit(X, *given, **kwargs)  # type: ignore[misc]
            return self
        if _is_search(self):
            values = [
                one.executed_value() if isinstance(one, Tileable) else one for one in (X, *given)
            ]
            with _backend(self):
                super().fit(*values, **kwargs)  # type: ignore[misc]
            return self
        session = choose(None)
        if (
            hasattr(self, "partial_fit")
            and not kwargs
            and _chunks(X) > 1
            and _chunks(X) == max(1, _chunks(y) if y is not None else _chunks(X))
        ):
            chunks = _by_rows(X), (None if y is None else _by_rows(y))
            state = spawn(
                _fit_in_parts, (_bare(self), *chunks), name=f"{type(self).__name__}.fit"
            ).to_object(show_progress=False)
        else:
            with places.whole_values():
                call: Any = spawn(
                    fit_whole, (_bare(self), X, y, kwargs), name=f"{type(self).__name__}.fit",
                    cpus=cores_of_one(session),
                )  # fmt: skip
            state = call.to_object(show_progress=False)
        self.__dict__.update(state)
        return self

    def fit_predict(self, X: Any, y: Any = None, **kwargs: Any) -> Any:
        """Learn from data and predict for them."""
        if not isinstance(X, Tileable):
            return super().fit_predict(X, y, **kwargs)  # type: ignore[misc]
        self.fit(X, y, **kwargs)
        labels = getattr(self, "labels_", None)
        if labels is not None:
            from mars.tensor import find

            return find.call("tensor", labels)
        return self.predict(X)  # type: ignore[attr-defined]

    def fit_transform(self, X: Any, y: Any = None, **kwargs: Any) -> Any:
        """Learn from data and transform them."""
        if not isinstance(X, Tileable):
            return super().fit_transform(X, y, **kwargs)  # type: ignore[misc]
        self.fit(X, y, **kwargs)
        if hasattr(self, "transform"):
            return self.transform(X)
        return _on_rows(self, "embedding_", X)

    def score(self, X: Any, y: Any = None, **kwargs: Any) -> Any:
        """The score on data; see scikit-learn's `score`."""
        kwargs = {key: one for key, one in kwargs.items() if key not in ("session", "run_kwargs")}
        if not any(isinstance(one, Tileable) for one in (X, y)):
            return super().score(X, y, **kwargs)  # type: ignore[misc]
        with places.whole_values():
            call: Any = spawn(
                _score, (_bare(self), X, y, kwargs), name=f"{type(self).__name__}.score"
            )
        return call.to_object(show_progress=False)


def _rowwise(name: str) -> Any:
    def method(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        for hint in ("session", "run_kwargs"):
            kwargs.pop(hint, None)
        if not isinstance(X, Tileable):
            return getattr(super(Fitted, self), name)(X, *args, **kwargs)
        return on_rows(_bare(self), name, X, args, kwargs)

    method.__name__ = name
    method.__doc__ = f"scikit-learn's `{name}`, on all chunks of rows beside each other."
    return method


def _neighbours(
    self: Any, X: object = None, n_neighbors: int | None = None, return_distance: bool = True
) -> object:
    """scikit-learn's `kneighbors`, on all chunks of rows beside each other."""
    model = _bare(self)
    if not isinstance(X, Tileable):
        return model.kneighbors(X, n_neighbors, return_distance)
    count = model.n_neighbors if n_neighbors is None else n_neighbors
    both = on_rows(_Neighbours(model, count), "both", X)
    near = both[:, count:].astype("int64").execute()
    return ExecutableTuple([both[:, :count].execute(), near]) if return_distance else near


class _Neighbours:
    """Distances of rows to their neighbours, and beside them which rows these are."""

    def __init__(self, model: Any, count: int) -> None:
        self._model, self._count = model, count

    def both(self, rows: object) -> object:
        import numpy

        return numpy.hstack(self._model.kneighbors(rows, self._count))


class _IfThere:
    """A method that an estimator has only if scikit-learn's has it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._method = _neighbours if name == "kneighbors" else _rowwise(name)

    def __get__(self, instance: Any, owner: Any) -> Any:
        if instance is None:
            getattr(super(Fitted, owner), self._name)  # an AttributeError if it is not there
            return self._method
        getattr(super(Fitted, instance), self._name)
        return self._method.__get__(instance, owner)


for _name in (*ROWWISE, "kneighbors"):
    setattr(Fitted, _name, _IfThere(_name))


def on_rows(model: Any, name: str, X: Any, args: Any = (), kwargs: Any = None) -> Any:
    """A method of a fitted model, on all chunks of rows; the result is executed."""
    import numpy

    lazy = unwrap(X)
    run = _OnRows(model, name, args, kwargs or {})
    if hasattr(lazy, "chunks"):
        lazy = lazy.rechunk({1: -1}) if lazy.ndim > 1 else lazy
        small = _tried(run, lambda: numpy.ones((1, *lazy.shape[1:]), lazy.dtype), lazy[:1])
    else:
        from dask.dataframe.utils import meta_nonempty

        kinds = lazy._meta.dtypes.to_dict() if lazy.ndim == 2 else lazy._meta.dtype
        small = _tried(run, lambda: meta_nonempty(lazy._meta).astype(kinds), wrap(lazy).head(1))
        if hasattr(small, "iloc"):
            return wrap(lazy.map_partitions(run, meta=small.iloc[:0])).execute()
        X = wrap(array_of(lazy))
        run.columns = list(lazy.columns) if lazy.ndim == 2 else lazy.name
        X.execute()
        lazy = X.measured()
    if hasattr(small, "toarray"):
        raise NotImplementedError(f"{name} gives a sparse matrix; ask for a dense one")
    if hasattr(small, "iloc"):
        run.as_array, small = True, small.to_numpy()
    shape = small.shape[1:]
    chunks = (lazy.chunks[0], *((n,) for n in shape))
    drop = [1] if lazy.ndim > 1 and not shape else []
    new = [1] if lazy.ndim == 1 and shape else None
    made = lazy.map_blocks(
        run, dtype=small.dtype, chunks=chunks, drop_axis=drop, new_axis=new,
        meta=numpy.empty((0,) * (1 + len(shape)), small.dtype),
    )  # fmt: skip
    return wrap(made).execute()


def _tried(run: _OnRows, make: Callable[[], object], first: object) -> Any:
    """What a method gives for one row: made up, or a real one if the model does not know those."""
    try:
        return run(make())
    except (
        Exception
    ):  # of any kind; if the row is to blame, a real one tells, and else it fails too
        return run((first if isinstance(first, Tileable) else wrap(first)).to_object())


class _OnRows:
    """A method of a fitted model, called with rows."""

    def __init__(self, model: Any, name: str, args: Any, kwargs: Any) -> None:
        self.__name__ = name
        self._model, self._args, self._kwargs = model, args, kwargs
        self.columns: Any = None
        self.as_array = False
        # Not the id of the model: that of another one may be the same, once this one is gone.
        self._token = uuid.uuid4().hex

    def __call__(self, rows: Any) -> Any:
        import numpy

        if self.columns is not None:
            import pandas

            rows = (
                pandas.DataFrame(rows, columns=self.columns)
                if rows.ndim == 2
                else pandas.Series(rows, name=self.columns)
            )
        made = getattr(self._model, self.__name__)(rows, *self._args, **self._kwargs)
        return numpy.asarray(made) if self.as_array else made

    def __dask_tokenize__(self) -> object:
        return ("mars-rows", self._token, self.__name__)


def _on_rows(model: object, name: str, X: object) -> object:
    from mars.tensor import find

    return find.call("tensor", getattr(model, name))


def _remade(origin: Any, state: dict[str, Any]) -> Any:
    made = of_class(origin).__new__(of_class(origin))
    made.__dict__.update(state)
    return made


def _bare(model: Any) -> Any:
    """The model as scikit-learn's own class, for a worker."""
    if not isinstance(model, Fitted):
        return model
    origin: Any = type(model).__mro__[2]
    made = origin.__new__(origin)
    made.__dict__.update(model.__dict__)
    return made


def _is_search(model: object) -> bool:
    return hasattr(model, "param_grid") or hasattr(model, "param_distributions")


def _backend(model: object) -> contextlib.AbstractContextManager[object]:
    """Joblib gives the candidates of a search to calls, if the joblib door is installed."""
    if not _is_search(model) or importlib.util.find_spec("mars.joblib") is None:
        return contextlib.nullcontext()
    import joblib

    importlib.import_module("mars.joblib")
    chosen: contextlib.AbstractContextManager[object] = joblib.parallel_config("mars")
    return chosen


def _chunks(value: object) -> int:
    lazy = unwrap(value)
    return int(getattr(lazy, "numblocks", (getattr(lazy, "npartitions", 1),))[0])


def _by_rows(value: Any) -> Any:
    """Objects of the chunks of rows."""
    if not isinstance(value, Tileable):
        return value
    lazy = unwrap(value)
    if hasattr(lazy, "chunks") and lazy.ndim > 1:
        value = wrap(lazy.rechunk({1: -1}))
    value.describe_beside((value,), choose(None))
    return list(value.objects)


def fit_whole(model: Any, X: Any, y: Any, kwargs: Any) -> dict[str, Any]:
    """Have a model learn from whole data; gives its attributes."""
    model.fit(X, y, **kwargs) if y is not None else model.fit(X, **kwargs)
    return dict(vars(model))


def _fit_in_parts(model: Any, parts: list[Any], labels: Any) -> dict[str, Any]:
    import numpy

    more: dict[str, Any] = {}
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


def _score(model: Any, X: Any, y: Any, kwargs: Any) -> Any:
    return model.score(X, **kwargs) if y is None else model.score(X, y, **kwargs)


__all__ = ["Fitted", "fit_whole", "of_class", "on_rows"]
