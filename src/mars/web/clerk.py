"""Answers what the `mars` commands ask at the socket of `mars.web.desk`. Loaded when they ask."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Final, cast

from mars.logs import LogSource, escape_control
from mars.sessions.session import Session, opened
from mars.settings import DESK_ADVANCE_S, PAGE_TICK_S
from mars.web.facts import Facts, log_part

_known: Final[weakref.WeakKeyDictionary[Session, Facts]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def answers(asked: bytes) -> Iterator[bytes]:
    """The lines that answer a line of a client.

    Parameters
    ----------
    asked : bytes
        JSON: an object with ``path`` and, but for ``/sessions``, ``session``; ``query`` if needed.
    """
    try:
        what = json.loads(asked)
        path, query = str(what["path"]), dict(what.get("query") or {})
    except (ValueError, TypeError, KeyError):
        yield _line({"error": "this is not understood; is it another version of mars?"})
        return
    if path == "/sessions":
        yield _line([_described(one) for one in _sessions()])
        return
    session = next((one for one in _sessions() if one.session_id == what.get("session")), None)
    if session is None:
        yield _line({"error": "this session is closed"})
        return
    facts = facts_of(session)
    facts.index.advance(DESK_ADVANCE_S)
    if path == "/api/log":
        yield from _log(facts, str(query.get("call", "")), bool(query.get("follow")))
        return
    yield _line(facts.answer(path, {name: str(value) for name, value in query.items()}))


def facts_of(session: Session) -> Facts:
    """What there is to say of a session: what its page has, or what is found from now on."""
    if session.page is not None:
        return cast("Facts", session.page.facts)
    with _lock:
        known = _known.get(session)
        if known is None:
            known = _known[session] = Facts(session)
            known.index.begin_late(session)
        return known


def _sessions() -> list[Session]:
    with opened.lock:
        return [one for _, sessions in opened.engines.values() for one in sessions]


def _described(session: Session) -> dict[str, object]:
    return {
        "session": session.session_id, "pid": os.getpid(), "program": " ".join(sys.argv)[:500],
        "engine": session.address, "page": session.get_web_endpoint(),
    }  # fmt: skip


def _log(facts: Facts, key: str, follow: bool) -> Iterator[bytes]:
    """A log from its beginning, in parts: ``{"text": ...}``."""
    call = facts.index.find(key)
    if call is None:
        yield _line({"error": "the program has let go of this call, and of its log"})
        return
    if hasattr(call, "count"):
        (feed,) = facts.session.logs.feeds([(call.name, call)])
        while True:
            lines, over = feed.look()
            text = "".join(f"{name} │ {line}\n" for name, line in lines)
            yield _line({"text": escape_control(text)})
            if over or not follow:
                return
            time.sleep(PAGE_TICK_S)
    source: LogSource = facts.session.logs.to_come(call)
    place = 0
    while True:
        over, text, place = log_part(source, place)
        if text:
            yield _line({"text": text})
        elif over or not follow:
            return
        else:
            yield b"\n"  # finds out whether somebody is still there
            time.sleep(PAGE_TICK_S)


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


__all__ = ["answers", "facts_of"]
