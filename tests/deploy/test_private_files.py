"""Nothing is read that others could have written, and nothing written that others can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mars.deploy import private_files
from mars.errors import CredentialsError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_directory_is_for_its_owner_only_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_files.directory(tmp_path / "own")
        file = private_files.write_new(made / "secret", b"x")
    finally:
        os.umask(before)
    assert (mode(made), mode(file)) == (0o700, 0o600)


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"before")
    with pytest.raises(CredentialsError, match="is there already"):
        private_files.write_new(there, b"after")
    assert there.read_bytes() == b"before"


@pytest.mark.parametrize("target", ["victim", "missing"])
def test_a_planted_link_is_not_followed(tmp_path: Path, target: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"before")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    with pytest.raises(CredentialsError):
        private_files.write_new(link, b"after")
    assert victim.read_bytes() == b"before"
    assert not (tmp_path / "missing").exists()


def test_a_link_is_not_read(tmp_path: Path) -> None:
    private_files.write_new(tmp_path / "real", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CredentialsError, match="link"):
        private_files.read(tmp_path / "link")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_use_is_refused_with_the_way_out(tmp_path: Path, bits: int) -> None:
    file = private_files.write_new(tmp_path / "secret", b"x")
    file.chmod(bits)
    with pytest.raises(CredentialsError, match=f"chmod 600 {file}"):
        private_files.read(file)


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o720])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, bits: int) -> None:
    made = private_files.directory(tmp_path / "own")
    made.chmod(bits)
    with pytest.raises(CredentialsError, match=f"chmod 700 {made}"):
        private_files.directory(made)
    made.chmod(0o700)


def test_a_link_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CredentialsError, match="is not a directory"):
        private_files.directory(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of somebody else")
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path) -> None:
    made = private_files.directory(tmp_path / "own")
    file = private_files.write_new(made / "secret", b"x")
    os.chown(file, 65534, 65534)
    with pytest.raises(CredentialsError, match="belongs to user 65534"):
        private_files.read(file)
    os.chown(made, 65534, 65534)
    with pytest.raises(CredentialsError, match="belongs to user 65534"):
        private_files.directory(made)


def test_a_named_pipe_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(CredentialsError, match="not a plain file"):
        private_files.read(tmp_path / "pipe")


def test_replacing_leaves_one_whole_file(tmp_path: Path) -> None:
    file = private_files.write_new(tmp_path / "facts", b"one")
    private_files.replace(file, b"two")
    assert (private_files.read(file), mode(file)) == (b"two", 0o600)
    assert os.listdir(tmp_path) == ["facts"]
