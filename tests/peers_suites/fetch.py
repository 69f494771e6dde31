"""Gets suites that are no tests of an installed package, into a folder for one run.

Called by `tests.peers_suites.__main__`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent

LOKY: Final = "loky==3.7.0"
"""The version whose tests are run. It stands in requirements.txt, too."""


def cpython(folder: Path) -> Sequence[str] | str:
    """The tests of `concurrent.futures` that are installed with this Python, if they are.

    A Python without them finds them in the folder ``CPYTHON_TESTS``: the file
    ``test_concurrent_futures.py`` of its version, such as from a package of a distribution.
    """
    elsewhere = os.environ.get("CPYTHON_TESTS")
    there = importlib.util.find_spec("test.test_concurrent_futures") is not None
    if not there and elsewhere is None:
        return "this Python has no test.test_concurrent_futures, and CPYTHON_TESTS names no folder"
    cases = folder / "test_cpython.py"
    cases.write_text((HERE / "cpython_cases.py").read_text())
    # Scripts of the suite say ``from concurrent.futures import MarsExecutor``, in isolated mode.
    lines = "import concurrent.futures, mars; concurrent.futures.MarsExecutor = mars.Executor\n"
    if not there and elsewhere is not None:
        shutil.copy(Path(elsewhere, "test_concurrent_futures.py"), folder)
        # In each process, also in workers, the module is a part of the package `test`.
        lines += f"import test; test.__path__.append({str(folder)!r})\n"
    Path(sysconfig.get_paths()["purelib"], "mars_in_scripts.pth").write_text(lines)
    return [str(cases)]


def loky(folder: Path) -> Sequence[str] | str:
    """The tests in the source distribution of loky."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-binary", "loky", "--dest", str(folder), LOKY],
        check=True,
    )  # fmt: skip
    (archive,) = folder.glob("loky-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (source,) = folder.glob("loky-*/tests")
    package = source.rename(folder / "loky_tests")
    cases = package / "test_mars.py"
    cases.write_text((HERE / "loky_cases.py").read_text())
    return [str(cases)]


def libraries(folder: Path) -> Sequence[str] | str:
    """Our own: a short program for each library that takes an executor."""
    cases = folder / "test_libraries.py"
    cases.write_text((HERE / "library_cases.py").read_text())
    return [str(cases)]
