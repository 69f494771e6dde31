"""Runs suites of others against mars: ``python -m tests.peers_suites [NAME …]``; no name: all.

Each suite is an entry of `SUITES`: tests of an installed package, or tests that `fetch` gets.
pytest runs them in a process of its own, with a plugin. Nothing of them is kept here. The tests
that are left out stand in a file beside the plugin, ``<plugin>.left_out``, with the reason for each
group; docs/peers-suites.md shows these lists. A suite passes if all other tests pass.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.peers_suites import dask_suites, fetch

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of one package.

    Parameters
    ----------
    tests : tuple of str
        Modules and packages, as ``pytest --pyargs`` takes them.
    plugin : str
        The module in this folder that is the plugin.
    at_start : str, default ""
        Code that each Python process of the suite runs first, also those that tests start.
    environment : mapping, default empty
        Further variables.
    prepare : callable, optional
        Gets a folder that is there for the run, and returns further arguments for pytest, or a
        text: why the suite cannot be run with this Python.
    """

    tests: tuple[str, ...]
    plugin: str
    at_start: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], Sequence[str] | str] = lambda _: ()


SUITES: Final[dict[str, Suite]] = {
    "cpython": Suite((), "cpython_plugin", prepare=fetch.cpython),
    "loky": Suite((), "loky_plugin", prepare=fetch.loky),
    "libraries": Suite((), "libraries_plugin", prepare=fetch.libraries),
    # Scripts that tests start know the name "mars" only if somebody imports mars.joblib there.
    "joblib": Suite(("joblib.test.test_parallel",), "joblib_plugin", "import mars.joblib"),
    # OpenMP's threads wait by spinning, which takes minutes where cores are shared.
    "sklearn": Suite(
        (
            "sklearn.utils.tests.test_parallel", "sklearn.compose.tests",
            "sklearn.model_selection.tests", "sklearn.ensemble.tests",
        ),
        "sklearn_plugin",
        environment={"OMP_NUM_THREADS": "1"},
    ),
    **{
        name: Suite((), "dask_plugin", prepare=lambda _, name=name: dask_suites.arguments(name))
        for name in dask_suites.FILES
    },
}  # fmt: skip


def left_out(plugin: str) -> list[str]:
    """Which tests a suite does without: ends of their ids."""
    text = (HERE / f"{plugin}.left_out").read_text(encoding="utf-8")
    lines = (line.partition(" # ")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def run(suite: Suite, further: list[str]) -> int:
    """Run one suite; the exit status of pytest."""
    with tempfile.TemporaryDirectory(prefix="mars-suite-") as folder:
        path = [folder, str(ROOT)]
        prepared = suite.prepare(Path(folder))
        if isinstance(prepared, str):
            print(f"not run: {prepared}")
            return 0
        if suite.at_start:
            Path(folder, "sitecustomize.py").write_text(suite.at_start + "\n", encoding="utf-8")
        environment = os.environ | suite.environment | {"PYTHONPATH": os.pathsep.join(path)}
        command = [
            sys.executable, "-m", "pytest", "-p", f"tests.peers_suites.{suite.plugin}",
            "-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", "--assert=plain",
            "-q", "-rfE", *(("--pyargs", *suite.tests) if suite.tests else prepared), *further,
        ]  # fmt: skip
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def main() -> None:
    """Run what was asked for, one after the other, and say which suites passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers_suites", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SUITES)}; default: all")
    names, further = parser.parse_known_args()
    chosen = names.names or list(SUITES)
    if unknown := [name for name in chosen if name not in SUITES]:
        sys.exit(f"unknown suite: {', '.join(unknown)}; known: {', '.join(SUITES)}")
    results = {name: run(SUITES[name], further) for name in chosen}
    for name, status in results.items():
        print(f"suite {name}: {'passed' if status == 0 else 'FAILED'}")
    sys.exit(any(results.values()))


if __name__ == "__main__":
    main()
