"""The page's routes. Facts are read in threads, so that a slow one holds nobody up.

Events are snapshots, made when the reader has taken the one before. So nothing piles up for a
client that never reads, and one that comes back is up to date with its first event.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

from mars.logs import LogSource, escape_control
from mars.settings import (
    PAGE_FREE_SHARE,
    PAGE_LATE_S,
    PAGE_LOG_BYTES,
    PAGE_SHARE,
    PAGE_STALL_S,
    PAGE_STREAMS,
    PAGE_TICK_S,
)
from mars.task import Call
from mars.web.facts import Facts, log_part
from mars.web.graph import Json
from mars.web.guard import SECURITY_HEADERS, refusal
from mars.web.index import is_flood

Scope = MutableMapping[str, Any]
"""A request, or an event of one, as ASGI describes it."""
Send = Callable[[Scope], Awaitable[None]]
Receive = Callable[[], Awaitable[Scope]]

T = TypeVar("T")

_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/graph.js": ("graph.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class App:
    """The page of one session, as an ASGI application.

    Parameters
    ----------
    facts : Facts
        What it tells.
    hosts : frozenset of str
        As of `mars.web.guard.hosts_of`.
    scheme : str
        ``"http"`` or ``"https"``.
    token : str
        Its key.
    """

    def __init__(self, facts: Facts, hosts: frozenset[str], scheme: str, token: str) -> None:
        self._facts, self._hosts, self._scheme, self._token = facts, hosts, scheme, token
        self._files: dict[str, bytes] = {}
        self._streams = 0
        self.closing = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # uvicorn answers with 403
            return
        if scope["type"] != "http":
            return
        refused = refusal(scope, self._hosts, self._scheme, self._token)
        if refused is not None:
            status, why = refused
            await _answer(send, status, json.dumps({"error": why}).encode(), "application/json")
            return
        query = {
            name: values[0]
            for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()
        }
        path = scope["path"]
        if path in _FILES:
            name, kind = _FILES[path]
            if name not in self._files:
                static = files("mars.web").joinpath("static", name)
                self._files[name] = static.read_bytes()
            await _answer(send, 200, self._files[name], kind)
        elif path == "/api/events":
            await self._stream(send, self._overviews())
        elif path == "/api/log":
            await self._log(scope, send, query.get("call", ""))
        elif path == "/metrics":
            await self._metrics(send)
        else:
            await self._json(send, path, query)

    async def _json(self, send: Send, path: str, query: dict[str, str]) -> None:
        began = time.monotonic()
        found, used_s = await asyncio.to_thread(
            _with_time,
            lambda: json.dumps(self._facts.answer(path, query), separators=(",", ":")).encode(),
        )
        if found == b"null":
            await _answer(send, 404, b'{"error": "it is not known"}', "application/json")
        else:
            rest_s = self._rest_after(used_s, time.monotonic() - began)
            await _answer(send, 200, found, "application/json", f"{rest_s:.3f}")

    def _rest_after(self, used_s: float, took_s: float) -> float:
        """How long a window waits before it asks for the same again, in seconds.

        In a flood of calls others want the interpreter, so the time that it took counts, by the
        clock. Else only the processor time does, as a busy machine must not make windows late.
        """
        if not self._facts.busy:
            return 0.0
        flood = is_flood(self._facts.index.behind)
        return took_s / PAGE_SHARE if flood else used_s / PAGE_FREE_SHARE

    async def _metrics(self, send: Send) -> None:
        from mars.web.metrics import text_of

        try:
            body = await asyncio.to_thread(text_of, self._facts)
        except ImportError:
            why = b'{"error": "pip install prometheus-client"}'
            await _answer(send, 501, why, "application/json")
            return
        await _answer(send, 200, body, "text/plain; version=0.0.4; charset=utf-8")

    # -- events -------------------------------------------------------------------------------

    async def _overviews(self) -> AsyncIterator[bytes]:
        while True:
            began = time.monotonic()
            (told, event), used_s = await asyncio.to_thread(_with_time, self._overview)
            yield event
            if not told["runs"]:
                await self._pause(PAGE_TICK_S)
            elif is_flood(told["behind"]):
                await self._rest(used_s)
            else:  # it takes long where others want the interpreter or the cores
                await self._pause(_between(time.monotonic() - began))

    def _overview(self) -> tuple[Json, bytes]:
        told = self._facts.overview()
        return told, _event("overview", told)

    async def _rest(self, used_s: float) -> None:
        """Leave a flood of calls its part of the program's processor time, but not for long."""
        until_s, late = time.process_time() + used_s / PAGE_SHARE, time.monotonic() + PAGE_LATE_S
        while True:
            await self._pause(PAGE_TICK_S)
            had = time.process_time() >= until_s or time.monotonic() > late
            if had or not self._facts.busy or self.closing.is_set():
                return

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.closing.wait(), seconds)
        except TimeoutError:
            return

    async def _log(self, scope: Scope, send: Send, key: str) -> None:
        call = await asyncio.to_thread(self._facts.index.find, key)
        if call is None:
            await _answer(send, 404, b'{"error": "it is not known"}', "application/json")
            return
        headers = dict(scope["headers"])
        last = headers.get(b"last-event-id", b"")
        start = int(last) if last.isdigit() and len(last) < 16 else None
        if hasattr(call, "count"):
            await self._stream(send, self._map_lines(call))
        else:
            await self._stream(send, self._log_parts(call, start))

    async def _log_parts(self, call: Call, start: int | None) -> AsyncIterator[bytes]:
        """The log of a call from its last part on, then what comes; ids are places in the log."""
        source: LogSource = self._facts.session.logs.to_come(call)
        place = start or 0
        if start is None:
            size = await asyncio.to_thread(source.size)
            place = max(0, size - PAGE_LOG_BYTES)
            if place:
                yield _event("gap", {"bytes": place})
        while True:
            over, text, place = await asyncio.to_thread(log_part, source, place)
            if text:
                yield _event("log", {"text": text}, place)
            elif over:
                yield _event("end", {})
                return
            else:
                yield b": still here\n\n"
                await self._pause(PAGE_TICK_S)

    async def _map_lines(self, call: Call) -> AsyncIterator[bytes]:
        """The lines of all items of a map, each behind its name."""
        (feed,) = self._facts.session.logs.feeds([(call.name, call)])
        yield _event("again", {})
        while True:
            lines, over = await asyncio.to_thread(feed.look)
            for at in range(0, len(lines), 500):
                text = "".join(f"{name} │ {line}\n" for name, line in lines[at : at + 500])
                yield _event("log", {"text": escape_control(text)})
            if over:
                yield _event("end", {})
                return
            yield b": still here\n\n"
            await self._pause(PAGE_TICK_S)

    async def _stream(self, send: Send, events: AsyncIterator[bytes]) -> None:
        if self._streams >= PAGE_STREAMS:
            await _answer(send, 503, b'{"error": "too many windows"}', "application/json")
            return
        self._streams += 1
        try:
            await send(_head(200, "text/event-stream; charset=utf-8"))
            async for one in events:
                # A reader that has gone, or takes nothing, ends here, and the server hangs up.
                async with asyncio.timeout(PAGE_STALL_S):
                    await send({"type": "http.response.body", "body": one, "more_body": True})
                if self.closing.is_set():
                    break
            await send({"type": "http.response.body", "body": b""})
        except (TimeoutError, OSError):
            return
        finally:
            self._streams -= 1


def _with_time(make: Callable[[], T]) -> tuple[T, float]:
    """What is made, and the processor time of this thread that it took, in seconds."""
    begun_s = time.thread_time()
    made = make()
    return made, time.thread_time() - begun_s


def _between(took_s: float) -> float:
    """Seconds until the next event, after one that took so long to tell."""
    return min(max(PAGE_TICK_S, took_s / PAGE_FREE_SHARE), PAGE_LATE_S)


def _event(kind: str, value: object, number: int | None = None) -> bytes:
    head = f"event: {kind}\n" + ("" if number is None else f"id: {number}\n")
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def _head(status: int, kind: str) -> Scope:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", kind.encode()), *SECURITY_HEADERS],
    }


async def _answer(
    send: Send, status: int, body: bytes, kind: str, rest_s: str | None = None
) -> None:
    head = _head(status, kind)
    if rest_s is not None:
        head["headers"].append((b"x-rest", rest_s.encode()))
    head["headers"].append((b"content-length", str(len(body)).encode()))
    await send(head)
    await send({"type": "http.response.body", "body": body})


__all__ = ["App"]
