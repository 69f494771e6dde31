"""The folder that calls run in, `working_dir=`: packed once, and unpacked once on each node.

What is no part of a program's work, such as a repository's history, does not travel; links do as
what they lead to. Called by `mars.engines.cluster.engine` and, on nodes, by `node`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Final

from mars import owners, platform
from mars.errors import UsageError
from mars.settings import WORKING_DIR_BYTES, WORKING_DIR_NAMED

SKIPPED: Final = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__",
        ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints",
    }
)  # fmt: skip
"""Names of folders that stay where they are."""


def pack(folder: str) -> int:
    """Descriptor of a file without a name that holds a folder's content.

    Raises
    ------
    UsageError
        It is too large, or cannot be read.
    """
    try:
        files = list(_files(folder))
        sizes = [(os.path.getsize(path), name) for path, name in files]
        total = sum(size for size, _ in sizes)
        if total > WORKING_DIR_BYTES:
            largest = sorted(sizes, reverse=True)[:WORKING_DIR_NAMED]
            named = ", ".join(f"{name} ({size:,})" for size, name in largest)
            raise UsageError(
                f"working_dir={folder!r} has {total:,} bytes, and {WORKING_DIR_BYTES:,} may go to "
                f"the nodes of a cluster; the largest files are {named}; keep such files where all "
                f"nodes reach them, or choose a smaller folder"
            )
        descriptor = platform.nameless_file(append=False)
        try:
            with (
                os.fdopen(os.dup(descriptor), "wb") as file,
                tarfile.open(fileobj=file, mode="w", dereference=True) as archive,
            ):
                for path, name in files:
                    archive.add(path, name, recursive=False)
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"working_dir={folder!r} cannot be read: {error}") from error
    return descriptor


def _files(folder: str) -> Iterator[tuple[str, str]]:
    """Each file and folder below, with its name there; what links lead to, once on each way."""
    pending: list[tuple[str, str, tuple[str, ...]]]
    pending = [(folder, "", (os.path.realpath(folder),))]
    while pending:
        here, prefix, way = pending.pop()
        for entry in sorted(os.scandir(here), key=lambda one: one.name):
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if entry.name in SKIPPED or real in way:
                    continue
                yield entry.path, name
                pending.append((entry.path, f"{name}/", (*way, real)))
            elif entry.is_file():  # no socket, no device, no link to nowhere
                yield entry.path, name


def unpack(descriptor: int, directory: str | None = None) -> str:
    """Make a folder of what `pack` gave, in ``directory`` or where temporary files are.

    Whose it is removes it with `remove`.

    Raises
    ------
    OSError
        There is no room for it.
    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    if directory is not None and owners.stranger_on_the_way(directory):
        directory = None  # somebody else could put another folder in the place of ours
    folder = tempfile.mkdtemp(prefix="mars-working-dir-", dir=directory)
    try:
        with (
            os.fdopen(os.dup(descriptor), "rb") as file,
            tarfile.open(fileobj=file, mode="r") as archive,
        ):
            archive.extractall(folder, filter="data")
    except BaseException:
        remove(folder)
        raise
    return folder


def remove(folder: str) -> None:
    """Remove a folder and all that calls have put there, whatever its mode."""

    def again(_: object, path: str, __: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), stat.S_IRWXU)
            os.unlink(path)

    shutil.rmtree(folder, onerror=again)
    shutil.rmtree(folder, ignore_errors=True)
