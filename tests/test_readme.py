"""The README is true: its Python blocks run, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    # The heading above a block names its test.
    pytest.param(block[1], id=f"{re.findall(r'^#+ (.+)', README[: block.start()], re.M)[-1]}")
    for block in re.finditer(r"^```python\n(.*?)^```$", README, re.M | re.S)
]


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 5
    assert len(BLOCKS) == README.count("```python")


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs_as_a_program(
    block: str, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    ended = run_python(block, limit_s=40.0)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_first_block_prints_what_it_says(
    run_python: Callable[..., CompletedProcess[str]],
) -> None:
    (first,) = BLOCKS[0].values
    assert isinstance(first, str)
    printed = run_python(first, limit_s=40.0).stdout.split("\n")
    assert printed[0] == "285"
    assert printed[1].strip() == "squaring 3"


def test_links_lead_to_files() -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
