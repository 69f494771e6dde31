"""Tags of classes and functions that travel by value: theirs alone in all processes.

A copy has the tag of what it was copied from.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref

_here: str = ""
_count = 0
_tags: dict[int, tuple[weakref.ref[object], str]] = {}
_tagged: dict[str, weakref.ref[object]] = {}
lock = threading.Lock()


def _process() -> str:
    """What the tags of this process begin with."""
    global _here
    if not _here:
        _here = os.urandom(8).hex()
    return _here


def _renew() -> None:
    """A process that was forked gives tags of its own."""
    global _here, lock
    _here, lock = "", threading.Lock()


os.register_at_fork(after_in_child=_renew)


def note(value: object, tag: str, *, of_a_world: bool) -> None:
    """Something has a tag from here on; whoever calls this holds `lock`.

    What belongs to a world is not found by its tag here, but by that world only. In the program
    itself it would be the copy of a call, below other copies.
    """
    if tag.startswith("@"):
        return  # a name, of something that cannot be referred to weakly
    key = id(value)
    reference = weakref.ref(value, functools.partial(_forget, _tags, _tagged, key, tag))
    _tags[key] = reference, tag
    if not of_a_world:
        _tagged.setdefault(tag, reference)


def _forget(
    tags: dict[int, tuple[weakref.ref[object], str]],
    tagged: dict[str, weakref.ref[object]],
    key: int,
    tag: str,
    gone: object,
) -> None:
    """Something is gone; at the end of a program the names of this module may be, too."""
    known = tags.get(key)
    if known is not None and known[0] is gone:
        del tags[key]
    if tagged.get(tag) is gone:
        del tagged[tag]


def known(value: object) -> str | None:
    """The tag of something; None: it has none."""
    found = _tags.get(id(value))
    return found[1] if found is not None and found[0]() is value else None


def tagged(tag: str) -> object:
    """What has a tag here; None: nothing that is still there."""
    reference = _tagged.get(tag)
    return None if reference is None else reference()


def new() -> str:
    """A tag that nothing else has; whoever calls this holds `lock`."""
    global _count
    _count += 1
    return f"{_process()}.{_count}"


def is_of_this_process(tag: str) -> bool:
    """Whether a tag was given here, or in a process that this one was forked from."""
    return bool(_here) and tag.startswith(_here)
