"""What is built for users is whole, and says the same version everywhere."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import mars

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation: the build backend is here, and no index is asked.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"mars_remote-{mars.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        info = f"mars_remote-{mars.__version__}.dist-info"
        metadata = email.message_from_bytes(files.read(f"{info}/METADATA"))
        commands = files.read(f"{info}/entry_points.txt").decode()
    assert {name.partition("/")[0] for name in names} == {"mars", info}
    assert {"mars/py.typed", "mars/__init__.py", "mars/remote.py", f"{info}/licenses/LICENSE"} <= (
        set(names)
    )
    source = {
        f"mars/{path.relative_to(ROOT / 'src/mars')}" for path in (ROOT / "src/mars").rglob("*.py")
    }
    assert source <= set(names)
    assert metadata["Version"] == mars.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert sorted(needed) == sorted(project["dependencies"])
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert all(f"{name} = {target}" in commands for name, target in project["scripts"].items())


def test_the_sdist_holds_what_is_needed_to_build_and_test(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    assert sdist.name == f"mars_remote-{mars.__version__}.tar.gz"
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    for wanted in (
        "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "src/mars/py.typed",
        "tests/test_release.py", "docs/guide.md", "examples/monte_carlo_pi.py",
    ):  # fmt: skip
        assert wanted in names, wanted
    assert not [name for name in names if name.startswith((".venv", "build/", ".git/"))]


def test_an_index_would_take_both_files(built: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("PASSED") == 2


def test_the_version_stands_in_one_place() -> None:
    heading = re.search(r"^## (\S+) \(([^)]+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heading is not None
    assert heading[1] == mars.__version__
    written = (
        path
        for path in (*(ROOT / "src").rglob("*.py"), ROOT / "pyproject.toml", ROOT / "docs/conf.py")
        if re.search(
            rf"^(?:__)?version(?:__)? *= *[\"\']{re.escape(mars.__version__)}",
            path.read_text(),
            re.M,
        )
    )
    assert [path.name for path in written] == ["_version.py"]
