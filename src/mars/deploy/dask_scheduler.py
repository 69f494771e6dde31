"""Dask's scheduler of a cluster that mars starts, a program: who may be a worker of it.

``python -m mars.deploy.dask_scheduler`` takes what Dask's own command takes. Dask accepts any
certificate of the authority for any role. But a worker of Dask gets the calls of all programs, and
people who only run programs have certificates, too. So a worker must show a certificate that is for
servers, by whatever command it was started. Clusters that others have started get this rule with
the first session (`guard`), from `mars.engines.cluster.dask_parts`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.deploy import certificates

if TYPE_CHECKING:
    from distributed import Scheduler
    from distributed.comm import Comm

_GUARDED: Final = ("register-worker", "register_nanny")

WITH_PARENT: Final = "MARS_HEAD_ENDS_WITH_PARENT"
"""Variable of a scheduler that is to end when the process ends that started it."""

Handler = Callable[..., Awaitable[object]]


def peer_may_serve(comm: Comm) -> bool:
    """Whether who is at the other end of a connection of Dask may be a node.

    It has to show so by its certificate. Without TLS nobody shows one, and anybody may.
    """
    if not comm.peer_address.startswith("tls://"):
        return True
    try:
        shown = comm.stream.socket.getpeercert(binary_form=True)
    except (AttributeError, OSError, ValueError):  # it has gone already
        return False
    return bool(shown) and certificates.may_serve(shown)


def guard(scheduler: Scheduler) -> None:
    """Have a scheduler take for workers only who may serve; idempotent."""
    for name in _GUARDED:
        handler = scheduler.handlers[name]
        if not getattr(handler, "guarded", False):
            scheduler.handlers[name] = guarded(handler)


def guarded(handler: Handler) -> Handler:
    """Return what handles a message as ``handler`` does, of peers that may serve."""

    async def handle(comm: Comm, **facts: object) -> object:
        if peer_may_serve(comm):
            return await handler(comm, **facts)
        await comm.write({"status": "error", "message": REFUSAL, "time": time.time()})
        await comm.close()
        return None

    handle.guarded = True  # type: ignore[attr-defined]
    return handle


REFUSAL: Final = (
    "this certificate is for clients: no host can join with it; use a bundle that was exported "
    "without --client-only"
)


def main() -> None:
    """Have each scheduler of this process guarded from its beginning; be Dask's own command."""
    if os.environ.get(WITH_PARENT):
        platform.die_with_parent(signal.SIGTERM)
    scheduler: Scheduler = import_module("distributed.scheduler").Scheduler
    begin = scheduler.__init__

    def begin_guarded(self: object, *arguments: object, **options: object) -> None:
        begin(self, *arguments, **options)
        guard(self)

    scheduler.__init__ = begin_guarded
    import_module("distributed.cli.dask_scheduler").main()


if __name__ == "__main__":
    main()
