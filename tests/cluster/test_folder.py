"""The folder that goes to the nodes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.engines.cluster import folder
from tests.cluster.conftest import DaskHosts


def test_what_is_no_part_of_the_work_stays_and_links_go_as_what_they_lead_to(
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    for name in (".git/objects/1", "src/__pycache__/a.pyc", "src/a.py", "empty/.keep"):
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "table.csv").write_text("1,2")
    (project / "tables").symlink_to(outside)
    (project / "round").symlink_to(project)
    (project / "broken").symlink_to(tmp_path / "nowhere")
    descriptor = folder.pack(str(project))
    made = Path(folder.unpack(descriptor))
    os.close(descriptor)
    found = sorted(str(one.relative_to(made)) for one in made.rglob("*") if one.is_file())
    assert found == ["empty/.keep", "src/a.py", "tables/table.csv"]
    (made / "src").chmod(0o500)  # as a call may leave it
    folder.remove(str(made))
    assert not made.exists()


def test_a_copy_is_made_where_nobody_else_can_put_another_one_in_its_place(tmp_path: Path) -> None:
    project, theirs, ours = (tmp_path / name for name in ("project", "theirs", "ours"))
    for one in (project, theirs, ours):
        one.mkdir(mode=0o755)
    theirs.chmod(0o777)
    descriptor = folder.pack(str(project))
    for directory in (theirs, ours):
        made = Path(folder.unpack(descriptor, str(directory)))
        assert (made.parent == directory) == (directory == ours)
        assert made.stat().st_mode & 0o777 == 0o700
        folder.remove(str(made))
    os.close(descriptor)


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "WORKING_DIR_BYTES", 1000)
    (tmp_path / "model.bin").write_bytes(bytes(2000))
    (tmp_path / "small.txt").write_text("x")
    with pytest.raises(mars.errors.UsageError, match=r"2,001 bytes.* model\.bin \(2,000\)"):
        folder.pack(str(tmp_path))


@pytest.mark.timeout(120)
def test_each_node_has_a_copy_until_the_session_ends(
    dask_hosts: DaskHosts, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "big").write_bytes(os.urandom(9_000_000))  # comes in parts
    dask_hosts.add_node()
    dask_hosts.add_node()

    def look() -> tuple[str, bytes]:
        Path("written").write_text("by a call")
        return os.getcwd(), Path("big").read_bytes()

    with dask_hosts.session(2, working_dir=tmp_path / "given") as session:
        calls = [mr.spawn(look, expect_worker=one) for one in session.get_worker_addresses()]
        told = mr.ExecutableTuple(calls).execute().fetch()
    folders = {place for place, _ in told}
    assert len(folders) == 2
    assert {content for _, content in told} == {(tmp_path / "given" / "big").read_bytes()}
    assert all(tmp_path in Path(place).parents for place in folders)  # Dask's own folder
    wait_until(lambda: not any(map(os.path.exists, folders)))
    assert not (tmp_path / "given" / "written").exists()
