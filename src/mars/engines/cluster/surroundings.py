"""Where a program is, as a worker on another node follows it.

On one machine a worker takes over the program's ``sys.path``, its folder, the variables that it
changed and its settings. Elsewhere packages are at other places, so the path is put together
there. A folder of the same name may be anybody's there: it is followed only if nobody but the
node's user and root could have put there what is in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mars import owners, platform
from mars.attempt.setting import import_path

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        settings: dict[str, object],
    ) -> None:
        self._facts = list(path), list(installed), here, variables, settings, _place()

    def __reduce__(self) -> tuple[object, ...]:
        return follow, self._facts

    def __iter__(self) -> Iterator[object]:
        path, _, here, variables, settings, _ = self._facts
        return iter((path, here, variables, settings))


def follow(
    path: list[str],
    installed: list[str],
    here: str | None,
    variables: dict[bytes, bytes | None],
    settings: dict[str, object],
    place: str,
) -> tuple[list[str], str, dict[bytes, bytes | None], dict[str, object]]:
    """What a worker on this node should have for what the program has."""
    global _own_path, _own_folder
    if _own_path is None:
        _own_path = import_path()  # before the first call: as the node's Python has it
        _own_folder = os.getcwd()
    own, folder = _own_path, _own_folder
    away = _is_elsewhere(place)
    another = not set(installed) <= {*own, ""}  # installation: what the program added, then ours
    if here is not None and (not os.path.isdir(here) or (away and _why_not(here))):
        here = ""

    def is_followed(entry: str) -> bool:
        if away:
            return (bool(entry) and entry in own) or not _why_not(entry or here or folder)
        return not another or os.path.isdir(entry)

    if another:
        known = {*installed, *own}
        path = [entry for entry in path if entry not in known and is_followed(entry)] + own
    else:
        path = [entry for entry in path if is_followed(entry)]
    if here is None:
        return [folder, *path], folder, variables, settings
    return path, here, variables, settings


def not_followed(told: tuple[list[str], str | None, str] | None) -> list[str]:
    """Why this node does not follow the program to places that are there, a line for each.

    Parameters
    ----------
    told : tuple or None
        What `whereabouts` gave.
    """
    if told is None or not _is_elsewhere(told[2]):
        return []
    entries, here, _ = told
    wanted = dict.fromkeys([*entries, *([here] if here else [])])
    own = import_path()
    reasons = {one: _why_not(one) for one in wanted if one and one not in own}
    return [
        f"does not follow this program to {one}: {reason}"
        for one, reason in reasons.items()
        if reason and reason != _ABSENT
    ]


def whereabouts(
    path: Sequence[str], installed: Sequence[str], here: str | None
) -> tuple[list[str], str | None, str]:
    """Where the program is, for nodes to say where they do not follow it."""
    return [entry for entry in path if entry not in installed], here, _place()


_ABSENT = "it is not there"


def _why_not(path: str) -> str:
    """Why a path of the program is not followed here."""
    try:
        return owners.stranger_on_the_way(path)
    except (OSError, ValueError):  # also one that somebody else may make later
        return _ABSENT


def _place() -> str:
    """The same in two processes for which a path leads to the same file; empty: not known."""
    try:
        return f"{platform.machine()} {os.readlink('/proc/self/ns/mnt')}"
    except OSError:
        return ""


def _is_elsewhere(place: str) -> bool:
    return not place or place != _place()


def installed_entries(path: Sequence[str]) -> list[str]:
    """Entries of ``sys.path`` that belong to the Python that runs, such as site-packages."""
    prefixes = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
    return [entry for entry in path if entry.startswith(prefixes)]
