"""One large array, many readers."""

from __future__ import annotations

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect, load_numpy, seconds_for
from benchmarks.peer import Peer


def run(peer: Peer, params: Params) -> Metrics:
    """Every reader touches every page; putting or making the array is part of the time."""
    mib, readers = params["mib"], params["readers"]
    load_numpy(peer)
    results: list[float] = []
    if params["source"] == "driver":
        array = workload.filled(mib)
        seconds = seconds_for(lambda: results.extend(peer.share_put(array, readers)))
    else:
        seconds = seconds_for(lambda: results.extend(peer.share_task(mib, readers)))
    expect(results, [mib * 1024 * 1024 / 8 / workload.PAGE_ITEMS] * readers)
    return {"seconds": seconds}


CASE = Case(
    question="How long until many calls have read one large array?",
    metric="seconds",
    better="lower",
    run=run,
    full={
        "256 MiB of the driver, 40 readers": {"source": "driver", "mib": 256, "readers": 40},
        "256 MiB made by a call, 40 readers": {"source": "task", "mib": 256, "readers": 40},
    },
    quick={
        "32 MiB of the driver, 8 readers": {"source": "driver", "mib": 32, "readers": 8},
        "32 MiB made by a call, 8 readers": {"source": "task", "mib": 32, "readers": 8},
    },
    tiny={
        "2 MiB of the driver, 3 readers": {"source": "driver", "mib": 2, "readers": 3},
        "2 MiB made by a call, 3 readers": {"source": "task", "mib": 2, "readers": 3},
    },
    fresh="full",
    note=(
        "joblib maps large arguments by itself, mpire inherits them by fork, Ray and Dask have "
        "stores. The other peers pass a segment of shared memory that is made by hand. Without it "
        "they would pickle the array for every reader, which takes them half a minute."
    ),
)
