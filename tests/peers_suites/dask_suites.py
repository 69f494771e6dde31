"""Run the tests of Dask and xarray, as they are installed, with mars as the scheduler.

``python -m tests.peers_suites.dask_suites [name ...]`` runs all suites, or the ones that are named,
each in a process of its own. What is left out stands here with its reason, and in
docs/howto/dask.md. The exit status is that of the first suite that failed. Needs what the suites
need: pytest, and the packages of the extra ``dask-collections``; for the last one xarray.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]

SUITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "array": (
        "dask",
        tuple(
            f"array/tests/test_{name}.py"
            for name in (
                "array_core", "creation", "linalg", "map_blocks", "overlap", "random", "rechunk",
                "reductions", "routines", "slicing", "stats", "ufunc",
            )
        ),
    ),
    "frame": (
        "dask",
        (
            "dataframe/dask_expr/tests/test_core.py",
            "dataframe/dask_expr/tests/test_groupby.py",
            "dataframe/dask_expr/tests/test_merge.py",
            "dataframe/dask_expr/tests/test_shuffle.py",
            "dataframe/tests/test_multi.py",
        ),
    ),
    "bag": ("dask", ("bag/tests/test_bag.py",)),
    "delayed": ("dask", ("tests/test_delayed.py",)),
    "xarray": ("xarray", ("tests/test_dask.py",)),
}  # fmt: skip
"""For each suite its package, and the files of its tests."""

LEFT_OUT: dict[str, str] = {
    # A task warns in its worker; the test waits for the warning in its own process.
    "test_array_cumreduction_axis": "warning in a worker",
    "test_nanquantile_all_nan": "warning in a worker",
    "test_take_npartitions_warn": "warning in a worker",
    "test_average_raises": "warning in a worker",
    # The test counts calls of a function, or compares objects by identity, in its own process.
    "test_traverse_false": "identity of an object of the program",
    "test_repartition_partition_size_complex_dtypes": "identity of an object of the program",
    "test_bag_with_single_callable": "identity of an object of the program",
    "test_to_delayed_optimize_graph": "counts in the program",
    "test_reductions_are_lazy": "counts in the program",
    "test_concat_loads_variables": "counts in the program",
    "test_dataarray_pickle": "counts in the program",
    "test_dataset_pickle": "counts in the program",
    "(TestVariable and test_pickle)": "counts in the program",
    "test_from_array_getitem": "sets a variable of the program",
    "test_from_array_with_lock": "looks at a lock of the program",
    "test_store_locks_no_lock": "looks for two threads of the program at once",
    "test_store_locks_count_calls": "counts in the program",
    "test_store_sources_unoptimized_nocompute": "counts in the program",
    # What no process can be given.
    "test_store_delayed_target": "the target is made by a task and looked for in the program",
    "test_h5py_newaxis": "the file is open for writing",
    "test_frompyfunc": "the ufunc does not pickle",
    # What has nothing to do with the scheduler.
    "test_binary_operator_delegation": "needs the package pytest-mock",
    "cftime": "needs the package cftime",
}
"""Tests that cannot pass with any scheduler of processes, and why; as terms of pytest's ``-k``."""


def run(name: str) -> int:
    """Run one suite; the exit status of pytest."""
    package, files = SUITES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        print(f"{name}: {package} is not installed")
        return 0
    folder = Path(found.origin).parent
    command = [
        sys.executable, "-m", "pytest", "-c", os.devnull, f"--rootdir={folder.parent}", "-q",
        "-p", "tests.peers_suites.dask_by_mars", "-p", "no:cacheprovider", "-W", "ignore",
        "-k", "not " + " and not ".join(LEFT_OUT), *[str(folder / file) for file in files],
    ]  # fmt: skip
    print(f"=== {name}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    chosen = sys.argv[1:] or list(SUITES)
    return next((status for status in map(run, chosen) if status), 0)


if __name__ == "__main__":
    sys.exit(main())
