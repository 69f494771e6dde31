"""A cluster of Dask of one's own: scheduler and workers in one process on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from mars.attempt.setting import import_path
from mars.engines.cluster.carrier import Facts
from mars.engines.cluster.dask_parts import import_distributed
from mars.errors import StartupFailed
from mars.settings import DASK_IDLE, STOP_S


class OwnCluster:
    """A scheduler and workers of Dask in one process on this machine, for one session.

    Calls run in processes of ours anyway. Everything listens on the loopback address only, with
    certificates that exist in memory and for this cluster alone.

    Parameters
    ----------
    cpus : sequence of int
        Cores of each worker.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        distributed = import_distributed()
        try:
            self.security = distributed.Security.temporary()
        except ImportError as error:
            raise StartupFailed(
                "a Dask cluster of one's own needs the package cryptography, for its certificates; "
                "install it with: pip install 'mars-remote[dask]'"
            ) from error
        self._directory = tempfile.mkdtemp(prefix="mars-dask-")
        program = "from mars.engines.cluster.dask_own import main; main()"
        code = f"import sys; sys.path[:] = {import_path()!r}; {program}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, self._directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the driver's to act on
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            secrets = {name: getattr(self.security, name) for name in _SECRETS}
            facts = {"cpus": list(cpus), "security": secrets}
            # Not as arguments, which every user of the machine can read.
            self.process.stdin.write(json.dumps(facts) + "\n")
            self.process.stdin.flush()
            self.address = self.process.stdout.readline().strip()
            if not self.address.startswith("tls://"):
                said = self.address or "nothing"
                raise StartupFailed(f"the process for Dask did not start; it said: {said}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process; returns when it has ended."""
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()  # which it takes as the sign to end
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)


_SECRETS: Final = ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key", "tls_worker_cert",
                   "tls_worker_key", "tls_client_cert", "tls_client_key")  # fmt: skip


def main() -> None:
    """The process of `OwnCluster`: serve until stdin ends, with the driver at the latest."""
    directory = sys.argv[1]
    try:
        asyncio.run(_serve_own(json.loads(sys.stdin.readline()), directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # a driver that was killed does not


async def _serve_own(facts: Facts, directory: str) -> None:
    import dask
    import distributed

    # Dask has its scheduler and workers serve HTTP to anybody: it shall have nothing to serve.
    dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": [],
                     "temporary-directory": directory, **DASK_IDLE})  # fmt: skip
    security = distributed.Security(require_encryption=True, **facts["security"])
    where = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0",
             "protocol": "tls://", "security": security}  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(distributed.Scheduler(port=0, **where))
        for index, count in enumerate(facts["cpus"]):
            worker = distributed.Worker(
                scheduler.address, nthreads=count, local_directory=directory, name=index, **where
            )
            await stack.enter_async_context(worker)
        print(scheduler.address, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
