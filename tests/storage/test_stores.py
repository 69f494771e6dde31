"""Calls read and write at URLs of real servers, with their session's credentials, hidden."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.storage.conftest import Store

HERE = Path(__file__).parent
WHOLE = "id,target\n0,4\n1,5\n"
READ = {"mars": WHOLE, "fsspec": WHOLE, "pandas": 9}


def run(store: Store, engine: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    told = {**store._asdict(), "engine": engine}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "program.py")],
        input=json.dumps(told), cwd=folder, env=environment, text=True, capture_output=True,
        timeout=200, check=False, start_new_session=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert not [one for one in store.secrets if one in ended.stderr]
    return found


@pytest.mark.parametrize(
    "engine",
    ["local", "inline", pytest.param("dask", marks=[pytest.mark.clusters, pytest.mark.slow])],
)
def test_calls_have_the_credentials_of_their_session_and_nobody_else_sees_them(
    store: Store, engine: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    found = run(store, engine, tmp_path, script_environment)
    assert found["read"] == found["nested"] == found["thread"] == READ
    assert (found["wrote"], found["again"]) == (5, 30)
    assert found["failed"] == repr(WHOLE.encode())
    assert (found["leaks"], found["shown"]) == ([], [])
