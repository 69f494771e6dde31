"""Which nodes a session has, and how many cores one call may own."""

from __future__ import annotations

from mars.sessions.session import Session


def nodes_of(session: Session) -> list[tuple[str, float]]:
    """Address and cores of each node; of one machine, of each group of workers.

    A call does not see the cores of the single nodes, and gets no list.
    """
    return [(one.address, one.cpus) for one in session.engine.observe().groups if one.cpus >= 1]


def cores_of_one(session: Session) -> int:
    """As many cores as one call may own: those of the largest node."""
    known = [cores for _, cores in nodes_of(session)]
    if known:
        return int(max(known))
    return max(1, int(session.get_total_n_cpu()) // max(1, len(session.get_worker_addresses())))


__all__ = ["cores_of_one", "nodes_of"]
