"""Tells of results that are reused although a file changed whose path their call got.

A path is a text like any other to the identity of a call, so a changed file does not have the call
run again; ``depends=`` does that. Whoever forgot it hears of it here. Only calls whose results are
found are looked at. Called by `mars.checkpoint.recall`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from mars.settings import CHECKPOINT_FILE_CLOCK_S, CHECKPOINT_FILES_NAMED

_LONGEST: Final = 4096  # of a path, in characters: the limit of Linux


class Stale:
    """Which results are older than a file that their call got by its path.

    Parameters
    ----------
    where : str
        The checkpoint, for messages.
    tell : callable
        Takes lines for the user.
    """

    def __init__(self, where: str, tell: Callable[[str], object]) -> None:
        self._where, self._tell = where, tell
        self._changed_at: dict[str, float] = {}  # of paths in this run; 0: no file
        self._found: dict[str, str] = {}  # path -> a call that got it
        self._told: set[str] = set()

    def look(self, name: str, arguments: Iterable[object], made_at: float) -> None:
        """Look at the files that a reused call got.

        Parameters
        ----------
        name : str
            The call.
        arguments : iterable of object
            Its arguments.
        made_at : float
            When its result was made, in seconds since 1970.
        """
        for path in _paths_in(arguments):
            if path in self._told:
                continue
            changed_at = self._changed_at.get(path)
            if changed_at is None:
                changed_at = self._changed_at[path] = _changed_at(path)
            if changed_at > made_at + CHECKPOINT_FILE_CLOCK_S:
                self._found.setdefault(path, name)

    def tell(self) -> None:
        """Tell of the files that were found since the last time; each one once."""
        self._changed_at.clear()
        found, self._found = self._found, {}
        if not found:
            return
        self._told.update(found)
        named = [f"{name} got {path!r}" for path, name in found.items()]
        more = len(named) - CHECKPOINT_FILES_NAMED
        shown = ", ".join(named[:CHECKPOINT_FILES_NAMED]) + (
            f" and {more} more" if more > 0 else ""
        )
        self._tell(
            f"mars: results in the checkpoint {self._where} are reused although files have changed "
            f"since they were made: {shown}. With depends=[Path(...)] a call runs again when the "
            f"file changes"
        )


def _paths_in(arguments: Iterable[object]) -> Iterator[str]:
    """Texts and paths among arguments, also in lists and tuples, that may name a file."""
    for value in arguments:
        if isinstance(value, os.PathLike):
            path = os.fspath(value)
            if isinstance(path, str):
                yield path
        elif isinstance(value, (list, tuple)):
            yield from _paths_in(value)
        elif type(value) is str and 0 < len(value) < _LONGEST and ("." in value or "/" in value):
            yield value


def _changed_at(path: str) -> float:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0.0
    return status.st_mtime if stat.S_ISREG(status.st_mode) else 0.0


__all__ = ["Stale"]
