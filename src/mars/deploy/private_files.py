"""Files that only their owner can read or change, in directories that only their owner can enter.

Keys and tokens stand in them, and what `mars cluster down` believes. So whatever another user
could have made, changed or read is refused, and nothing is ever written through a link that was
there before. Called by `mars.deploy.credentials` and `mars.deploy.records`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from mars.errors import CredentialsError


def directory(path: Path) -> Path:
    """Return a directory of mode 0700 that is ours; make it if it is not there.

    Raises
    ------
    CredentialsError
        It is another user's, others may enter it, or it is no directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        _refuse_shared(path, path.lstat(), stat.S_ISDIR, "a directory", "700")
    return path


def write_new(path: Path, data: bytes) -> Path:
    """Write a file of mode 0600 that was not there before, not even as a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise CredentialsError(
            f"{path} is there already, and is not overwritten; move it away, or choose another name"
        ) from None
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask is
        file.write(data)
    return path


def replace(path: Path, data: bytes) -> None:
    """Give a private file new contents at once: a reader sees the old ones or the new ones."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        write_new(fresh, data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read(path: Path) -> bytes:
    """Return what a private file holds.

    Raises
    ------
    CredentialsError
        It is a link, another user's, or others may read or write it.
    FileNotFoundError
        It is not there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CredentialsError(f"{path} is not read: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        _refuse_shared(path, os.fstat(descriptor), stat.S_ISREG, "a plain file", "600")
        return file.read()


def check(path: Path) -> None:
    """Refuse a file that `read` would refuse; for files that others open by their path."""
    read(path)


def remove(path: Path) -> None:
    """Remove a directory of ours with all that is in it; one that is gone is well."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _refuse_shared(
    path: Path, found: os.stat_result, kind: Callable[[int], bool], name: str, mode: str
) -> None:
    if not kind(found.st_mode):
        raise CredentialsError(f"{path} is not {name}, and is not used; remove it")
    if found.st_uid != os.geteuid():
        raise CredentialsError(
            f"{path} belongs to user {found.st_uid}, not to you ({os.geteuid()}), so what is in it "
            f"may be theirs; remove it, or set XDG_STATE_HOME to a directory of your own"
        )
    if found.st_mode & 0o077:
        raise CredentialsError(
            f"other users may use {path} (mode {stat.S_IMODE(found.st_mode):o}), so it may be no "
            f"secret any more; if it still is: chmod {mode} {path}"
        )
