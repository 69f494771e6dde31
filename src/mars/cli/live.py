"""Running sessions of this user, and what they answer. Called by modules of `mars.cli`.

Each program that has a session is found by its socket in a private folder, see `mars.web.desk`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mars.web.desk import address_in, enter, folder, is_mine

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_LIMIT_S: Final = 60.0
_LIST_LIMIT_S: Final = 5.0  # a program that was stopped does not hold up the others for long
_HOST: Final = os.uname().nodename


class Found(NamedTuple):
    """A running session: its id, its program, the name of the program's socket, and its page."""

    session: str
    pid: int
    program: str
    engine: str
    page: str | None
    socket: str


def add_session(parser: ArgumentParser) -> None:
    """Add the choice of a session."""
    parser.add_argument(
        "--session", metavar="ID", help="beginning of the session's id; default: the only one"
    )


def everything() -> list[Found]:
    """The sessions of all programs of this user on this host.

    Sockets of programs that were killed are removed.

    Raises
    ------
    OSError
        Other users may enter the folder.
    """
    found: list[Found] = []
    if not os.path.isdir(folder()):
        return found
    place = enter(folder())
    try:
        for name in sorted(os.listdir(place)):
            if not name.startswith(f"{_HOST}-") or not name.endswith(".sock"):
                continue
            try:
                (told,) = _asked(place, name, {"path": "/sessions"}, _LIST_LIMIT_S)
            except ConnectionRefusedError:  # nobody listens: its program was killed
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=place)
                continue
            except (OSError, ValueError):  # it ends just now, or is stopped
                continue
            found += [Found(**one, socket=name) for one in told]
    finally:
        os.close(place)
    return found


def chosen(options: Namespace) -> Found | None:
    """The session that was asked for. None: there is none, and a line says why."""
    try:
        sessions = everything()
    except OSError as error:
        print(error, file=sys.stderr)
        return None
    if options.session:
        sessions = [one for one in sessions if one.session.startswith(options.session)]
    if len(sessions) == 1:
        return sessions[0]
    if sessions:
        print("there are several sessions; choose one with --session:", file=sys.stderr)
        for one in sessions:
            print(f"  {one.session}  program {one.pid}: {one.program}", file=sys.stderr)
    else:
        print("no program of yours has a session of mars on this machine", file=sys.stderr)
    return None


Json = dict[str, Any]
"""What a session answers."""


def lines_of(found: Found, path: str, **query: object) -> Iterator[Json]:
    """What a session answers, line by line, decoded.

    Raises
    ------
    OSError
        It does not answer, has ended, or knows nothing of this.
    """
    place = enter(folder())
    try:
        yield from _asked(
            place, found.socket, {"session": found.session, "path": path, "query": query}
        )
    finally:
        os.close(place)


def ask(found: Found, path: str, **query: object) -> Json:
    """The only line of an answer. It raises what `lines_of` raises."""
    for line in lines_of(found, path, **query):
        return line
    raise ConnectionError("it has just ended")


def _asked(
    place: int, name: str, question: dict[str, object], limit_s: float = _LIMIT_S
) -> Iterator[Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address_in(place, name))  # waits for its turn, which a limit would not
        connection.settimeout(limit_s)
        if not is_mine(connection):
            raise PermissionError(f"{name} belongs to another user")
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as answer:
            for line in answer:
                if line == b"\n":
                    continue
                told = json.loads(line)
                if isinstance(told, dict) and "error" in told and len(told) == 1:
                    raise ConnectionError(told["error"])
                yield told


__all__ = ["Found", "add_session", "ask", "chosen", "everything", "lines_of"]
