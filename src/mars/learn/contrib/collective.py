"""One XGBoost model over several nodes: a call on each node, joined by XGBoost's own collective.

::

    call on node 1: starts the tracker ──address──► Meeting, in the program ──► the other calls
    all calls:      a DMatrix of the node's own rows ◄──collective──► the other nodes

The program only describes the calls and begins anew if a node or a worker is lost: XGBoost cannot
go on without one of its members. `mars.learn.contrib.xgboost` calls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from mars.calls.objects import ExecutableTuple, Object
from mars.calls.spawn import spawn
from mars.code import places
from mars.errors import WorkerDied
from mars.learn.cores import nodes_of
from mars.learn.fitting import rows_between
from mars.sessions.opening import get_context
from mars.sessions.session import Session
from mars.tileables.tileable import Tileable

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix


class InChunks(Protocol):
    """A tensor or a frame whose chunks have known lengths."""

    @property
    def nsplits(self) -> tuple[tuple[float, ...], ...]: ...
    def __len__(self) -> int: ...


Options: TypeAlias = dict[str, object]
Data: TypeAlias = tuple[object, object, Options]
"""The rows, what is to be learned, and what else a DMatrix takes."""
Measured: TypeAlias = Sequence[tuple[Data, str]]
"""Data with a name, which each round is measured on."""
Trained: TypeAlias = "tuple[Booster, Options]"
"""A booster, and what was measured."""

BEGINNINGS: Final = 4
"""How often a training begins at most, as often as a call of which the worker dies."""

GRACE_S: Final = 20.0
"""How long the other members have to notice that one has failed, before they are cancelled."""

PER_ROW: Final = frozenset(
    ["base_margin", "label_lower_bound", "label_upper_bound", "weight"]
)  # fmt: skip
"""What a DMatrix takes that has a value for each row."""

WHOLE: Final = frozenset({"feature_weights", "group", "qid"})
"""What a DMatrix takes that cannot be cut by rows: such data stay on one node."""


def parts_for(session: Session, data: object, more: Mapping[str, object]) -> int:
    """On how many nodes a model of these data is trained: each has at least one chunk of them."""
    if not isinstance(data, Tileable) or any(more.get(name) is not None for name in WHOLE):
        return 1
    rows = cast("InChunks", data)
    count = len(nodes_of(session))
    if count < 2 or len(rows) < count:  # it is executed to be counted
        return 1
    return min(count, len(rows.nsplits[0]))


def train_on_nodes(
    session: Session, params: Options, given: Data, others: Measured, rounds: int, kwargs: Options
) -> Trained:  # fmt: skip
    """Train one model by a call on each node.

    Parameters
    ----------
    session : Session
        Whose nodes train.
    params : dict
        As of `xgboost.train`, without ``nthread``: each call has the cores of its node.
    given : tuple
        The rows, what is to be learned, and what else a DMatrix takes.
    others : sequence of tuple
        The same of further data, each with a name, which each round is measured on.
    rounds : int
        How many rounds to train.
    kwargs : dict
        As of `xgboost.train`.

    Returns
    -------
    tuple
        The booster, and what was measured.

    Raises
    ------
    WorkerDied
        A worker or node was lost in each of `BEGINNINGS` trainings.
    BaseException
        XGBoost has refused the data or the settings.
    """
    for number in itertools.count(1):
        count = parts_for(session, given[0], given[2])
        nodes = sorted(nodes_of(session), key=lambda node: -node[1])[:count]
        try:
            return _trained_once(session, nodes, params, given, others, rounds, kwargs)
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
    session: Session, nodes: list[tuple[str, float]], params: Options, given: Data,
    others: Measured, rounds: int, kwargs: Options,
) -> Trained:  # fmt: skip
    cuts = _cuts(given[0], len(nodes))
    name = f"xgboost-{uuid.uuid4().hex}"
    meeting = session.create_remote_object(name, Meeting)
    try:
        calls: list[Object[Trained | None]] = []
        for rank, (address, cores) in enumerate(nodes):
            own = _rows(given, cuts[rank], cuts[rank + 1])
            measured = [(_share(one, rank, len(nodes)), called) for one, called in others]
            with places.whole_values():
                calls.append(
                    spawn(
                        _train_part,
                        (name, rank, len(nodes), {**params, "nthread": int(cores)}, own, measured,
                         rounds, kwargs),
                        name=f"xgboost.train, part {rank + 1} of {len(nodes)}",
                        expect_worker=address, cpus=int(cores), idempotent=False, cache=False,
                    )
                )  # fmt: skip
        run = ExecutableTuple(calls).execute(
            session=session, wait=False, show_progress=False, on_error="continue"
        )
        for one in run.completed():
            if one.errors(session) != [None]:  # whoever waits for the first call must not for ever
                meeting.tell(None)
                break
        try:
            run.result(GRACE_S)
        except TimeoutError:
            run.cancel()
        errors = [one for one in ExecutableTuple(calls).errors(session) if one is not None]
        for error in errors:
            if isinstance(error, WorkerDied):
                raise _Lost(error)
        if errors:
            raise errors[0]
        trained = calls[0].fetch(session)
        assert trained is not None
        return trained
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
    """Where the calls of a training learn where its tracker is. It lives in the program."""

    def __init__(self) -> None:
        self._found: Options | None = None
        self._told = asyncio.Event()

    async def tell(self, found: Options | None) -> None:
        """Say what the others connect to; None: there will be no tracker."""
        self._found = self._found or found
        self._told.set()

    async def ask(self) -> Options | None:
        """What to connect to, once it is known."""
        await self._told.wait()
        return self._found


def _train_part(
    name: str, rank: int, count: int, params: Options, own: Data, others: Measured, rounds: int,
    kwargs: Options,
) -> Trained | None:  # fmt: skip
    """Train as one of several members. The first one has the tracker, and returns the model."""
    from xgboost import collective

    here = get_context()
    assert here is not None
    meeting = here.get_remote_object(name)
    with contextlib.ExitStack() as stack:
        if rank == 0:
            meeting.tell(stack.enter_context(_tracker(count, _own_ip(here.worker_address))))
        found = meeting.ask()
        if found is None:
            raise ConnectionError("the training on other nodes has ended before this part began")
        with collective.CommunicatorContext(**found, dmlc_task_id=f"{rank:06}"):
            booster, measured = train_here(params, own, others, rounds, kwargs, rank == 0)
    return (booster, measured) if rank == 0 else None


@contextlib.contextmanager
def _tracker(count: int, ip: str) -> Iterator[Options]:
    """XGBoost's tracker in this process; gives what members need to find it."""
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(count, host_ip=ip, sortby="task")
    tracker.start()
    try:
        yield dict(tracker.worker_args())
        tracker.wait_for(timeout=int(GRACE_S))  # until the other members have left, too
    finally:
        with contextlib.suppress(XGBoostError):  # it says that members are missing, not why
            tracker.free()


def train_here(
    params: Options, given: Data, others: Measured, rounds: int, kwargs: Options, tells: bool = True
) -> Trained:
    """Train in this process; ``tells`` says whether it prints what was measured."""
    import xgboost

    def matrix(data: object, label: object, more: Options) -> DMatrix:
        return xgboost.DMatrix(data, label, **more)

    measured: dict[str, object] = {}
    booster = xgboost.train(
        params, matrix(*given), rounds, evals=[(matrix(*one), name) for one, name in others],
        evals_result=measured, verbose_eval=bool(others) and tells, **kwargs,
    )  # fmt: skip
    return booster, measured


def _own_ip(address: str) -> str:
    """The address that other nodes have for this one."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:  # the name of a group of workers, all of which are on this machine
        return "127.0.0.1"


__all__ = ["parts_for", "train_here", "train_on_nodes"]
