"""Which files of the tests of Dask and xarray are run, as they are installed.

Called by `tests.peers_suites.__main__`, which has an entry for each name in `FILES`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FILES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "dask-array": (
        "dask",
        tuple(
            f"array/tests/test_{name}.py"
            for name in (
                "array_core", "creation", "linalg", "map_blocks", "overlap", "random", "rechunk",
                "reductions", "routines", "slicing", "stats", "ufunc",
            )
        ),
    ),
    "dask-frame": (
        "dask",
        (
            "dataframe/dask_expr/tests/test_core.py",
            "dataframe/dask_expr/tests/test_groupby.py",
            "dataframe/dask_expr/tests/test_merge.py",
            "dataframe/dask_expr/tests/test_shuffle.py",
            "dataframe/tests/test_multi.py",
        ),
    ),
    "dask-bag": ("dask", ("bag/tests/test_bag.py",)),
    "dask-delayed": ("dask", ("tests/test_delayed.py",)),
    "xarray": ("xarray", ("tests/test_dask.py",)),
}  # fmt: skip
"""For each suite its package, and the files of its tests."""


def arguments(name: str) -> Sequence[str] | str:
    """What pytest gets for a suite, or why it cannot be run."""
    package, files = FILES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return f"{package} is not installed"
    folder = Path(found.origin).parent
    # The suites have a conftest in the folder of the package. It is read only below these folders.
    above = [f"--rootdir={folder.parent}", f"--confcutdir={folder.parent}"]
    return [*above, "-W", "ignore", *(str(folder / file) for file in files)]
