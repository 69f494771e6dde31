"""The seed programs run as a stranger would run them, at small sizes, and say what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

RunExample = Callable[..., str]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run_example(script_environment: dict[str, str], tmp_path: Path) -> RunExample:
    def run(name: str, *arguments: str, status: int = 0) -> str:
        ended = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *arguments],
            capture_output=True,
            text=True,
            timeout=200,
            env=script_environment,
            cwd=tmp_path,
            check=False,
        )
        assert ended.returncode == status, ended.stderr + ended.stdout
        return ended.stdout + (ended.stderr if status else "")

    return run


def value_after(word: str, text: str) -> str:
    found = re.search(rf"^{word}\s+(\S+)", text, re.M)
    assert found, f"no line that begins with {word!r} in:\n{text}"
    return found[1]


def test_pi_has_the_same_digits_serial_and_spawned(run_example: RunExample) -> None:
    printed = run_example("monte_carlo_pi.py", "--points", "400_000", "--chunks", "8")
    assert value_after("serial", printed) == value_after("spawned", printed)
    assert abs(float(value_after("serial", printed)) - 3.1416) < 0.01
    assert float(value_after("speed-up", printed)) > 0


def test_pi_shows_the_log_of_one_chunk_only(run_example: RunExample) -> None:
    printed = run_example("monte_carlo_pi.py", "--points", "40_000", "--chunks", "4")
    assert re.findall(r"^chunk (\d+): [\d,]+ of 10,000 points inside$", printed, re.M) == ["3"]


def test_pi_refuses_more_chunks_than_points(run_example: RunExample) -> None:
    assert "--chunks" in run_example(
        "monte_carlo_pi.py", "--points", "4", "--chunks", "5", status=2
    )


class TestModelSearch:
    """Needs the `ml` extra."""

    @pytest.fixture(autouse=True)
    def needs_ml(self) -> None:
        pytest.importorskip("sklearn")
        pytest.importorskip("xgboost")

    def test_search_is_done_twice_with_equal_metrics(self, run_example: RunExample) -> None:
        printed = run_example("model_search.py", "--rows", "600", "--trees-scale", "0.04")
        assert "18 random forests, 6 logistic regressions, 12 XGBoost models" in printed
        assert float(value_after("speed-up", printed)) > 0
        found = re.search(r"equal metrics: (\d+) of 36 to the last digit, (\d+) up", printed)
        assert found and int(found[1]) + int(found[2]) == 36
        assert int(found[1]) >= 30, "forests and XGBoost are equal to the last digit"
        assert re.search(r"^best model: \w+, accuracy 0\.\d{4}$", printed, re.M)
        # The logs of one forest and one XGBoost model.
        assert "building tree 1 of 2" in printed
        assert "building tree 1 of 24" not in printed
        assert re.search(r"^\s*\[0\]\s+validation_0-mlogloss:\d", printed, re.M)

    def test_search_reads_ottos_csv(self, run_example: RunExample, tmp_path: Path) -> None:
        rows = [
            [str(i), *(str((i * j) % (7 + i % 9)) for j in range(93)), f"Class_{i % 9 + 1}"]
            for i in range(700)
        ]
        names = ["id", *(f"feat_{j}" for j in range(1, 94)), "target"]
        csv = tmp_path / "train.csv"
        csv.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
        printed = run_example(
            "model_search.py",
            *("--csv", str(csv), "--rows", "600", "--trees-scale", "0.02", "--skip-serial"),
        )
        assert str(csv) in printed
        assert "best model:" in printed
        assert "speed-up" not in printed

    def test_search_refuses_a_missing_csv(self, run_example: RunExample) -> None:
        assert "no such file" in run_example("model_search.py", "--csv", "nowhere.csv", status=2)

    def test_data_has_ottos_shape(self, script_environment: dict[str, str]) -> None:
        code = (
            "import model_search as m; X, y = m.otto_shaped(20_000);"
            "import numpy as np;"
            "print(X.shape, (X == 0).mean() > 0.7, (X >= 0).all(), (X == np.rint(X)).all());"
            "print(*np.bincount(y)); print(*(len(m.gen_data(None, 900)[i]) for i in range(4)));"
            "print(*(family for family, _, _ in m.candidates(1.0)), sep=',')"
        )
        path = os.pathsep.join([str(EXAMPLES), script_environment["PYTHONPATH"]])
        printed = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=200,
            env={**script_environment, "PYTHONPATH": path},
            check=True,
        ).stdout.splitlines()
        assert printed[0] == "(20000, 93) True True True"
        sizes = [int(size) for size in printed[1].split()]
        assert len(sizes) == 9
        assert max(sizes) > 5 * min(sizes), "classes are of unequal size, as Otto's are"
        assert printed[2] == "603 297 603 297"
        assert Counter(printed[3].split(",")) == {
            "random forest": 18,
            "logistic regression": 6,
            "XGBoost": 12,
        }
