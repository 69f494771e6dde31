"""What a page costs the program: off, on, and with a browser that watches, in turns.

``make bench-watched`` runs empty calls in sessions of each kind and prints the medians. The rate of
calls is what people get. Where others keep the machine busy it says little, and the processor time
of the program for a call says more: so it stands beside it, with the part of it that the threads of
the page took. A browser on the same machine takes cores from the workers, which a browser on
somebody's desk does not. So its own time is told apart, and is no part of the program's.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mars
import mars.remote as mr

SCREENS: Final = ("overview", "calls", "graph", "timeline")
"""What the browser looks at; each is a kind of its own."""

KINDS: Final = ("page off", "page on", *(f"browser: {one}" for one in SCREENS))

LIMIT_S: Final = 120.0
"""How long the browser may take to show a page."""

PAGE_THREADS: Final = ("mars-page", "asyncio_")
"""How the names of the page's threads begin."""


def nothing() -> None:
    """A call that does nothing."""


def page_s() -> float:
    """Processor seconds that the threads of the page have had, in this process."""
    used = 0.0
    for one in threading.enumerate():
        if one.name.startswith(PAGE_THREADS):
            with contextlib.suppress(OSError):  # it has ended just now
                told = Path(f"/proc/self/task/{one.native_id}/schedstat").read_text()
                used += int(told.split()[0]) * 1e-9
    return used


def family_s(root: int) -> float:
    """Processor seconds of a process and of all that it started and that are still there."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            used[pid] = int(fields[11]) + int(fields[12])
    total, todo = 0, [root]
    while todo:
        one = todo.pop()
        total += used.get(one, 0)
        todo += children.get(one, [])
    return total / 100


def browse() -> None:
    """The process beside the program: opens what it reads, and says when it is shown."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        page: Any = None
        for line in sys.stdin:
            if page is not None:
                page.close()
                page = None
            screen, _, address = line.strip().partition(" ")
            if address:
                page = browser.new_page()
                page.set_default_timeout(LIMIT_S * 1000)
                page.goto(address)
                page.get_by_text("● live").wait_for()
                page.goto(f"{address.partition('#')[0]}#/{screen}")
                page.get_by_role("heading", level=1).filter(has_text=screen.title()).wait_for()
            print("ready", flush=True)
        browser.close()


@contextlib.contextmanager
def _browser() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.watched", "--browse"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as found:  # fmt: skip
        yield found
        assert found.stdin is not None
        found.stdin.close()
        found.wait(LIMIT_S)


def _show(browser: subprocess.Popen[str], what: str) -> None:
    assert browser.stdin is not None and browser.stdout is not None
    browser.stdin.write(f"{what}\n")
    browser.stdin.flush()
    if browser.stdout.readline() != "ready\n":
        raise SystemExit("the browser does not show the page")


def measure(kind: str, tasks: int, browser: subprocess.Popen[str] | None) -> dict[str, float]:
    """One session of a kind: seconds for its calls, of the clock and of processors."""
    with mars.new_session(n_cpu=1, default=False, web=kind != "page off") as session:
        if browser is not None:
            _show(browser, f"{kind.partition(': ')[2]} {session.get_web_endpoint()}")
        mr.ExecutableTuple([mr.spawn(nothing) for _ in range(500)]).execute(session=session)
        calls = mr.ExecutableTuple([mr.spawn(nothing) for _ in range(tasks)])
        gc.collect()
        shown_s = family_s(browser.pid) if browser is not None else 0.0
        of_page, begun, from_s = page_s(), time.process_time(), time.perf_counter()
        calls.execute(session=session)
        wall_s = time.perf_counter() - from_s
        found = {
            "wall": wall_s,
            "program": time.process_time() - begun,
            "page": page_s() - of_page,
            "browser": family_s(browser.pid) - shown_s if browser is not None else 0.0,
        }
        if browser is not None:
            _show(browser, "")
    return found


def main() -> None:
    """Take turns, and print the medians of all kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma separated")
    parser.add_argument("--browse", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.browse:
        browse()
        return
    kinds = [one for one in KINDS if one in options.kinds.split(",")]
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        print("no chromium on this machine: nobody watches", file=sys.stderr)
        kinds = [one for one in kinds if not one.startswith("browser")]
    told: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with _browser() if any(one.startswith("browser") for one in kinds) else (
        contextlib.nullcontext()
    ) as browser:  # fmt: skip
        for turn in range(options.turns):
            for kind in kinds if turn % 2 == 0 else kinds[::-1]:
                shows = browser if kind.startswith("browser") else None
                told[kind].append(measure(kind, options.tasks, shows))
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{options.tasks:,} empty calls, one worker; medians of {options.turns} turns")
    print(f"{'':20} {'calls/s':>9} {'program':>10} {'of it page':>11} {'browser':>10}")
    for kind, rows in told.items():
        wall, program, watching = (
            statistics.median(row[what] for row in rows) for what in ("wall", "program", "browser")
        )
        part = statistics.median(row["page"] / row["program"] for row in rows)
        print(
            f"{kind:20} {options.tasks / wall:9,.0f} {program / options.tasks * 1e6:7.2f} us "
            f"{100 * part:9.1f} % {watching:8.1f} s"
        )


if __name__ == "__main__":
    main()
