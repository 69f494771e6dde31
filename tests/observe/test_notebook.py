"""What a notebook shows, run in a kernel as users have it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("ipykernel", "nbclient") if find_spec(name) is None]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}"),
]

CELLS = """
import os, time, warnings
import mars
from mars.sessions.session import opened
def fit(number):
    print("fitting", number)
    if number == 2:
        warnings.warn("odd")
    if number == 3:
        raise ValueError("three")
    while not os.path.exists(f"gate{number}"):
        time.sleep(0.01)
    return number
# --
mars.run(abs, -1)
# --
session = mars.new_session(n_cpu=2)
# --
session = mars.new_session(n_cpu=2)
# --
len(opened.engines)
# --
import threading
def open_gates():
    time.sleep(1.2)  # so that the run lasts long enough to be shown
    for number in range(4):
        open(f"gate{number}", "w").close()
threading.Thread(target=open_gates).start()
fits = mars.map(fit, range(4)).execute(on_error="continue")
# --
mars.map(fit, range(2)).execute(echo=True);
# --
mars.stop_server()
"""

DRIVER = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.v4.new_notebook()
notebook.cells = [
    nbformat.v4.new_code_cell(text) for text in open("cells").read().split("# --\\n")
]
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def text_of(outputs: list[dict[str, Any]], stream: str) -> str:
    return "".join(one["text"] for one in outputs if one.get("name") == stream)


def test_a_notebook_shows_plain_lines_progress_that_names_and_no_red(
    tmp_path: Path, run_python: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").write_text(CELLS.lstrip())
    told = run_python(DRIVER, limit_s=120)
    assert told.returncode == 0, told.stderr
    cells = json.loads(told.stdout.splitlines()[-1])

    # The first call without a session: one plain line.
    assert text_of(cells[1], "stdout").startswith("mars: No session found, local session will be")
    assert text_of(cells[1], "stderr") == ""

    # A cell that is run again replaces its session, and the one that was made before by itself.
    assert cells[4][0]["data"]["text/plain"] == "1"

    # Progress: what failed, how many of what; a line about stderr at the end.
    (shown,) = [one["data"]["text/html"] for one in cells[5] if "text/html" in one.get("data", {})]
    assert "3/4 done" in shown
    assert "failed: fit 3" in shown
    assert "calls: fit 3/4, 1 failed" in shown
    assert "nowrap" not in shown
    assert text_of(cells[5], "stdout") == (
        "mars: 1 of 4 calls wrote to stderr: fit 2; '.log' shows it\n"
    )

    # What calls print is below the cell, by name and in colour.
    lines = text_of(cells[6], "stdout").splitlines()
    assert sorted(line.partition("| ")[2] for line in lines) == ["fitting 0", "fitting 1"]
    assert all(line.startswith("\x1b[") for line in lines)
    assert text_of(cells[6], "stderr") == ""
