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
    [
        "local",
        pytest.param("inline", marks=pytest.mark.campaign),
        pytest.param("dask", marks=[pytest.mark.clusters, pytest.mark.slow]),
    ],
)
def test_calls_have_the_credentials_of_their_session_and_nobody_else_sees_them(
    store: Store, engine: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    found = run(store, engine, tmp_path, script_environment)
    assert found["read"] == found["nested"] == found["thread"] == READ
    assert (found["wrote"], found["again"]) == (5, 30)
    assert found["failed"] == repr(WHOLE.encode())
    assert (found["leaks"], found["shown"]) == ([], [])


@pytest.mark.campaign  # it trains 36 models, twice
def test_the_model_search_reads_its_data_at_a_url(
    store: Store, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    rows = [[n, *[n % (k + 2) for k in range(93)], f"Class_{n % 9 + 1}"] for n in range(600)]
    table = "\n".join([",".join(map(str, row)) for row in [["id", *range(93), "target"], *rows]])
    url = f"{store.base}/otto.csv"
    code = (
        "import json, sys, mars.remote as mr; told = json.load(sys.stdin); "
        "file = mr.open(told['url'], 'w', **told['options']); "
        "file.write(told['data']); file.close()"
    )
    told = json.dumps({"url": url, "options": store.options, "data": table})
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, input=told, text=True, check=True, env=script_environment)
    (tmp_path / "keys.json").write_text(json.dumps(store.options))
    ended = subprocess.run(
        [sys.executable, str(HERE.parents[1] / "examples" / "model_search.py"), "--csv", url,
         "--storage", "keys.json", "--trees-scale", "0.02"],
        cwd=tmp_path, env=script_environment, text=True, capture_output=True, timeout=230,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "best model:" in ended.stdout
