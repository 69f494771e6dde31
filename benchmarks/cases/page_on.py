"""What it costs that a page shows a session, and a browser watches."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks import workload
from benchmarks.case import Case, Metrics, Params, expect
from benchmarks.peer import Peer

WATCHER: Final = """
import sys, threading, time, urllib.request
address, token, until = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
def ask(path):
    asked = urllib.request.Request(address + path, headers={"Authorization": "Bearer " + token})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60)
def stream():
    with ask("api/events") as answer:
        for line in answer:
            if line.startswith(b"event"):
                print("event", flush=True)
threading.Thread(target=stream, daemon=True).start()
while time.monotonic() < until:
    # As page.js does on the screen of calls: it waits 100 times as long as an answer took.
    began = time.monotonic()
    with ask("api/calls") as answer:
        answer.read()
    time.sleep(max(1.0, 100 * (time.monotonic() - began)))
"""


def _processor_s(work: Callable[[], object]) -> tuple[float, float]:
    gc.collect()
    begin, used = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - used, time.perf_counter() - begin


def run(peer: Peer, params: Params) -> Metrics:
    """Empty calls in a session with a page that is watched, and in one without, in turn.

    By processor time of the program, whose threads share one interpreter, so what the page takes is
    what calls do not get. The best of the rounds counts, since others on the machine only ever
    add to it.
    """
    import mars
    import mars.remote as mr

    count = params["tasks"]

    def work(session: Any) -> None:
        calls = mr.ExecutableTuple([mr.spawn(workload.nothing, item) for item in range(count)])
        expect(len(calls.execute(session=session).fetch(session=session)), count)

    with_s, without_s, wall_with, wall_without = [], [], [], []
    with (
        mars.new_session(n_cpu=1, default=False) as plain,
        mars.new_session(n_cpu=1, default=False, web=True) as shown,
    ):
        page = shown.page
        watcher = subprocess.Popen(
            [sys.executable, "-c", WATCHER, page.address, page.token, str(params["watch_s"])],
            stdout=subprocess.PIPE,
        )
        try:
            assert watcher.stdout is not None
            watcher.stdout.readline()  # it has been told something
            work(plain)
            work(shown)
            for _ in range(params["rounds"]):
                for session, used, wall in (
                    (shown, with_s, wall_with), (plain, without_s, wall_without),
                ):  # fmt: skip
                    processor_s, wall_s = _processor_s(lambda session=session: work(session))  # type: ignore[misc]
                    used.append(processor_s)
                    wall.append(wall_s)
        finally:
            watcher.kill()
            watcher.communicate()
    return {
        "share_of_program": max(0.0, min(with_s) / min(without_s) - 1),
        "share_of_wall": min(wall_with) / min(wall_without) - 1,
        "us_with": min(with_s) / count * 1e6,
        "us_without": min(without_s) / count * 1e6,
    }


CASE = Case(
    question="Which part of the time for an empty call does a page take that somebody watches?",
    metric="share_of_program",
    better="lower",
    run=run,
    full={"100 000 tasks": {"tasks": 100_000, "rounds": 7, "watch_s": 300}},
    quick={"20 000 tasks": {"tasks": 20_000, "rounds": 5, "watch_s": 100}},
    tiny={"50 tasks": {"tasks": 50, "rounds": 1, "watch_s": 60}},
    limit_s=300,
    started=False,
    fresh="always",
    only=("mars",),
    size="tasks",
    note=(
        "Processor time of the program for describing, running and fetching, with a page on which "
        "a client follows the events and reads the list of calls, and without a page."
    ),
)
