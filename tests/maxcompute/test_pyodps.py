"""PyODPS' entry object in calls: the real client, a stand-in for the service's resource calls."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(find_spec("odps") is None, reason="needs pyodps")


@pytest.fixture(scope="module")
def endpoint(leak_guard: None) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, str(HERE / "stand_in.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
        server.wait(20)


@pytest.mark.parametrize("engine", ["local", "inline", pytest.param("dask", marks=pytest.mark.lab)])
def test_calls_read_and_write_resources_by_the_entry_object(
    endpoint: str, engine: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    told = {"endpoint": endpoint, "key": secrets.token_hex(20), "engine": engine}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "program.py")],
        input=json.dumps(told), cwd=tmp_path, env=script_environment, text=True,
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "there": ["sums.txt", "train.csv"], "log": "read 2 rows", "closure": 9, "kept": "9,9,9",
        "error": "NoSuchObject", "leaks": False,
    }  # fmt: skip
    assert told["key"] not in ended.stderr
