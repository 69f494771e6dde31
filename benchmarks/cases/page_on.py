"""What it costs that a page shows a session, and a browser watches."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect
from benchmarks.peer import Peer

PAGE: Final = ("mars-page", "asyncio_")
"""How the names of the page's threads begin."""

WATCHER: Final = """
import json, sys, time, urllib.request
address, token, screen = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def ask(path):
    asked = urllib.request.Request(address + path, headers={"Authorization": "Bearer " + token})
    return opener.open(asked, timeout=60)
# As page.js does: with an event it asks for what is new on its screen, but not before the last
# answer said so.
due = following = 0
with ask("api/events") as answer:
    for line in answer:
        if not line.startswith(b"data: "):
            continue
        print("event", flush=True)
        if time.monotonic() < due:
            continue
        with ask("api/" + screen + "?since=" + str(following)) as part:
            following = json.loads(part.read()).get("next", 0)
            due = time.monotonic() + max(1.0, float(part.headers["x-rest"]))
"""


def _used_s(names: tuple[str, ...]) -> float:
    """Processor seconds that threads with such names, and all threads, of this process have had."""
    used = 0.0
    known = {one.native_id: one.name for one in threading.enumerate()}
    for native, name in known.items():
        if name.startswith(names):
            try:
                told = Path(f"/proc/self/task/{native}/schedstat").read_text()
            except OSError:  # it has ended just now
                continue
            used += int(told.split()[0]) * 1e-9
    return used


def run(peer: Peer, params: Params) -> Metrics:
    """Empty calls in a session with a page that somebody watches.

    The threads of a program share one interpreter, so what the page's threads take is what calls do
    not get. The system counts it, whatever else the machine does. Where others keep the machine
    busy calls take longer, and the share of the program's own processor time is larger.
    """
    import mars
    import mars.remote as mr

    count = params["tasks"]
    page_s = all_s = wall_s = 0.0
    with mars.new_session(n_cpu=1, default=False, web=True) as session:
        page = session.page
        watcher = subprocess.Popen(
            [sys.executable, "-c", WATCHER, page.address, page.token, params["screen"]],
            stdout=subprocess.PIPE,
        )
        try:
            assert watcher.stdout is not None
            watcher.stdout.readline()  # it has been told something
            for _ in range(params["rounds"]):
                calls = mr.ExecutableTuple([mr.spawn(workload.nothing, n) for n in range(count)])
                gc.collect()
                begun = time.process_time(), _used_s(PAGE), time.perf_counter()
                calls.execute(session=session)
                page_s += _used_s(PAGE) - begun[1]
                all_s += time.process_time() - begun[0]
                wall_s += time.perf_counter() - begun[2]
                expect(len(calls.fetch(session=session)), count)
        finally:
            watcher.kill()
            watcher.communicate()
    return {
        "share_of_time": page_s / wall_s,
        "share_of_program": page_s / (all_s - page_s),
        "us_of_page": page_s / count / params["rounds"] * 1e6,
        "us_of_all": all_s / count / params["rounds"] * 1e6,
    }


CASE = Case(
    question="Which part of the time for an empty call does a page take that somebody watches?",
    metric="share_of_time",
    better="lower",
    run=run,
    full={
        "100 000 tasks": {"tasks": 100_000, "rounds": 7, "screen": "calls"},
        "100 000 tasks, the graph": {"tasks": 100_000, "rounds": 7, "screen": "graph"},
    },
    quick={"20 000 tasks": {"tasks": 20_000, "rounds": 5, "screen": "calls"}},
    tiny={"50 tasks": {"tasks": 50, "rounds": 1, "screen": "calls"}},
    limit_s=300,
    started=False,
    fresh="always",
    only=("mars",),
    size="tasks",
    note=(
        "Processor time of the page's threads, as a share of the time that the calls took: so long "
        "the interpreter was not theirs. A client follows the events, and asks for what is new on "
        "one screen as the page in a browser does."
    ),
)
