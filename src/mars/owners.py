"""Who could have put a file where it is: only we and root, or somebody else, too.

What others can write must not be imported, unpickled or written to with our rights. Looks at
owners, modes and links, and changes nothing. Called by `mars.checkpoint`, `mars.cli` and
`mars.engines.cluster.surroundings`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

_LINKS: Final = 40
"""So many links on one way the kernel follows, too."""


def stranger(path: str, facts: os.stat_result) -> str:
    """Why somebody else may change what a file or a folder holds; empty: only we and root may.

    Parameters
    ----------
    path : str
        Which one.
    facts : os.stat_result
        What `os.stat` says of it.
    """
    if facts.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to user {facts.st_uid}"
    return writers(path, facts)


def writers(path: str, facts: os.stat_result) -> str:
    """The same, whoever the owner is: why others than the owner may."""
    if stat.S_ISLNK(facts.st_mode):
        return ""  # nobody can change a link but by removing it, which is up to its folder
    if facts.st_mode & stat.S_IWOTH:
        return f"every user may write to {path} (mode {stat.S_IMODE(facts.st_mode):o})"
    if facts.st_mode & stat.S_IWGRP and not _is_of_one(facts.st_gid, facts.st_uid, path):
        return f"group {facts.st_gid} may write to {path} (mode {stat.S_IMODE(facts.st_mode):o})"
    return ""


def anyone(path: str, facts: os.stat_result) -> str:
    """Why every user may change what a folder holds; empty: some may not.

    Who shares a project's folders on a cluster trusts the group that may write to them.
    """
    if stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_IWOTH:
        return f"every user may write to {path} (mode {stat.S_IMODE(facts.st_mode):o})"
    return ""


def stranger_on_the_way(path: str, judge: Callable[[str, os.stat_result], str] = stranger) -> str:
    """Why what a path leads to may be somebody else's; empty: it is ours or root's.

    The file or folder itself, each folder above it and each link on the way have to be. In a
    folder like ``/tmp``, where others can make something but not remove what is ours, what is ours
    is as good as anywhere.

    Parameters
    ----------
    path : str
        Which one.
    judge : callable, default `stranger`
        Says of each file, folder and link on the way why it is somebody else's; empty: it is not.

    Raises
    ------
    OSError
        There is no such file or folder.
    """
    left = _parts(os.path.join(os.getcwd(), path) if not os.path.isabs(path) else path)
    here, links = os.sep, 0
    facts = os.lstat(here)
    while True:
        found = judge(here, facts)
        sticky = stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
        if found and not (left and sticky and facts.st_uid in (0, os.geteuid())):
            return found
        if not left:
            return ""
        part = left.pop()
        if part == os.pardir:
            here = os.path.dirname(here)
            facts = os.lstat(here)
            continue
        below = os.path.join(here, part)
        facts = os.lstat(below)
        if not stat.S_ISLNK(facts.st_mode):
            here = below
            continue
        links += 1
        if links > _LINKS:
            raise OSError(f"too many links on the way to {path}")
        found = judge(below, facts)
        if found:
            return found
        target = os.readlink(below)
        left += _parts(target)
        here = os.sep if os.path.isabs(target) else here
        facts = os.lstat(here)


def _parts(path: str) -> list[str]:
    """Names on a path, the last one first."""
    return [part for part in reversed(path.split(os.sep)) if part not in ("", os.curdir)]


def _is_of_one(group: int, owner: int, path: str) -> bool:
    """Whether nobody but the owner, we and root is in a group, as where each user has their own."""
    import grp
    import pwd

    try:
        if "system.posix_acl_access" in os.listxattr(path):
            return False  # then these bits of the mode are not the group's
    except (AttributeError, OSError):  # there is no such list on this system
        pass
    try:
        known = grp.getgrgid(group)
        users = {pwd.getpwuid(user).pw_name for user in (owner, os.geteuid(), 0)}
    except KeyError:
        return False
    return known.gr_name in users and users.issuperset(known.gr_mem)


def strangers_below(folder: str) -> tuple[str, str]:
    """Who else than its owner may change what is in a folder, and whose it is if not ours.

    Looks at the folder and those below it, as whoever can write to none of them cannot put a file
    there. Empty where there is nothing to say.
    """
    owner = ""
    for path, _, _ in os.walk(folder):
        facts = os.lstat(path)
        found = writers(path, facts)
        if found:
            return found, owner
        if facts.st_uid not in (0, os.geteuid()):
            owner = owner or f"{path} belongs to user {facts.st_uid}"
    return "", owner
