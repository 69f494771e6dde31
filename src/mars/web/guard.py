"""Who may ask the page for what. Pure.

Every request passes `refusal` before anything else looks at it. All rules are lists of what is
allowed. The key comes in a header, never as a cookie: browsers send the cookies of one port of a
host to all of its ports, so another program on this machine would be given it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mars.settings import PAGE_BODY_BYTES, PAGE_HEAD_BYTES

Headers = Iterable[tuple[bytes, bytes]]

SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Every answer has these, refusals, too."""

OPEN: Final = frozenset({"/", "/page.js", "/graph.js", "/page.css", "/icon.svg"})
"""What may be read without a key. Nothing of the program is in it."""

CHANGES: Final = frozenset({"/api/cancel"})
"""What changes something. All else is only read."""


def hosts_of(port: int, names: Iterable[str] = ()) -> frozenset[str]:
    """The values that the header ``Host`` may have.

    Parameters
    ----------
    port : int
        Where the page listens.
    names : iterable of str, optional
        What the page was told to listen on, beyond loopback.
    """
    allowed = ("127.0.0.1", "localhost", "[::1]", *names)
    return frozenset(f"{name}:{port}" for name in allowed)


def refusal(
    scope: Mapping[str, Any], hosts: frozenset[str], origin_scheme: str, token: str
) -> tuple[int, str] | None:
    """Why a request is refused: the status and a sentence. None: it may go on.

    Parameters
    ----------
    scope : mapping
        The request, as ASGI describes it.
    hosts : frozenset of str
        As of `hosts_of`.
    origin_scheme : str
        ``"http"`` or ``"https"``.
    token : str
        The key of the page.
    """
    found: dict[bytes, list[bytes]] = {}
    size = 0
    for name, value in scope.get("headers", ()):
        found.setdefault(name.lower(), []).append(value)
        size += len(name) + len(value)
    if size > PAGE_HEAD_BYTES:
        return 431, "the head of the request is too large"
    if any(len(found.get(name, ())) > 1 for name in (b"host", b"origin", b"authorization")):
        return 400, "a header came twice"
    host = found.get(b"host", [b""])[0].decode("latin-1").lower()
    if host not in hosts:
        return 403, "this page answers to its own address only"
    if scope["type"] != "http":
        return 403, "there are no web sockets here"
    path, method = scope["path"], scope["method"]
    origin = found.get(b"origin")
    if origin is not None and origin[0].decode("latin-1").lower() != f"{origin_scheme}://{host}":
        return 403, "another site may not ask this page"
    site = found.get(b"sec-fetch-site", [b"none"])[0]
    if site not in (b"same-origin", b"none") and not (
        path == "/" and found.get(b"sec-fetch-mode") == [b"navigate"]
    ):
        return 403, "another site may not ask this page"
    if method != ("POST" if path in CHANGES else "GET"):
        return 405, "this method is not used here"
    length = found.get(b"content-length", [b"0"])[0]
    if b"transfer-encoding" in found or not length.isdigit() or int(length) > PAGE_BODY_BYTES:
        return 413, "the request is too large"
    if path in OPEN:
        return None
    given = found.get(b"authorization", [b""])[0]
    if not hmac.compare_digest(given, b"Bearer " + token.encode()):
        return (
            401,
            "the key of the page is missing or wrong; session.get_web_endpoint() has it",
        )
    return None
