"""One model over several nodes: a call on each node, joined by the library's own collective.

::

    each call: says where it is ──► Meeting, in the program ──► each call: what the others said
    each call: learns from the rows of its node ◄── the library's collective ──► the other calls

The program only describes the calls, and begins anew if a node or a worker is lost: no library
goes on without one of its members. `xgboost_members` and `lightgbm_members` are what a call does;
`xgboost` and `lightgbm` of this package call it.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from mars.calls.objects import ExecutableTuple, Object
from mars.calls.spawn import spawn
from mars.code import places
from mars.dataframe.handle import Handle
from mars.errors import WorkerDied
from mars.learn.cores import nodes_of
from mars.learn.fitting import rows_between
from mars.sessions.opening import get_context
from mars.sessions.session import Session
from mars.tileables.tileable import Tileable


class InChunks(Protocol):
    """A tensor or a frame whose chunks have known lengths."""

    @property
    def nsplits(self) -> tuple[tuple[float, ...], ...]: ...
    def __len__(self) -> int: ...


Options: TypeAlias = dict[str, object]
Data: TypeAlias = tuple[object, object, Options]
"""The rows, what is to be learned, and what else belongs to them."""
Measured: TypeAlias = Sequence[tuple[Data, str]]
"""Data with a name, which each round is measured on."""

BEGINNINGS: Final = 4
"""How often a training begins at most, as often as a call of which the worker dies."""

PER_ROW: Final = frozenset(
    ["base_margin", "init_score", "label_lower_bound", "label_upper_bound", "sample_weight",
     "weight"]
)  # fmt: skip
"""What belongs to data and has a value for each row."""

WHOLE: Final = frozenset({"feature_weights", "group", "qid"})
"""What belongs to data and cannot be cut by rows: such data stay on one node."""


@dataclass(frozen=True)
class Training:
    """How one library trains."""

    name: str
    part: Callable[..., object]
    """What each call does: it gets its `Seat`, its data and the settings. The first one's result
    is the model."""

    grace_s: float
    """How long the other members have to notice that one has failed, before they are cancelled."""

    begins_anew: Callable[[BaseException], bool] = lambda _: False
    """Whether a failure is one that another beginning may not have."""


def parts_for(session: Session, data: object, more: Mapping[str, object]) -> int:
    """On how many nodes a model of these data is trained: each has at least one chunk of them."""
    if not isinstance(data, Tileable) or any(more.get(name) is not None for name in WHOLE):
        return 1
    if isinstance(data, Handle) and _has_categories(data):
        return 1
    rows = cast("InChunks", data)
    count = len(nodes_of(session))
    if count < 2 or len(rows) < count:  # it is executed to be counted
        return 1
    return min(count, len(rows.nsplits[0]))


def _has_categories(data: Handle) -> bool:
    """Whether a column has categories. Chunks may number them differently, and so would nodes."""
    kinds = data.lazy._meta.dtypes
    return "category" in map(str, kinds.to_dict().values() if data.ndim == 2 else [kinds])


def train_on_nodes(
    session: Session, training: Training, given: Data, others: Measured, *settings: object
) -> object:
    """Train one model by a call on each node.

    Parameters
    ----------
    session : Session
        Whose nodes train.
    training : Training
        How to.
    given : tuple
        The rows, what is to be learned, and what else belongs to them.
    others : sequence of tuple
        The same of further data, each with a name, which each round is measured on: each node
        gets a share of them.
    *settings : object
        For each call, as they are.

    Returns
    -------
    object
        What the first call returned.

    Raises
    ------
    WorkerDied
        A worker or node was lost in each of `BEGINNINGS` trainings.
    BaseException
        The library has refused the data or the settings.
    """
    for number in itertools.count(1):
        count = parts_for(session, given[0], given[2])
        nodes = sorted(nodes_of(session), key=lambda node: -node[1])[:count]
        try:
            return _trained_once(session, training, nodes, given, others, settings)
        except _Lost as lost:
            if number == BEGINNINGS:
                raise lost.error from None
    raise AssertionError("the loop above returns or raises")


class _Lost(Exception):
    """A member was lost, so the training has to begin anew."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def _trained_once(
    session: Session, training: Training, nodes: list[tuple[str, float]], given: Data,
    others: Measured, settings: tuple[object, ...],
) -> object:  # fmt: skip
    cuts = _cuts(given[0], len(nodes))
    name = f"{training.name}-{uuid.uuid4().hex}"
    meeting = session.create_remote_object(name, Meeting)
    try:
        calls: list[Object[object]] = []
        for rank, (address, cores) in enumerate(nodes):
            own = _rows(given, cuts[rank], cuts[rank + 1])
            measured = [(_share(one, rank, len(nodes)), called) for one, called in others]
            seat = Seat(name, rank, len(nodes), int(cores))
            with places.whole_values():
                calls.append(
                    spawn(
                        training.part, (seat, own, measured, *settings),
                        name=f"{training.name}, part {rank + 1} of {len(nodes)}",
                        expect_worker=address, cpus=int(cores), idempotent=False, cache=False,
                    )
                )  # fmt: skip
        run = ExecutableTuple(calls).execute(
            session=session, wait=False, show_progress=False, on_error="continue"
        )
        for one in run.completed():
            if one.errors(session) != [None]:  # whoever waits for this call must not for ever
                meeting.give_up()
                break
        try:
            run.result(training.grace_s)
        except TimeoutError:
            run.cancel()
        errors = [one for one in ExecutableTuple(calls).errors(session) if one is not None]
        for error in errors:
            if isinstance(error, WorkerDied) or training.begins_anew(error):
                raise _Lost(error)
        if errors:
            raise errors[0]
        return calls[0].fetch(session)
    finally:
        session.destroy_remote_object(name)


def _cuts(data: object, count: int) -> list[int]:
    """Where to cut rows for so many nodes: between chunks, and into parts that are about equal."""
    ends = list(itertools.accumulate(int(n) for n in cast("InChunks", data).nsplits[0]))
    cuts = [0]
    for number in range(1, count):
        wanted = ends[-1] * number / count
        free = [one for one in ends[: len(ends) - (count - number)] if one > cuts[-1]]
        cuts.append(min(free, key=lambda end: abs(end - wanted)))
    return [*cuts, ends[-1]]


def _rows(given: Data, begin: int, end: int) -> Data:
    """Some rows of the data, of what is learned, and of what else has a value for each row."""
    data, label, more = given
    cut = {key: _taken(one, begin, end) if key in PER_ROW else one for key, one in more.items()}
    return _taken(data, begin, end), _taken(label, begin, end), cut


def _share(given: Data, rank: int, count: int) -> Data:
    """The share of a node in data to measure on. A few rows are measured by each node."""
    total = len(cast("Sized", given[0]))
    if total < count or any(given[2].get(name) is not None for name in WHOLE):
        return given
    return _rows(given, total * rank // count, total * (rank + 1) // count)


def _taken(value: object, begin: int, end: int) -> object:
    return None if value is None else rows_between(value, begin, end)


class Meeting:
    """Where the calls of a training learn where the others are. It lives in the program."""

    def __init__(self) -> None:
        self._found: dict[int, Options] = {}
        self._over = False
        self._changed = asyncio.Condition()

    async def tell(self, rank: int, found: Options) -> None:
        """Say what the others need to find the call of this rank."""
        async with self._changed:
            self._found[rank] = found
            self._changed.notify_all()

    async def give_up(self) -> None:
        """Say that a call has failed: nobody has to wait for it."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def ask(self, count: int) -> list[Options]:
        """What the first ``count`` calls have said, once they have; nothing if one has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._over or count <= len(self._found))
            return [] if self._over else [self._found[rank] for rank in range(count)]


@dataclass(frozen=True)
class Seat:
    """The place of a call among those of a training."""

    meeting: str
    rank: int
    count: int
    cores: int

    def tell(self, found: Options) -> None:
        """Say what the others need to find this call."""
        here = get_context()
        assert here is not None
        here.get_remote_object(self.meeting).tell(self.rank, found)

    def ask(self, count: int) -> list[Options]:
        """What the first ``count`` calls have said, once they have.

        Raises
        ------
        ConnectionError
            A call of the training has failed.
        """
        here = get_context()
        assert here is not None
        found: list[Options] = here.get_remote_object(self.meeting).ask(count)
        if not found:
            raise ConnectionError("the training on other nodes has ended before this part began")
        return found


def own_ip() -> str:
    """The address that other nodes have for the one of this call."""
    here = get_context()
    assert here is not None
    address = here.worker_address
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:  # the name of a group of workers, all of which are on this machine
        return "127.0.0.1"


__all__ = ["Seat", "Training", "own_ip", "parts_for", "train_on_nodes"]
