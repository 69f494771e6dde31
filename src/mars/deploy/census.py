"""Which nodes a cluster has, asked of its engine in a process of its own.

Engines leave threads behind, and Ray reads its variables when it is imported: nothing of that
happens in the caller. ``python -m mars.deploy.census DIRECTORY LIMIT_S [NODE]`` prints the nodes,
when a node of that name is among them. Called by `mars.deploy.clusters`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mars.deploy import credentials, dask_programs, ray_programs, records
from mars.deploy.programs import Node
from mars.errors import ClusterUnreachable
from mars.settings import CENSUS_AGAIN_S, ENGINE_IMPORT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def take(
    directory: Path,
    environment: Mapping[str, str],
    limit_s: float,
    awaited: str = "",
    while_: Callable[[], bool] = lambda: True,
) -> list[Node]:
    """Return the nodes of a cluster.

    Parameters
    ----------
    directory : Path
        Of its record.
    environment : mapping
        Variables for the engine.
    limit_s : float
        How long it may take, seconds.
    awaited : str, optional
        Wait until a node of this name is there.
    while_ : callable, optional
        Waiting ends when it returns False.

    Raises
    ------
    ClusterUnreachable
        The engine does not answer, or the node does not appear.
    """
    command = [sys.executable, "-P", "-m", "mars.deploy.census", str(directory), str(limit_s)]
    with subprocess.Popen(
        [*command, awaited],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as asking:
        deadline = time.monotonic() + limit_s + ENGINE_IMPORT_S
        printed = complaint = None
        while printed is None:
            try:
                printed, complaint = asking.communicate(timeout=CENSUS_AGAIN_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline or not while_():
                    asking.kill()
        if asking.returncode == 0:
            return [Node(**facts) for facts in json.loads(printed.splitlines()[-1])]
    last = (complaint or "").strip().splitlines()[-1:] or ["it was ended"]
    raise ClusterUnreachable(f"the cluster does not tell its nodes: {last[0]}")


def main(directory: str, limit: str, awaited: str = "") -> None:
    """Ask, and print the answer."""
    record = records.load(Path(directory))
    files = credentials.load(record.credentials) if record.secure else None
    deadline = time.monotonic() + float(limit)
    while True:
        left_s = max(1.0, deadline - time.monotonic())
        if record.engine == "ray":
            found = ray_programs.nodes(record, left_s)
        else:
            found = dask_programs.nodes(record, files, left_s)
        if not awaited or any(node.name == awaited for node in found):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"node {awaited} does not appear among {len(found)} nodes")
        time.sleep(CENSUS_AGAIN_S)
    print(json.dumps([asdict(node) for node in found]))


if __name__ == "__main__":
    main(*sys.argv[1:])
