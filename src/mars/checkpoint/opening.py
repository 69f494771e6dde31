"""Opening a checkpoint's folder and its journal: who may read, who writes, who shares it.

A folder has one writing process. In that process all sessions that name the folder share one
`Journal`. Called by `mars.checkpoint.checkpoint`, and by the commands that read or prune one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from mars.checkpoint.folder import Folder
from mars.checkpoint.index import Index
from mars.checkpoint.local_folder import LocalFolder
from mars.checkpoint.remote_folder import RemoteFolder
from mars.checkpoint.writer import Writer


def open_folder(where: str, *, create: bool) -> Folder:
    """Open the folder at a path or an URL.

    Raises
    ------
    CheckpointUnusable
        It is no folder for checkpoints, or cannot be made or reached.
    """
    if "://" in where:
        return RemoteFolder(where, create=create)
    return LocalFolder(where, create=create)


class Journal:
    """An open journal. Sessions of one process that name the same folder share it.

    Attributes
    ----------
    where : str
        Path or URL.
    users : int
        How many checkpoints of this process have it open.
    """

    def __init__(self, where: str, tell: Callable[[str], object]) -> None:
        self.where = where
        self.users = 0
        self.folder = open_folder(where, create=True)
        try:
            self.folder.lock(tell)
            self.index = Index(self.folder)
            if self.index.torn_at is not None:
                self.folder.truncate(self.index.torn_at)
        except BaseException:
            self.folder.close()
            raise
        if self.folder.remark:
            tell(f"mars: checkpoint {where}: {self.folder.remark}")
        for line in problem_lines(self.index):
            tell(f"mars: checkpoint {where}: {line}")
        self.writer = Writer(self.index, tell)


def problem_lines(index: Index) -> list[str]:
    """Say in words what is wrong with a journal."""
    lines = []
    damaged = sum(not problem.torn for problem in index.problems)
    if damaged:
        lines.append(
            f"{damaged} damaged place{'s' if damaged > 1 else ''} skipped; what stood there runs "
            f"again"
        )
    if len(index.problems) > damaged:
        lines.append(
            "the last record is cut off, as a crash leaves it; what it was about runs again"
        )
    return lines


_journals: dict[str, Journal] = {}
_journals_lock = threading.Lock()


def open_journal(where: str, tell: Callable[[str], object]) -> Journal:
    """Open a journal to write to it, or share the one that this process has open.

    Raises
    ------
    CheckpointBusy
        Another process writes there.
    CheckpointUnusable
        It is no folder for checkpoints, or cannot be reached.
    """
    name = where if "://" in where else os.path.realpath(os.path.expanduser(where))
    with _journals_lock:
        known = _journals.get(name)
        if known is None:
            known = _journals[name] = Journal(where, tell)
        known.users += 1
        return known


def close_journal(used: Journal) -> None:
    """Have all on the disk that was added. Who used the journal last also closes its folder."""
    used.writer.flush()
    with _journals_lock:
        used.users -= 1
        if used.users:
            return
        for name, one in list(_journals.items()):
            if one is used:
                del _journals[name]
        try:
            used.writer.close()
        finally:
            used.folder.close()


def _after_fork() -> None:
    global _journals_lock
    _journals_lock = threading.Lock()
    _journals.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
