"""Where a program is, as a worker on another node follows it.

On one machine a worker takes over the program's ``sys.path``, its folder, the variables that it
changed and its settings. Elsewhere packages are at other places, so the path is put together
there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from mars.attempt.setting import import_path

_own_path: list[str] | None = None
_own_folder = ""


class Surroundings:
    """``(path, folder, variables, settings)`` of the driver; in its pickle as the node has them.

    Parameters
    ----------
    path : sequence of str
        The program's ``sys.path``.
    installed : sequence of str
        Those of its entries that belong to its Python, not to the program.
    here : str or None
        Its working directory; None: the folder that it has given to the nodes.
    variables : dict
        Those that it changed.
    settings : dict
        See `mars.attempt.followed`.
    """

    def __init__(
        self,
        path: Sequence[str],
        installed: Sequence[str],
        here: str | None,
        variables: dict[bytes, bytes | None],
        settings: dict[str, Any],
    ) -> None:
        self._facts = list(path), list(installed), here, variables, settings

    def __reduce__(self) -> tuple[Any, ...]:
        return follow, self._facts

    def __iter__(self) -> Any:
        path, _, here, variables, settings = self._facts
        return iter((path, here, variables, settings))


def follow(
    path: list[str],
    installed: list[str],
    here: str | None,
    variables: dict[bytes, bytes | None],
    settings: dict[str, Any],
) -> tuple[list[str], str, dict[bytes, bytes | None], dict[str, Any]]:
    """What a worker on this node should have for what the program has."""
    global _own_path, _own_folder
    if _own_path is None:
        _own_path = import_path()  # before the first call: as the node's Python has it
        _own_folder = os.getcwd()
    if not set(installed) <= {*_own_path, ""}:
        # Another installation: what the program added, where it is there too, then ours.
        known = {*installed, *_own_path}
        path = [entry for entry in path if entry not in known and os.path.isdir(entry)] + _own_path
    if here is None:
        return [_own_folder, *path], _own_folder, variables, settings
    return path, here if os.path.isdir(here) else "", variables, settings


def installed_entries(path: Sequence[str]) -> list[str]:
    """Entries of ``sys.path`` that belong to the Python that runs, such as site-packages."""
    prefixes = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
    return [entry for entry in path if entry.startswith(prefixes)]
