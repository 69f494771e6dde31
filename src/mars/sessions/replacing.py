"""Closes sessions that a program has replaced and can no longer get at.

Somebody who runs a notebook cell with ``mars.new_session()`` again wants another session instead of
the one before. That one is not the default session any more, and if nothing refers to it, nobody
can ever use it or close it; but its worker processes are there. So it is closed, if both of these
hold:

- It was made for a person at a prompt or in a notebook, or at the same place of a program's main
  module as the session that has just been made.
- Nothing refers to it, except what a prompt or notebook keeps of earlier results by itself, and no
  call of it runs.

A session that a variable still holds is closed when the variable holds something else: in a
notebook after the cell, elsewhere with the next `new_session`. `mars.sessions.opening` calls this.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from mars.sessions.session import Session, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    class _Events(Protocol):
        def register(self, name: str, told: Callable[..., object], /) -> object: ...

    class _Shell(Protocol):
        """What IPython has for each session."""

        events: _Events


Place = tuple[str, int]
"""Where a session was made: a file and a line."""


def is_interactive() -> bool:
    """Whether a person types what runs."""
    return hasattr(sys, "ps1") or _shell() is not None


def _shell() -> _Shell | None:
    ipython = sys.modules.get("IPython")
    try:
        return ipython.get_ipython() if ipython is not None else None
    except Exception:  # a stand-in
        return None


def made(session: Session, place: Place | None) -> None:
    """A new default session was made; close those that it replaces.

    Parameters
    ----------
    session : Session
        The new one.
    place : tuple of (str, int) or None
        Where the program's main module made it. None: it was made somewhere else.
    """
    interactive = is_interactive()
    if interactive:
        _hook()
    sweep(place)
    if interactive or place is not None:
        opened.places[session.session_id] = None if interactive else place


def _hook() -> None:
    """Look for sessions that were left after each cell of a notebook."""
    shell = _shell()
    if shell is not None and shell is not opened.notebook:
        opened.notebook = shell
        shell.events.register("post_run_cell", lambda *_: sweep(None))


def sweep(place: Place | None) -> None:
    """Close sessions that nobody can get at.

    Parameters
    ----------
    place : tuple of (str, int) or None
        Where a session has just been made.
    """
    with opened.lock:
        known = [one for _, sessions in opened.engines.values() for one in sessions]
        there = {one.session_id for one in known}
        for gone in opened.places.keys() - there:
            del opened.places[gone]
        known = [one for one in known if _may_go(one, place)]
        unused = []
        while known:
            holder = [known.pop()]
            if _references(holder) - _of_history(holder[0]) <= _NONE:
                unused.append(holder[0])
    for session in unused:
        session.close()


def _may_go(session: Session, place: Place | None) -> bool:
    if session is opened.default or session.session_id not in opened.places:
        return False
    where = opened.places[session.session_id]
    if where is not None and where != place:
        return False
    return not any(run.session == session.session_id for run in session.engine.observe().runs)


def _references(holder: Sequence[object]) -> int:
    """How many refer to what a list holds; the list and the set of sessions among them."""
    return sys.getrefcount(holder[0])


def _of_history(session: Session) -> int:
    """How many of the references are those of earlier results, which a prompt keeps."""
    found = int(getattr(builtins, "_", None) is session)
    shell = _shell()
    if shell is None:
        return found
    names = getattr(shell, "user_ns", {})
    for known in (names, getattr(shell, "user_ns_hidden", {})):
        found += sum(
            value is session
            for name, value in list(known.items())
            if name.startswith("_") and (not name.strip("_") or name[1:].isdigit())
        )
    found += sum(value is session for value in list(names.get("_oh", {}).values()))
    shown = getattr(shell, "displayhook", None)
    found += sum(value is session for value in list(getattr(shown, "__dict__", {}).values()))
    last = getattr(shell, "last_execution_result", None)
    return found + int(getattr(last, "result", None) is session)


def _references_of_one_that_nobody_has(count: Callable[[Sequence[object]], int]) -> int:
    """What `_references` gives for an object that only a set and its argument hold."""

    class Probe:
        pass

    kept = {Probe()}
    holder = list(kept)
    return count(holder)


_NONE: Final = _references_of_one_that_nobody_has(_references)

__all__ = ["Place", "is_interactive", "made", "sweep"]
