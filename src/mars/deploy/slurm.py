"""`mars.deploy.slurm.new_cluster`: a cluster in a job of Slurm, and a session on it.

The job is asked for from a login node. A process of its own keeps the cluster, so that nothing is
left when the program is killed: see `mars.deploy.slurm_keeper`. Inside an allocation use
``mars run`` instead.
"""

from __future__ import annotations

import atexit
import datetime
import math
import re
import time as clock
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mars.calls.options import parse_bytes
from mars.config import plain_scalar
from mars.deploy.slurm_queue import Request
from mars.deploy.slurm_start import Keeper
from mars.errors import StartupFailed, UsageError
from mars.sessions.opening import new_session
from mars.settings import NODES_START_S, SLURM_TICK_S

if TYPE_CHECKING:
    from types import TracebackType

    from mars.sessions.session import Session

__all__ = ["SlurmCluster", "new_cluster"]

_TIME: Final = re.compile(r"(\d+-)?\d+(:\d+){0,2}|infinite|unlimited", re.IGNORECASE)


class SlurmCluster:
    """A cluster in a job of Slurm; `new_cluster` makes it.

    It ends with `stop`, at the end of a ``with`` block, or when the program ends.

    Attributes
    ----------
    session : Session
        A session on it.
    job_id : str
        Number of the first job.
    endpoint : str
        Where programs of this user connect, for `mars.new_session` and ``mars doctor``.
    """

    def __init__(self, keeper: Keeper, session: Session) -> None:
        self.session = session
        self.job_id = keeper.job
        self.endpoint = keeper.address
        self._keeper = keeper

    @property
    def job_ids(self) -> tuple[str, ...]:
        """Numbers of all jobs that run: `rescale` asks for further ones."""
        return tuple(self._keeper.jobs)

    def rescale(self, nodes: int, timeout: float | None = None) -> None:
        """Have another number of hosts run calls; returns when the session has them.

        For more, Slurm is asked for a further job, with the same options as the first one. Each
        job has its own time limit. For fewer, those that came last are given back to Slurm. Calls
        that run there begin again elsewhere, as with any lost host. Hosts that were lost do not
        count, so the same number as before replaces them.

        If this is interrupted, by Ctrl-C, the further job is taken out of the queue if it still
        waits. If it has begun, its hosts join, and can be given back by another `rescale`.

        Parameters
        ----------
        nodes : int
            Number of hosts, in all jobs together.
        timeout : float, optional
            Seconds that the further job may wait in the queue. Default: no limit.

        Raises
        ------
        UsageError
            Slurm refuses the further job, or holds it until somebody does something. The cluster
            goes on with what it has.
        StartupFailed
            The job waits for longer than ``timeout``, or hosts did not join: the cluster goes on
            with those that did. Or the cluster has ended.
        TypeError, ValueError
            An argument is wrong.

        Examples
        --------
        ::

            with new_cluster(nodes=2, cpus=16) as cluster:
                mars.execute(small)
                cluster.rescale(20)
                mars.execute(large)
                cluster.rescale(2)
        """
        count = _count("nodes", nodes)
        self._keeper.rescale(count, _timeout(timeout))
        deadline = clock.monotonic() + NODES_START_S
        while len(self.session.get_worker_addresses()) != count:
            if clock.monotonic() > deadline:
                raise StartupFailed(
                    f"the cluster has {count} hosts, but the session has "
                    f"{len(self.session.get_worker_addresses())} after {NODES_START_S:g} s"
                )
            clock.sleep(SLURM_TICK_S / 5)

    def stop(self) -> None:
        """End the session, the nodes, the jobs and the head; returns when they have ended.

        May be called twice. Values that were fetched before stay.
        """
        try:
            self.session.stop_server()
        finally:
            self._keeper.close()
            atexit.unregister(self._keeper.close)

    def __enter__(self) -> SlurmCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        jobs = self.job_ids or (self.job_id,)
        return f"<SlurmCluster job {', '.join(jobs)} at {self.endpoint}>"


def new_cluster(
    nodes: int = 1,
    cpus: int = 1,
    memory: int | str | None = None,
    time: int | str | datetime.timedelta | None = None,
    partition: str | None = None,
    *,
    account: str | None = None,
    qos: str | None = None,
    options: Sequence[str] = (),
    min_nodes: int | None = None,
    timeout: float | None = None,
    host: str | None = None,
    show_progress: bool = True,
    **session_options: object,
) -> SlurmCluster:
    """Ask Slurm for hosts, start a cluster on them, and make a session there.

    Run it on a login node. It waits in Slurm's queue, and a line on stderr says what for. Dask's
    scheduler runs on the login node; the hosts of the job must reach it there.

    Parameters
    ----------
    nodes : int, default 1
        Number of hosts.
    cpus : int, default 1
        Cores on each host.
    memory : int or str, optional
        Memory on each host, in bytes or as ``"8GiB"``. Default: what the partition gives.
    time : int, str or timedelta, optional
        Time limit, as Slurm writes it: minutes, ``"HH:MM:SS"`` or ``"D-HH:MM:SS"``. Default: what
        the partition gives.
    partition, account, qos : str, optional
        As of ``sbatch``. Default: Slurm's.
    options : sequence of str, default ()
        Further options of ``salloc``, such as ``["--constraint=haswell"]``.
    min_nodes : int, optional
        Return as soon as so many hosts have joined. Default: all.
    timeout : float, optional
        Seconds that the job may wait in the queue. Default: no limit.
    host : str, optional
        Name or address of this host that the hosts of the job reach. Default: the address of the
        way to the first of them.
    show_progress : bool, default True
        Whether lines on stderr say what the job waits for, and what becomes of it.
    **session_options
        Of `mars.new_session`, such as ``checkpoint=`` or ``env=``.

    Returns
    -------
    SlurmCluster
        With ``session``, which is the default session, and ``stop()``.

    Raises
    ------
    UsageError
        Slurm refuses the job, or holds it until somebody does something: the message has Slurm's
        reason. Or there is no Slurm here, or the engine's packages are not installed.
    StartupFailed
        Slurm does not answer, the job waits for longer than ``timeout``, it ended early, or hosts
        did not join.
    TypeError, ValueError
        An argument is wrong. The message names it.

    Notes
    -----
    Nothing is left after an error, after `SlurmCluster.stop`, and after the end of the program. If
    the program is killed, the nodes leave and the job is cancelled within 30 seconds.

    60 seconds before the time limit, calls whose function handles SIGTERM get it. With
    ``checkpoint=`` the next program, or the same one started again, runs only what is missing.

    A host that is lost costs the calls that ran on it; the job goes on with the others.

    Examples
    --------
    ::

        from mars.deploy.slurm import new_cluster

        with new_cluster(nodes=4, cpus=16, memory="32GiB", time="2:00:00") as cluster:
            print(mr.spawn(sum, args=([1, 2, 3],)).execute().fetch())
    """
    request = Request(
        nodes=_count("nodes", nodes),
        cpus=_count("cpus", cpus),
        memory_bytes=0 if memory is None else parse_bytes(memory, "memory"),
        time=_time(time),
        partition=_word("partition", partition),
        account=_word("account", account),
        qos=_word("qos", qos),
        options=_options(options),
    )
    enough = request.nodes if min_nodes is None else _count("min_nodes", min_nodes)
    if enough > request.nodes:
        raise ValueError(f"min_nodes={enough} is more than nodes={request.nodes}")
    limit_s = _timeout(timeout)
    if "address" in session_options or "engine" in session_options:
        raise TypeError("new_cluster() chooses the address and the engine of its session")
    keeper = Keeper(
        request,
        min_nodes=enough,
        timeout_s=limit_s,
        host=_word("host", host),
        quiet=not show_progress,
    )
    from mars.engines.cluster.engine import Cluster  # the session loads it, too
    from mars.engines.driver.engine import DriverEngine

    # Before the session: handlers run in reverse, and the session ends first.
    atexit.register(keeper.close)
    try:
        session = new_session(keeper.address, **session_options)  # type: ignore[arg-type]
    except BaseException:
        atexit.unregister(keeper.close)
        keeper.close()
        raise
    if isinstance(session.engine, DriverEngine) and isinstance(session.engine.site, Cluster):
        session.engine.site.fate = lambda: keeper.over
    return SlurmCluster(keeper, session)


def _count(name: str, value: object) -> int:
    value = plain_scalar(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} has to be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} has to be 1 or more, got {value}")
    return value


def _timeout(value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"timeout has to be more than 0 seconds, or None, got {value!r}")
    return value


def _time(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.timedelta):
        if value <= datetime.timedelta(0):
            raise ValueError(f"time has to be more than nothing, got {value}")
        # Slurm counts in minutes.
        minutes = math.ceil(value / datetime.timedelta(minutes=1))
        return str(minutes)
    value = plain_scalar(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(_count("time", value))
    if not isinstance(value, str):
        raise TypeError(f"time has to be minutes, a str or a timedelta, got {value!r}")
    if not _TIME.fullmatch(value.strip()):
        raise ValueError(
            f"time={value!r} is none of Slurm's: write minutes, 'HH:MM:SS' or 'D-HH:MM:SS'"
        )
    return value.strip()


def _word(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{name} has to be a str, got {value!r}")
    if not value or value != value.strip():
        raise UsageError(f"{name}={value!r} is no name")
    return value


def _options(values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"options has to be a list of str, such as ['--exclusive'], got {values!r}")
    for value in values:
        if not isinstance(value, str) or not value.startswith("-"):
            raise ValueError(f"options has to hold options of salloc, got {value!r}")
    return tuple(values)
