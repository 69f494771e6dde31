"""pandas on mars: ``df.apply(f, axis=1, engine=mars.pandas)``, and the same of `Series.map`.

pandas 3 lets others run the functions that users give it. With ``engine=mars.pandas`` plain pandas
goes in and comes out, and the function runs on blocks of rows beside each other, each block in a
call with its own log and errors. It pays off where the function is Python code that takes longer
than some microseconds a row. For functions that pandas itself runs fast, leave the engine away. ::

    import mars.pandas

    df.apply(score, axis=1, engine=mars.pandas)
    df["text"].map(clean, engine=mars.pandas)
    mars.pandas.apply_groups(df.groupby("user"), summary)

pandas asks this module for ``__pandas_udf__``. `Engine` holds options. pandas has to be
version 3 or later, except for `apply_groups`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mars.attempt import context
from mars.calls.mistakes import unknown_keyword
from mars.calls.objects import ExecutableTuple
from mars.calls.options import parse_options
from mars.calls.put import put
from mars.calls.spawn import spawn
from mars.errors import UsageError
from mars.sessions.opening import choose
from mars.sessions.session import Session
from mars.settings import PANDAS_BLOCKS_PER_CORE

if TYPE_CHECKING:
    from pandas import DataFrame as Frame  # or a Series
    from pandas.core.groupby import GroupBy

    from mars.calls.objects import Object
    from mars.sessions.session import AnySession


class Functions:
    """What pandas asks to run a function: one method for `map`, one for `apply`."""

    @staticmethod
    def map(
        data: Frame,
        func: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        decorator: object = None,
        skip_na: bool = False,
    ) -> Frame:
        """Have ``func`` called with each element of a series; see `pandas.Series.map`."""
        action = "ignore" if skip_na else None
        # The categories are mapped, not the rows, and they belong together.
        single = getattr(data.dtype, "categories", None) is not None
        parts = _blocks(data, _map_block, (func, args, kwargs, action), decorator, single=single)
        return _joined(parts, rows=True)

    @staticmethod
    def apply(
        data: Frame,
        func: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        decorator: object = None,
        axis: int | str = 0,
    ) -> Frame:
        """Have ``func`` called with each row or column of a frame; see `pandas.DataFrame.apply`."""
        rows = axis in (1, "columns")
        raw = not hasattr(data, "iloc")  # pandas hands over an array if raw=True
        run = _apply_raw if raw else _apply_block
        parts = _blocks(data, run, (func, args, kwargs, int(rows)), decorator, rows=rows)
        return _joined(parts, rows=rows)


__pandas_udf__ = Functions


class Engine:
    """An engine for pandas with options of its own: ``engine=mars.pandas.Engine(retries=2)``.

    ``engine=mars.pandas`` is the same without options.

    Parameters
    ----------
    session : Session, optional
        Runs the calls. Default: the default session; if there is none, one is made, with a warning.
    blocks : int, optional
        Into how many calls the rows, columns or groups are divided. Default: four for each core.
    **options
        Options of the calls, as of `mars.remote.spawn`.

    Raises
    ------
    TypeError, ValueError
        An option is unknown, or its value cannot be.

    Examples
    --------
    >>> import pandas
    >>> frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]})
    >>> frame.apply(sum, axis=1, engine=Engine(memory="1GiB")).tolist()
    [4, 6]
    """

    __pandas_udf__ = Functions

    def __init__(
        self, session: AnySession | None = None, blocks: int | None = None, **options: Any
    ) -> None:
        further = ("session", "blocks")
        parse_options(options, unknown=lambda name: unknown_keyword(name, options[name], further))
        if blocks is not None and blocks < 1:
            raise ValueError(f"blocks has to be 1 or more, got {blocks!r}")
        self.session = session
        self.blocks = blocks
        self.options = options

    def count(self, session: Session) -> int:
        """How many calls there should be."""
        return self.blocks or PANDAS_BLOCKS_PER_CORE * session.get_total_n_cpu()

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"mars.pandas.Engine({', '.join(said)})"


def apply_groups(
    grouped: GroupBy,
    func: Callable[..., object],
    *args: object,
    engine: Engine | None = None,
    **kwargs: object,
) -> Frame:
    """Have ``func`` called with each group, as ``grouped.apply(func)`` does.

    pandas takes no engine for groups, so this is a function of its own. The groups are dealt out
    to as many calls as there are cores, and some more.

    Parameters
    ----------
    grouped : DataFrameGroupBy or SeriesGroupBy
        What ``df.groupby(...)`` or ``df.groupby(...)["column"]`` gives.
    func : callable
        Called with each group, ``*args`` and ``**kwargs``.
    *args
        Further arguments.
    engine : Engine, optional
        Holds options of the calls. Default: none.
    **kwargs
        Further arguments.

    Returns
    -------
    Series or DataFrame
        As of ``grouped.apply(func, *args, **kwargs)``.

    Raises
    ------
    UsageError
        ``grouped`` is no result of ``groupby``.
    BaseException
        The error of the first group that failed.

    Examples
    --------
    >>> import pandas
    >>> frame = pandas.DataFrame({"user": ["a", "b", "a"], "n": [1, 2, 3]})
    >>> apply_groups(frame.groupby("user")["n"], max).tolist()
    [3, 2]
    """
    from pandas.api.typing import DataFrameGroupBy, SeriesGroupBy

    if not isinstance(grouped, (DataFrameGroupBy, SeriesGroupBy)):
        raise UsageError(
            f"apply_groups takes what groupby() of a frame or a series gives, got "
            f"{type(grouped).__name__}"
        )
    groups: list[tuple[object, Frame]] = []
    grouped.apply(lambda group: groups.append((group.name, group)))
    if not groups:
        return grouped.apply(func, *args, **kwargs)
    how = engine or Engine()
    session = choose(how.session)
    shared = put((func, args, kwargs), session=session)
    calls = [
        spawn(_apply_groups, (groups[start:end], shared), **_options(func, "groups", how))
        for start, end in _cuts(len(groups), how.count(session))
    ]
    # pandas puts the results together. It asks for them in the order of the groups.
    given = iter([value for part in _executed(calls, session) for value in part])
    return grouped.apply(lambda _: next(given))


_Shared = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
"""What blocks share: the function, and its further arguments."""


def _apply_groups(groups: Sequence[tuple[object, Frame]], shared: _Shared) -> list[Frame]:
    func, args, kwargs = shared
    values = []
    for name, group in groups:
        object.__setattr__(group, "name", name)  # as pandas does; it is lost on the way
        try:
            values.append(func(group, *args, **kwargs))
        except BaseException:
            context.show_arguments(name, group)
            raise
    return values


def _map_block(
    data: Frame,
    func: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    action: str | None,
) -> Frame:
    return data.map(lambda value: func(value, *args, **kwargs), na_action=action)


def _apply_block(
    data: Frame,
    func: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    axis: int,
) -> Frame:
    return data.apply(func, axis=axis, args=args, **kwargs)


def _apply_raw(
    data: Frame,
    func: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    axis: int,
) -> Frame:
    import numpy

    return numpy.apply_along_axis(func, axis, data, *args, **kwargs)


def _run_block(run: Callable[..., object], shared: tuple[object, ...], data: Frame) -> Frame:
    try:
        return run(data, *shared)
    except BaseException:
        context.show_arguments(data)
        raise


def _blocks(
    data: Frame,
    run: Callable[..., object],
    shared: tuple[Callable[..., object], *tuple[object, ...]],
    engine: object,
    *,
    rows: bool = True,
    single: bool = False,
) -> list[Frame]:
    """The results of all blocks of rows or columns, in their order."""
    how = engine if isinstance(engine, Engine) else Engine()
    session = choose(how.session)
    common = put(shared, session=session)
    place = getattr(data, "iloc", data)
    options = _options(shared[0], "rows" if rows else "columns", how)
    calls = []
    for start, end in _cuts(data.shape[0 if rows else 1], 1 if single else how.count(session)):
        block = place[start:end] if rows else place[:, start:end]
        # What is cut out of a frame by rows is not contiguous, and would be copied when pickled.
        calls.append(spawn(_run_block, (run, common, block.copy()), **options))
    return _executed(calls, session)


def _executed(calls: list[Object[Frame]], session: Session) -> list[Frame]:
    ExecutableTuple(calls).execute(session=session)
    return session.values(calls)


def _options(func: Callable[..., object], what: str, how: Engine) -> dict[str, Any]:
    name = getattr(func, "__name__", type(func).__name__)
    return {"name": f"{name} on {what}", **how.options}


def _joined(parts: list[Frame], *, rows: bool) -> Frame:
    """The results of blocks, put together as pandas would have made them at once."""
    if len(parts) == 1:
        return parts[0]
    across = not rows and parts[0].ndim == 2
    if not hasattr(parts[0], "iloc"):
        import numpy

        return numpy.concatenate(parts, axis=1 if across else 0)
    import pandas

    return pandas.concat(parts, axis=1 if across else 0)


def _cuts(length: int, count: int) -> list[tuple[int, int]]:
    """Where each of so many blocks begins and ends. None of them is empty."""
    count = max(1, min(length, int(count)))
    return [(length * i // count, length * (i + 1) // count) for i in range(count)]


__all__ = ["Engine", "apply_groups"]
