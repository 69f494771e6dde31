"""A program that holds on to things to its very end ends without a word on stderr."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = """
import builtins, sys, threading, weakref
import mars, mars.remote as mr
import numpy as np

class Model:
    def run(self):
        return 1

def work(value, size=1):
    print("a line")
    return np.zeros(size)

def held():
    table = np.ones(300_000)
    return lambda: float(table.sum())

if __name__ == "__main__":
    session = mars.new_session(n_cpu=1, engine={engine!r})
    large = mr.spawn(work, args=(Model(), 300_000)).execute()
    small = mr.spawn(work, args=(np.ones(300_000),)).execute()
    function = held()
    stored = mr.spawn(function).execute()
    failed = mr.spawn(int, args=("x",)).execute(wait=False)
    items = mr.map(work, [1, 2, 3]).execute()
    never = mr.spawn(work, args=(1,))
    kept = [
        large, large.fetch(), small, small.fetch(), function, stored, stored.fetch(),
        items, items.fetch(), never, Model, failed, small.fetch_log(),
    ]
    threading.Thread(target=work, args=(1,)).start()
    {keep}
    {close}
"""

KEEP = {
    "in a module that holds itself": "import __main__; Model.kept = kept; del kept",
    "in a circle": "Model.kept = [kept, Model]; Model.itself = Model; del kept",
    "among globals": "import __main__",
}


@pytest.mark.parametrize("where", KEEP)
@pytest.mark.parametrize("close", ["", "session.stop_server()"])
def test_nothing_fails_at_the_end_of_a_program(
    engine: str, run_python: RunPython, where: str, close: str
) -> None:
    done = run_python(PROGRAM.format(engine=engine, keep=KEEP[where], close=close))
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
