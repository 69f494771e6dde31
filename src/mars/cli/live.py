"""Sessions of this user that have a page, and what they answer. Called by modules of `mars.cli`."""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mars.errors import CredentialsError
from mars.web.whereabouts import Whereabouts, everything

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_session(parser: ArgumentParser) -> None:
    """Add the choice of a session."""
    parser.add_argument(
        "--session", metavar="ID", help="beginning of the session's id; default: the only one"
    )


def chosen(options: Namespace) -> Whereabouts | None:
    """The page of the session that was asked for. None: there is none, and a line says why."""
    try:
        pages = everything()
    except CredentialsError as error:
        print(error, file=sys.stderr)
        return None
    if options.session:
        pages = [one for one in pages if one.session.startswith(options.session)]
    if len(pages) == 1:
        return pages[0]
    if pages:
        print("several sessions have a page; choose one with --session:", file=sys.stderr)
        for one in pages:
            print(f"  {one.session}  program {one.pid}, {one.address}", file=sys.stderr)
    else:
        print("no session of yours has a page here; new_session(web=True) opens one",
              file=sys.stderr)  # fmt: skip
    return None


def lines_of(page: Whereabouts, path: str) -> Iterator[str]:
    """The lines of an answer of the page, as they come.

    Raises
    ------
    OSError
        The page does not answer, or knows nothing of this.
    """
    asked = urllib.request.Request(  # noqa: S310 - the address comes from a private file
        page.address.rstrip("/") + path, headers={"Authorization": f"Bearer {page.token}"}
    )
    context = None
    if page.certificate is not None:
        context = ssl.create_default_context(cafile=page.certificate)
    # No proxy: the page is on this machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(asked, timeout=60) as answer:
        for line in answer:
            yield line.decode("utf-8").rstrip("\n")


def ask(page: Whereabouts, path: str) -> Any:
    """What the page answers, decoded. It raises what `lines_of` raises."""
    return json.loads("".join(lines_of(page, path)))


__all__ = ["add_session", "ask", "chosen", "lines_of"]
