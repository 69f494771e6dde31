"""A session that was replaced, and that nobody can get at, is closed; no other one is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CELLS = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_cell("import mars, mars.remote as mr; from mars.sessions.session import opened")

def cell(text):
    assert shell.run_cell(text, store_history=True).success

def engines():
    return len(shell.user_ns["opened"].engines)
"""


def test_a_cell_that_is_run_again_replaces_its_session(run_python: Callable[..., Any]) -> None:
    told = run_python(
        CELLS
        + """
for _ in range(3):
    cell("mars.new_session(n_cpu=1)")  # the notebook keeps what a cell shows
    print(engines())
for _ in range(3):
    cell("s = mars.new_session(n_cpu=1); x = mr.spawn(print, 'x').execute(); x.fetch_log()")
    print(engines())
cell("mars.stop_server()")
"""
    )
    numbers = [line for line in told.stdout.splitlines() if line.isdigit()]
    assert numbers == ["1"] * 6


def test_sessions_that_variables_hold_stay(
    run_python: Callable[..., Any],
) -> None:
    told = run_python(
        CELLS
        + """
cell("a = mars.new_session(n_cpu=1, engine='inline')")
cell("b = mars.new_session(n_cpu=1, engine='inline')")
print(engines())
cell("holder = [a]; del a")
print(engines())
cell("holder.clear()")
print(engines())
cell("mars.new_session(n_cpu=1, engine='inline')")
print(engines())
cell("mars.stop_server(); b.stop_server()")
print(engines())
"""
    )
    numbers = [line for line in told.stdout.splitlines() if line.isdigit()]
    assert numbers == ["2", "2", "1", "2", "0"]


def test_a_session_whose_calls_run_is_not_closed(
    run_python: Callable[..., Any], tmp_path: Path
) -> None:
    told = run_python(
        CELLS
        + """
import os
gate = "GATE"
os.mkfifo(gate)
shell.user_ns["gate"] = gate
cell("mars.new_session(n_cpu=1); run = mr.spawn(lambda: open(gate).read()).execute(wait=False)")
cell("mars.new_session(n_cpu=1);")
print(engines())
open(gate, "w").close()
cell("run.result()")
cell("1")
print(engines())
cell("mars.stop_server()")
""".replace("GATE", str(tmp_path / "gate"))
    )
    numbers = [line for line in told.stdout.splitlines() if line.isdigit()]
    assert numbers == ["2", "1"]


@pytest.mark.parametrize(
    ("program", "left"),
    [
        ("for _ in range(3):\n    mars.new_session(engine='inline')", 1),
        ("for _ in range(3):\n    s = mars.new_session(engine='inline')", 2),  # one is overwritten
        ("held = []\nfor _ in range(3):\n    held.append(mars.new_session(engine='inline'))", 3),
        ("for _ in range(3):\n    mars.new_session(engine='inline', default=False)", 3),
        ("mars.new_session(engine='inline')\nmars.new_session(engine='inline')", 2),
        ("def make():\n    mars.new_session(engine='inline')\nmake()\nmake()", 2),
    ],
    ids=["loop", "variable", "list", "not default", "two places", "function"],
)
def test_in_a_program_only_the_same_place_replaces(
    program: str, left: int, run_python: Callable[..., Any]
) -> None:
    before = "import mars\nfrom mars.sessions.session import opened\n"
    told = run_python(f"{before}{program}\nprint(len(opened.engines))")
    assert told.stdout == f"{left}\n"
