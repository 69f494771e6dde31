"""Who could have put a file where it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mars.owners import stranger_on_the_way

SOMEBODY = 4321


@pytest.fixture
def ours() -> Iterator[Path]:
    """A folder of ours in one where everybody may make folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield Path(made)


def test_what_is_ours_is_ours_also_below_a_folder_where_all_may_make_theirs(ours: Path) -> None:
    (ours / "file").touch(0o644)
    assert not stranger_on_the_way(str(ours))
    assert not stranger_on_the_way(f"{ours}/../{ours.name}/file")
    assert not stranger_on_the_way(os.__file__)
    assert "every user may write to /tmp" in stranger_on_the_way("/tmp")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_folder_that_all_may_write_to_is_anybodys_and_what_is_below_it_too(
    ours: Path, mode: int
) -> None:
    (ours / "open" / "below").mkdir(parents=True)
    (ours / "open").chmod(mode)
    assert "every user may write to" in stranger_on_the_way(str(ours / "open"))
    below = stranger_on_the_way(str(ours / "open" / "below"))
    assert bool(below) == (mode != 0o1777), below


def test_a_group_of_others_counts_as_they_do(ours: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give a folder to another group")
    os.chown(ours, -1, SOMEBODY)
    ours.chmod(0o770)
    assert f"group {SOMEBODY} may write to" in stranger_on_the_way(str(ours))
    os.chown(ours, -1, 0)
    assert not stranger_on_the_way(str(ours))


def test_what_belongs_to_somebody_else_is_theirs_and_so_is_where_their_links_lead(
    ours: Path,
) -> None:
    if os.geteuid():
        pytest.skip("only root may give a file to somebody else")
    (ours / "theirs" / "below").mkdir(parents=True)
    os.chown(ours / "theirs", SOMEBODY, SOMEBODY)
    assert f"belongs to user {SOMEBODY}" in stranger_on_the_way(str(ours / "theirs" / "below"))
    (ours / "mine").mkdir()
    (ours / "link").symlink_to("mine")
    assert not stranger_on_the_way(str(ours / "link"))
    os.chown(ours / "link", SOMEBODY, SOMEBODY, follow_symlinks=False)
    assert f"link belongs to user {SOMEBODY}" in stranger_on_the_way(str(ours / "link"))
    (ours / "there").symlink_to(ours / "theirs")
    assert f"belongs to user {SOMEBODY}" in stranger_on_the_way(str(ours / "there"))


def test_links_that_go_round_and_what_is_not_there_are_told(ours: Path) -> None:
    (ours / "round").symlink_to("round")
    with pytest.raises(OSError, match="too many links"):
        stranger_on_the_way(str(ours / "round"))
    with pytest.raises(FileNotFoundError):
        stranger_on_the_way(str(ours / "nothing"))
