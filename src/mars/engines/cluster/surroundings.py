"""Where a program is, as a worker on another node follows it.

On one machine a worker takes over the program's ``sys.path``, its folder, the variables that it
changed and its settings. Elsewhere packages are at other places, so the path is put together
there. A folder of the same name may be anybody's there: it is followed only if nobody but the
node's user and root could have put there what is in it. So are the places in those variables by
which code is found.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mars import owners, platform
from mars.attempt.setting import import_path

_own_path: list[str] | None = None
_own_folder = ""

CODE_VARIABLES: Final = frozenset(
    b"PATH PYTHONPATH PYTHONHOME PYTHONUSERBASE PYTHONSTARTUP PYTHONPYCACHEPREFIX HOME ZDOTDIR "
    b"LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT GCONV_PATH BASH_ENV ENV PERL5LIB RUBYLIB NODE_PATH "
    b"CLASSPATH R_LIBS R_LIBS_USER R_LIBS_SITE JULIA_LOAD_PATH JULIA_DEPOT_PATH".split()
)
"""Variables by which Python, the loader of libraries, shells and other languages find code. A child
process of a call runs what is there. In any other variable a path is the program's own affair."""

Variables = Mapping[bytes, bytes | None]
Whereabouts = tuple[list[str], str | None, str, dict[bytes, bytes]]
"""Places of a program: of ``sys.path``, its folder, the machine's name, and of variables."""


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
    given : mapping, optional
        Variables that it has set for its calls by name. They hold as they are; those that it
        changed win.
    """

    def __init__(
        self,
        path: Sequence[str],
        installed: Sequence[str],
        here: str | None,
        variables: dict[bytes, bytes | None],
        settings: dict[str, object],
        given: Variables | None = None,
    ) -> None:
        self._facts = (
            list(path), list(installed), here, variables, settings, _place(), dict(given or {}),
        )  # fmt: skip

    def __reduce__(self) -> tuple[object, ...]:
        return follow, self._facts

    def __iter__(self) -> Iterator[object]:
        path, _, here, variables, settings, _, given = self._facts
        return iter((path, here, {**given, **variables}, settings))


def follow(
    path: list[str],
    installed: list[str],
    here: str | None,
    variables: dict[bytes, bytes | None],
    settings: dict[str, object],
    place: str,
    given: dict[bytes, bytes | None],
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
    if away:
        variables = dict(_followed(variables, here or folder))
    variables = {**given, **variables}
    if here is None:
        return [folder, *path], folder, variables, settings
    return path, here, variables, settings


def _followed(variables: Variables, folder: str) -> Iterator[tuple[bytes, bytes | None]]:
    """Variables of the program as this node has them: without places that it does not follow."""
    for name, text in variables.items():
        if name not in CODE_VARIABLES or not text:
            yield name, text
            continue
        own = set(_entries(name, os.environb.get(name, b"")))
        kept = [
            entry
            for entry in _entries(name, text)
            if entry in own or _is_a_name(name, entry) or not _why_not(_where(entry, folder))
        ]
        if kept:  # else the node's own holds
            yield name, b":".join(kept)


def _entries(name: bytes, text: bytes) -> list[bytes]:
    return re.split(b"[: ]+", text) if name == b"LD_PRELOAD" else text.split(b":")


def _is_a_name(name: bytes, entry: bytes) -> bool:
    """Whether it is a library that the loader looks for at its own places."""
    return name in (b"LD_PRELOAD", b"LD_AUDIT") and b"/" not in entry


def _where(entry: bytes, folder: str) -> str:
    return os.path.join(folder, os.fsdecode(entry))


def not_followed(told: Whereabouts | None) -> list[str]:
    """Why this node does not follow the program to places that are there, a line for each.

    Parameters
    ----------
    told : tuple or None
        What `whereabouts` gave.
    """
    if told is None or not _is_elsewhere(told[2]):
        return []
    entries, here, _, variables = told
    wanted = dict.fromkeys([*entries, *([here] if here else [])])
    own = import_path()
    reasons = {one: _why_not(one) for one in wanted if one and one not in own}
    lines = [
        f"does not follow this program to {one}: {reason}"
        for one, reason in reasons.items()
        if reason and reason != _ABSENT
    ]
    for name, text in variables.items():
        known = _entries(name, os.environb.get(name, b""))
        for entry in dict.fromkeys(_entries(name, text)):
            if entry in known or not entry.startswith(b"/"):
                continue
            reason = _why_not(os.fsdecode(entry))
            if reason and reason != _ABSENT:
                lines.append(
                    f"leaves {os.fsdecode(entry)} out of {name.decode()}, which this program has "
                    f"changed: {reason}; new_session(env=...) sets a variable as it is"
                )
    return lines


def whereabouts(
    path: Sequence[str], installed: Sequence[str], here: str | None, variables: Variables
) -> Whereabouts:
    """Where the program is, for nodes to say where they do not follow it."""
    found = {name: text for name, text in variables.items() if text and name in CODE_VARIABLES}
    return [entry for entry in path if entry not in installed], here, _place(), found


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
