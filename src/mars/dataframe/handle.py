"""A frame, series, index or scalar as a handle: its chunks, its value, its text.

What a program calls on it stands in `core`, which makes the classes that users know. The modules
between, such as `access` and `groups`, get frames as what is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from mars.dataframe import rows
from mars.dataframe.parts import array_of, lengths_of, parts_of
from mars.dataframe.whole import Method, joined, on_whole
from mars.sessions.opening import choose, get_default_session
from mars.tileables.tileable import Tileable, facts_of, stored_node, wrap

if TYPE_CHECKING:
    from dask.dataframe.dask_expr._collection import FrameBase

    from mars.calls.executable import Executable
    from mars.dataframe.protocols import Rows
    from mars.sessions.session import AnySession, Session

_SHOWN_ROWS: Final = 60  # as pandas shows, of a longer frame it shows the ends


class Handle(Tileable):
    """What frames, series, indices and scalars are, without the methods of pandas."""

    __slots__ = ("_lengths",)

    if TYPE_CHECKING:

        @property
        def lazy(self) -> FrameBase: ...

    # -- facts ----------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        return int(self.lazy.ndim)

    @property
    def shape(self) -> tuple[float, ...]:
        """The number of rows, and of columns; nan rows before it is executed."""
        known = self._known_lengths()
        count = math.nan if known is None else sum(known)
        return (count, len(self.lazy.columns)) if self.ndim == 2 else (count,)

    @property
    def size(self) -> float:
        return math.prod(self.shape)

    @property
    def nsplits(self) -> tuple[tuple[float, ...], ...]:
        """The lengths of the chunks."""
        known = self._known_lengths()
        count: tuple[float, ...] = tuple(known or [math.nan] * self.lazy.npartitions)
        return (count, (len(self.lazy.columns),)) if self.ndim == 2 else (count,)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return (self.lazy.npartitions, 1) if self.ndim == 2 else (self.lazy.npartitions,)

    def __len__(self) -> int:
        known = self._known_lengths()
        if known is None:
            self.execute()
            known = self._known_lengths()
        return sum(known or ())

    def _known_lengths(self) -> list[int] | None:
        if self._here or self._all_done():
            stored = getattr(self, "_lengths", None)
            if stored is None or stored[0] is not self._objects:
                if self._here:
                    rows_here: Rows = self.executed_value()
                    found = [len(rows_here)]
                else:
                    found = [int(facts_of(len, one)) for one in self._objects or ()]
                stored = self._lengths = (self._objects, found)
            return list(stored[1])
        return None if self._lazy is None else lengths_of(self.lazy)

    def _all_done(self) -> bool:
        session = get_default_session()
        return bool(self._objects) and session is not None and self._is_done(session)

    # -- what a program calls -------------------------------------------------------------------

    def to_pandas(
        self, session: AnySession | None = None, wait: bool = True, **kwargs: object
    ) -> Any:
        """Execute it, unless that was done, and fetch it."""
        for hint in ("fetch_kwargs", "batch_size"):
            kwargs.pop(hint, None)
        return self.executed_value(session, wait, **kwargs)

    def to_numpy(self, *args: object, **kwargs: object) -> Any:
        """The values as an array of numpy; it is executed for that."""
        return self.to_pandas().to_numpy(*args, **kwargs)

    def to_tensor(self) -> Tileable:
        """The values as a tensor."""
        return wrap(array_of(self.lazy))

    @property
    def values(self) -> Tileable:
        return self.to_tensor()

    def to_dask(self) -> FrameBase:
        """The frame of Dask that it stands for."""
        return self.lazy

    def head(self, n: int = 5) -> Tileable:
        """The first rows."""
        return wrap(rows.taken(self.lazy, slice(0, n), None), self)

    def tail(self, n: int = 5) -> Tileable:
        """The last rows."""
        wanted = slice(0, 0) if n == 0 else slice(-n, None)
        return wrap(rows.taken(self.lazy, wanted, None), self)

    def by_dask(self, func: Callable[[FrameBase], FrameBase], plain: Method) -> Executable[object]:
        """What Dask makes of it. If it refuses, one call gets the whole frame."""
        import warnings

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Dask, about what a user did not write
                made = func(self.lazy)
        except Exception:  # of any kind; then pandas says what is wrong, if anything is
            method, others = plain.lifted()
            return on_whole(self, method, *others)
        return wrap(made, self)

    # -- inside ---------------------------------------------------------------------------------

    @classmethod
    def of_value(cls, value: object) -> Self:
        """A frame of one chunk, which this process has."""
        import dask.dataframe as dd

        return cls(dd.from_pandas(value, npartitions=1, sort=False), here=True)

    def _assembled(self, values: Sequence[Rows]) -> object:
        return joined(values)

    def value_in(self, session: Session | None) -> object:
        if self._objects is None and (self._here or self._shows(session)):
            import dask

            return joined(list(dask.compute(*parts_of(self.lazy), scheduler="sync")))
        return super().value_in(session)

    def _found_out(self) -> FrameBase:
        from dask.dataframe.dask_expr import from_graph

        [stored] = self.objects or []
        meta = facts_of(_meta_of, stored)
        name = f"spawn-{stored.key}-{stored.index}"
        graph: dict[Hashable, object] = {(name, 0): stored_node((name, 0), stored, choose(None))}
        return from_graph(graph, meta, (None, None), [(name, 0)], "spawn")

    def _described(self) -> str:
        if self._lazy is None:
            return f"{self.kind} <op=RemoteFunction, the result of a call>"
        return super()._described()

    def __repr__(self) -> str:
        shown = self._ends(repr)
        return self._described() if shown is None else shown

    def __str__(self) -> str:
        shown = self._ends(str)
        return self._described() if shown is None else shown

    def _ends(self, show: Callable[[object], str]) -> str | None:
        """Pandas' text of the first and last rows, if it was executed."""
        value = self._corner()
        if value is None:
            return None
        count = len(self)
        text = show(value)
        if len(value) < count:
            text = text.replace(f"[{len(value)} rows", f"[{count} rows")
            text = text.replace(f"Length: {len(value)}", f"Length: {count}")
        return text

    def _corner(self) -> Rows | None:
        if not (self._here or self._all_done()):
            return None
        if self._lazy is None or len(self) <= _SHOWN_ROWS:
            whole: Rows = self.fetch()
            return whole

        half = _SHOWN_ROWS // 2 + 1
        ends: list[Rows] = [self.head(half).fetch(), self.tail(half).fetch()]
        return joined(ends)

    def _repr_html_(self) -> str | None:
        value = self._corner()
        if value is None or not hasattr(value, "_repr_html_"):
            return None
        return str(value._repr_html_()).replace(f"{len(value)} rows", f"{len(self)} rows")


def _meta_of(value: Rows) -> Rows:
    return value.iloc[:0] if hasattr(value, "iloc") else value[:0]


__all__ = ["Handle"]
