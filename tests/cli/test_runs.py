"""``mars runs`` and ``mars replay``, on a checkpoint that two versions of a program made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mars.cli import main

PROGRAM = """
import sys
import numpy as np
import mars, mars.remote as mr

LIMIT = 3

def load(n):
    print("loading", n)
    return np.arange(n)

def fit(data, alpha, *, deep=False):
    # comments do not count
    total = float(data.sum())
    return total * alpha + LIMIT

def draw(n):
    return [mr.rng().random() for _ in range(n)]

def fails(data, bound):
    if data.sum() > bound:
        raise ValueError(f"more than {bound}")
    return data

where = sys.argv[1]
with mars.new_session(n_cpu=1, checkpoint=where):
    data = mr.spawn(load, 50_000)
    fits = [mr.spawn(fit, (data, alpha), {"deep": True}) for alpha in (0.5, 1.5)]
    other = mr.spawn(draw, 2)
    bad = mr.spawn(fails, (data, 10))
    mars.execute(*fits, other, bad, on_error="continue")
    large = np.ones(100_000)
    whole = mr.spawn(np.sum, large).execute()
    many = mr.map(divmod, [7, 8, 9], [2, 2, 2]).execute()
    print(other.fetch())
"""


@pytest.fixture(scope="module")
def otto(
    tmp_path_factory: pytest.TempPathFactory, script_environment: dict[str, str]
) -> tuple[Path, Callable[[str], str]]:
    """A checkpoint, and what runs a version of the program on it."""
    folder = tmp_path_factory.mktemp("runs")

    def run(text: str) -> str:
        program = folder / "train.py"
        program.write_text(text)
        done = subprocess.run(
            [sys.executable, program, folder / "otto"],
            env=script_environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run(PROGRAM)
    changed = PROGRAM.replace("LIMIT = 3", "LIMIT = 4").replace("1.5)]", "2.5)]")
    run(changed.replace("# comments do not count", "# nor do other comments"))
    return folder / "otto", run


def mars(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_list_shows_runs_and_functions(otto: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = mars(capsys, "runs", "list", otto[0])
    assert status == 0
    assert re.search(r"^1 +\S+ \S+ +\S*train.py +8 +0 ", out, re.M)
    assert re.search(r"^2 +\S+ \S+ +\S*train.py +2 +6 ", out, re.M)
    assert re.search(r"^fit +4 ", out, re.M)
    assert re.search(r"^load +1 .* 390\.\d KiB$", out, re.M)
    assert "2 failed call(s)" in out


def test_show_tells_what_a_call_is_and_what_it_printed(
    otto: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = mars(capsys, "runs", "show", otto[0], "load")
    assert status == 0
    assert "  printed:\n    loading 50000\n" in out
    _, out, _ = mars(capsys, "runs", "show", otto[0], "fit")
    assert "  argument alpha: " in out and "  argument deep: " in out
    assert "  input: value 0 of load (" in out
    assert "  value of LIMIT: " in out
    key = re.search(r"key ([0-9a-f]{32})", out)
    assert key is not None
    assert mars(capsys, "runs", "show", otto[0], key[1][:10])[1] == out


def test_why_names_what_differs(otto: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = mars(capsys, "runs", "why", otto[0], "fit")
    assert status == 0
    assert "value of LIMIT changed" in out
    assert "argument `alpha` differs" in out
    assert "deep" not in out
    assert (
        "ran because no earlier run has a call of that name"
        in (mars(capsys, "runs", "why", otto[0], "load")[1])
    )


def test_why_names_the_line_that_changed(
    tmp_path: Path, run_python: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"""
import mars, mars.remote as mr
def fit(x):
    y = x + 1
    # a comment
    return 2 * y
with mars.new_session(n_cpu=1, engine="inline", checkpoint={str(tmp_path / "otto")!r}):
    mr.spawn(fit, 1).execute()
"""
    assert run_python(code).returncode == 0
    assert (
        run_python("\n" + code.replace("# a", "# another").replace("2 * y", "3 * y")).stdout == ""
    )
    _, out, _ = mars(capsys, "runs", "why", tmp_path / "otto", "fit")
    assert out.splitlines()[1:] == [
        f"  function fit changed at line 7 of {tmp_path / 'program.py'}"
    ]


def test_replay_runs_a_call_with_its_real_inputs(
    otto: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    total = 49_999 * 50_000 / 2
    assert mars(capsys, "replay", otto[0], "fit")[:2] == (0, f"fit returned {total * 2.5 + 4}\n")
    assert mars(capsys, "replay", otto[0], "sum")[1].startswith("sum returned ")
    drawn = otto[1](PROGRAM)
    assert mars(capsys, "replay", otto[0], "draw")[1] == f"draw returned {drawn}\n"
    status, out, err = mars(capsys, "replay", otto[0], "fails")
    assert (status, out) == (1, "")
    assert err.endswith("ValueError: more than 10\n")
    assert 'train.py", line ' in err
    _, out, _ = mars(capsys, "runs", "show", otto[0], "divmod")
    key = re.search(r"key ([0-9a-f]{32})", out)
    assert key is not None
    assert mars(capsys, "replay", otto[0], key[1])[1] == "divmod returned (4, 1)\n"


def test_an_item_of_a_map_is_meant_by_its_number_and_has_its_own_random_numbers(
    tmp_path: Path, run_python: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"""
import mars, mars.remote as mr
def draw(n):
    return n, float(mr.rng().random())
with mars.new_session(n_cpu=2, checkpoint={str(tmp_path / "otto")!r}):
    first = mr.spawn(abs, -1).execute()
    drawn = mr.map(draw, range(40)).execute()
    print("draw returned", drawn[37].fetch())
"""
    said = run_python(code).stdout
    _, out, err = mars(capsys, "runs", "show", tmp_path / "otto", "draw#1.37")
    assert "  place: 1.37\n" in out and not err
    assert mars(capsys, "replay", tmp_path / "otto", "draw#1.37") == (0, said, "")


def test_replay_steps_through_a_call_in_the_debugger(
    otto: Any, script_environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mars", "replay", otto[0], "fails", "--pdb"],
        input="p bound\nn\nn\np 'at the error', data.shape\nq\nq\n",
        env=script_environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert "10" in done.stdout
    assert "('at the error', (50000,))" in done.stdout


def test_verify_finds_what_is_damaged(
    otto: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    assert mars(capsys, "runs", "verify", otto[0])[0] == 0
    copy = tmp_path / "copy"
    shutil.copytree(otto[0], copy)
    (large,) = [file for file in (copy / "results").rglob("*") if file.is_file()]
    content = bytearray(large.read_bytes())
    content[-1] ^= 1
    large.write_bytes(content)
    status, out, _ = mars(capsys, "runs", "verify", copy)
    assert status == 1
    assert re.search(r"^the result of load \([0-9a-f]{8}\) is damaged or missing$", out, re.M)
    with (copy / "journal.mars").open("ab") as file:
        file.write(b"torn")
    assert " are cut off" in mars(capsys, "runs", "verify", copy)[1]


def test_prune_removes_what_the_last_run_did_not_need(
    otto: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = otto
    drawn = run(PROGRAM)
    status, out, _ = mars(capsys, "runs", "prune", folder)
    assert status == 0
    assert re.search(r": \d+ record\(s\) removed, .* free$", out, re.M)
    _, out, _ = mars(capsys, "runs", "list", folder)
    assert re.search(r"^fit +2 ", out, re.M)
    assert mars(capsys, "runs", "verify", folder)[0] == 0
    assert run(PROGRAM) == drawn
    _, out, _ = mars(capsys, "runs", "list", folder)
    last = out.split("\n\n")[1].splitlines()[-1].split()
    assert last[4:6] == ["0", "8"]
    assert mars(capsys, "replay", folder, "fit")[0] == 0


def test_a_folder_without_an_action_is_answered_with_the_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["runs", str(tmp_path)])
    said = capsys.readouterr().err
    assert said.startswith("usage: mars runs [-h] {list,show,why,prune,verify} DIR")
    with pytest.raises(SystemExit):
        main(["runs", "list"])
    assert capsys.readouterr().err.startswith("usage: mars runs list [-h]")


def test_what_is_no_checkpoint_and_what_is_in_use_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mars as library

    for words in (("runs", "list"), ("runs", "verify"), ("runs", "prune")):
        status, _, err = mars(capsys, *words, tmp_path)
        assert status == 1
        assert "there is no journal" in err
    assert mars(capsys, "replay", tmp_path, "x")[0] == 1
    with library.new_session(engine="inline", n_cpu=1, checkpoint=tmp_path / "otto"):
        status, _, err = mars(capsys, "runs", "prune", tmp_path / "otto")
        assert status == 1
        assert "is in use by process" in err
        assert mars(capsys, "runs", "list", tmp_path / "otto")[0] == 0
        status, _, err = mars(capsys, "runs", "show", tmp_path / "otto", "nothing")
        assert (status, "no call here" in err) == (1, True)


def test_replay_knows_items_that_were_taken_one_by_one(
    tmp_path: Path, run_python: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"""
import dataclasses, mars, mars.remote as mr
@dataclasses.dataclass
class Job:
    sizes: list
def total(job, factors):
    return sum(job.sizes) * factors["of"][0]
with mars.new_session(n_cpu=2, checkpoint={str(tmp_path / "otto")!r}):
    drawn = mr.map(total, [Job([i, 1]) for i in range(40)], [{{"of": [2]}}] * 40).execute()
    print("total returned", drawn[37].fetch())
"""
    done = run_python(code)
    assert done.stdout == "total returned 76\n", done.stderr
    assert mars(capsys, "replay", tmp_path / "otto", "total#0.37") == (0, done.stdout, "")
    assert mars(capsys, "runs", "verify", tmp_path / "otto")[0] == 0


def copied(otto: Any, tmp_path: Path, owner: int) -> Path:
    """The checkpoint, as one of another user."""
    if os.geteuid():
        pytest.skip("only root may give a folder to somebody else")
    copy = shutil.copytree(otto[0], tmp_path / "copy")
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner, owner)
    return copy


@pytest.mark.parametrize("words", [("runs", "verify"), ("replay",)])
def test_code_of_another_users_checkpoint_runs_only_if_they_are_trusted(
    otto: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    copy = copied(otto, tmp_path, 4321)
    call = ["load"] if words == ("replay",) else []
    status, out, said = mars(capsys, *words, copy, *call)
    assert (status, out) == (1, "")
    assert "belongs to user 4321" in said and "--trust" in said
    assert f"`mars {' '.join(words)}` runs code that it finds there, with your rights" in said
    assert mars(capsys, "runs", "list", copy)[0] == 0  # which runs none
    assert mars(capsys, *words, copy, *call, "--trust")[0] == 0
    (copy / "results").chmod(0o777)
    status, out, said = mars(capsys, *words, copy, *call, "--trust")
    assert (status, out) == (1, "")
    assert f"every user may write to {copy / 'results'}" in said


def test_a_file_of_somebody_else_in_a_checkpoint_of_ours_is_not_loaded(
    otto: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(otto, tmp_path, 0)
    (large, *_) = (path for path in (copy / "results").rglob("*") if path.is_file())
    os.chown(large, 4321, 4321)
    status, out, _ = mars(capsys, "runs", "verify", copy)
    assert status == 1 and "is damaged or missing" in out


def test_replay_imports_nothing_from_a_folder_that_all_may_write_to(
    otto: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = otto[0].parent
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(folder)])
    mode = folder.stat().st_mode
    folder.chmod(0o777)
    try:
        status, _, said = mars(capsys, "replay", otto[0], "load")
    finally:
        folder.chmod(mode)
    assert (status, str(folder) in sys.path) == (0, False)
    assert f"nothing is imported from {folder}: every user may write to {folder}" in said
