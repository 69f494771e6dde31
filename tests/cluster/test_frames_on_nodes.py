"""Tensors and frames on the two nodes of a cluster, also when a worker or a node is lost."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mars
import mars.dataframe as md
import mars.tensor as mt
from tests.cluster.conftest import DaskHosts, node_process

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.timeout(240)

RANDOM = np.random.RandomState(0)
LEFT = pd.DataFrame({"key": RANDOM.randint(0, 40, 1200), "amount": RANDOM.rand(1200)})
RIGHT = pd.DataFrame({"key": np.arange(40), "city": RANDOM.choice(list("xyz"), 40)})
CHUNKS = 6
LAST = 30  # the key of the first row of the last chunk of RIGHT
WANTED = LEFT.merge(RIGHT, on="key")


@pytest.fixture
def two_nodes(dask_hosts: DaskHosts) -> Any:
    """A session on two nodes of one core."""
    dask_hosts.add_node()
    dask_hosts.add_node()
    session = dask_hosts.session(2)
    yield session
    session.stop_server()


def noted(chunk: Any, folder: Path) -> Any:
    """A chunk; a line tells its first row and the node that has made it."""
    if len(chunk) < len(LEFT) // CHUNKS:
        return chunk  # made-up rows, to find out what the result looks like
    with open(folder / "notes", "a") as file:
        file.write(f"{chunk.index[0]} {node_process()}\n")
    return chunk


def held_up(chunk: Any, folder: Path) -> Any:
    """A chunk; the last one waits in its first attempt, and tells in which process."""
    if chunk.key.iloc[0] == LAST and not (folder / "waits").exists():
        (folder / "told").write_text(f"{os.getpid()} {node_process()}")
        os.rename(folder / "told", folder / "waits")
        signal.pause()  # until it is killed
    return chunk


@pytest.fixture
def begun(
    two_nodes: mars.session.Session, tmp_path: Path, wait_until: Callable[..., None]
) -> tuple[Any, Any, Callable[[], list[str]]]:
    """A merge all of whose chunks are there but the last one of the right frame."""
    left = md.DataFrame(LEFT, chunk_size=len(LEFT) // CHUNKS).map_chunk(noted, (tmp_path,))
    right = md.DataFrame(RIGHT, chunk_size=10).map_chunk(held_up, (tmp_path,))
    merged = left.merge(right, on="key")
    run = merged.execute(wait=False, show_progress=False)

    def notes() -> list[str]:
        found = tmp_path / "notes"
        return found.read_text().splitlines() if found.exists() else []

    wait_until(lambda: (tmp_path / "waits").exists() and len(notes()) >= CHUNKS, 60)
    return merged, run, notes


def same_rows(got: Any) -> None:
    by = ["key", "amount"]
    pd.testing.assert_frame_equal(
        got.sort_values(by, ignore_index=True), WANTED.sort_values(by, ignore_index=True)
    )


def test_frames_and_tensors_on_two_nodes_give_what_pandas_gives(two_nodes: Any) -> None:
    left, right = md.DataFrame(LEFT, chunk_size=250), md.DataFrame(RIGHT, chunk_size=15)
    merged = left.merge(right, on="key")
    by_city = merged.groupby("city").amount.agg(["sum", "count"])
    tensor = mt.tensor(LEFT.to_numpy(), chunk_size=(250, 1))
    product = ((tensor + 1).T @ tensor).sum(axis=0)
    mars.execute(merged, by_city, product, show_progress=False)
    same_rows(merged.fetch())
    pd.testing.assert_frame_equal(
        by_city.fetch(), WANTED.groupby("city").amount.agg(["sum", "count"])
    )
    plain = LEFT.to_numpy()
    np.testing.assert_allclose(product.fetch(), ((plain + 1).T @ plain).sum(axis=0))


def test_a_worker_killed_in_a_merge_costs_its_own_chunk_only(begun: Any, tmp_path: Path) -> None:
    merged, run, notes = begun
    os.kill(int((tmp_path / "waits").read_text().split()[0]), signal.SIGKILL)
    run.result(120)
    same_rows(merged.fetch())
    made = Counter(line.split()[0] for line in notes())
    assert made == dict.fromkeys(map(str, range(0, len(LEFT), len(LEFT) // CHUNKS)), 1)


def test_a_node_killed_in_a_merge_costs_no_chunk_of_the_other_node(
    begun: Any, tmp_path: Path
) -> None:
    merged, run, notes = begun
    lost = (tmp_path / "waits").read_text().split()[1]
    before = [line.split() for line in notes()]
    psutil.Process(int(lost)).kill()
    run.result(120)
    same_rows(merged.fetch())
    kept = {row for row, node in before if node != lost}
    made = Counter(line.split()[0] for line in notes())
    assert len(kept) > 0 and len(made) == CHUNKS
    assert {row for row in kept if made[row] > 1} == set()
    by_city = merged.groupby("city").amount.sum()  # what is left of the cluster goes on
    pd.testing.assert_series_equal(
        by_city.execute(show_progress=False).fetch(), WANTED.groupby("city").amount.sum()
    )
