"""The example programs on clusters: nothing changes but how the session is made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("engine", ["dask", "ray"])
@pytest.mark.parametrize(
    ("program", "arguments", "told"),
    [
        (
            "monte_carlo_pi.py",
            ["--points", "200_000", "--chunks", "4"],
            "What the call for chunk 3",
        ),
        ("model_search.py", ["--rows", "500", "--skip-serial"], "spawned "),
    ],
)
def test_an_example_runs_on_a_cluster(
    engine: str, program: str, arguments: list[str], told: str,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    source = (EXAMPLES / program).read_text()
    changed = source.replace(
        "mars.new_session(options.address)", f"mars.new_session(engine={engine!r}, n_cpu=2)"
    )
    assert changed != source
    done = run_python(changed, *arguments, limit_s=250.0)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
