"""The page's server: where it listens, its key, and its thread.

It listens on loopback. Anything else is refused, unless a key and a certificate are given: then all
that is said is encrypted, and only who has the key is answered. uvicorn speaks HTTP; what it loads
is loaded when a page is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Final, TypedDict, cast

from mars.errors import UsageError
from mars.sessions.session import Session
from mars.settings import PAGE_CONNECTIONS, PAGE_HEAD_BYTES, PAGE_HEAD_S
from mars.web.app import App, Receive, Scope, Send
from mars.web.facts import Facts
from mars.web.guard import hosts_of

_ACCEPTED: Final = frozenset({"host", "port", "token", "certificate", "key"})
_TOKEN_AT_LEAST: Final = 22  # 128 bit in base64


class _Options(TypedDict, total=False):
    host: str
    port: int
    token: str
    certificate: str
    key: str


class Page:
    """The page of one session. It listens from the beginning until `close`.

    Parameters
    ----------
    session : Session
        The session.
    options : mapping, optional
        ``host`` (default ``"127.0.0.1"``), ``port`` (default 0: a free one), ``token`` (default: a
        random one), ``certificate`` and ``key``: paths of PEM files.

    Raises
    ------
    UsageError
        An option is unknown, or it would listen beyond loopback without a key and a certificate.
    ImportError
        The extra ``web`` is not installed.
    OSError
        The port is taken.
    """

    def __init__(self, session: Session, options: Mapping[str, object] | None = None) -> None:
        given = cast("_Options", dict(options or {}))
        unknown = given.keys() - _ACCEPTED
        if unknown:
            raise UsageError(f"web= has no {min(unknown)!r}; it has {', '.join(sorted(_ACCEPTED))}")
        host = str(given.get("host", "127.0.0.1"))
        secure = "certificate" in given and "key" in given
        if not is_loopback(host) and not (secure and given.get("token")):
            raise UsageError(
                f"the page does not listen on {host}: beyond loopback it needs a token, a "
                f"certificate and its key, as in web={{'host': {host!r}, 'token': ..., "
                f"'certificate': 'page.pem', 'key': 'page.key'}}. From another machine, a tunnel "
                f"needs none of this: ssh -L 8000:127.0.0.1:PORT"
            )
        self.token = str(given.get("token") or secrets.token_urlsafe(32))
        if len(self.token) < _TOKEN_AT_LEAST or not self.token.isascii():
            raise UsageError(
                f"the token of web= has to have {_TOKEN_AT_LEAST} ASCII characters or more, as "
                f"secrets.token_urlsafe(32) makes one"
            )
        uvicorn, server, protocol = _load()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        config = uvicorn.Config(
            self._serve, http=protocol, interface="asgi3", ws="none",
            lifespan="off", log_config=None,
            access_log=False, server_header=False, date_header=False, proxy_headers=False,
            h11_max_incomplete_event_size=PAGE_HEAD_BYTES, timeout_keep_alive=10,
            timeout_graceful_shutdown=1, backlog=PAGE_CONNECTIONS,
            ssl_certfile=given.get("certificate"), ssl_keyfile=given.get("key"),
        )  # fmt: skip
        config.load()  # certificates are read here, before anything is open
        self._socket = socket.create_server((host, int(given.get("port", 0))), family=family)
        port = self._socket.getsockname()[1]
        self.scheme = "https" if secure else "http"
        name = f"[{host}]" if ":" in host else host
        self.address = f"{self.scheme}://{name}:{port}/"
        self.facts = Facts(session)
        self._app: App | None = None
        self._hosts = hosts_of(port, () if host in ("0.0.0.0", "::") else (name.lower(),))
        self._server = server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._closed = False
        session.runs.watcher = self.facts.index.watch
        self._session = session
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mars-page", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def link(self) -> str:
        """The address with the key. Browsers do not send the part behind ``#`` to anybody."""
        return f"{self.address}#key={self.token}"

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._app = App(self.facts, self._hosts, self.scheme, self.token)
        self._server.over = self._app.closing
        self._started.set()
        await self._server.serve(sockets=[self._socket])

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # the page ends, and a thread still adds up for somebody
            if not self._closed:
                raise

    def close(self) -> None:
        """Stop listening, and end the thread. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._session.runs.watcher = None
        loop, app = self._loop, self._app
        if loop is not None and app is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(app.closing.set)
        self._server.should_exit = True
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._socket.close()


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _load() -> tuple[ModuleType, type, type]:
    """uvicorn, its server that waits for its end, and its HTTP with limits for connections."""
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError as error:
        raise ImportError(
            f"the page needs the extra 'web', and {error.name} is not here: "
            f"pip install 'mars-remote[web]'"
        ) from error

    class Waiting(uvicorn.Server):
        """Does not look ten times a second whether it shall end: a look costs 0.1 ms."""

        over: asyncio.Event

        async def main_loop(self) -> None:
            await self.on_tick(0)  # sets the headers of all answers
            await self.over.wait()
            tasks = list(self.server_state.tasks)
            late = (await asyncio.wait(tasks, timeout=1))[1] if tasks else set()
            # uvicorn would say on stderr that it ends what is left for who does not read.
            for connection in list(self.server_state.connections):
                if connection.transport.get_write_buffer_size():
                    connection.transport.abort()
            for one in late:
                one.cancel()

    open_ones: dict[H11Protocol, None] = {}

    class Limited(H11Protocol):  # type: ignore[misc, unused-ignore]
        """Hangs up on who says nothing for long, or when there are too many."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(cast("asyncio.Transport", transport))
            if len(open_ones) >= PAGE_CONNECTIONS:
                silent = next((one for one in open_ones if one.cycle is None), self)
                silent.transport.abort()
            open_ones[self] = None
            self._late = self.loop.call_later(PAGE_HEAD_S, self._hang_up)

        def _hang_up(self) -> None:
            if self.cycle is None:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            open_ones.pop(self, None)
            self._late.cancel()
            super().connection_lost(exc)

    return uvicorn, Waiting, Limited


__all__ = ["Page", "is_loopback"]
