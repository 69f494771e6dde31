"""Where this user's pages are, for ``mars dashboard``, ``mars calls`` and ``mars logs``.

``$XDG_RUNTIME_DIR/mars/``, or ``$XDG_STATE_HOME/mars/pages/``, holds a file for each page, with its
address and key. Only the user can enter the folder and read the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from mars.deploy import private_files, records
from mars.errors import CredentialsError


class Whereabouts(NamedTuple):
    """One page: process and session that it shows, address, key, and certificate if it has one."""

    pid: int
    session: str
    address: str
    token: str
    certificate: str | None

    @property
    def link(self) -> str:
        """The address with the key, for a browser."""
        return f"{self.address}#key={self.token}"


def folder() -> Path:
    """Where the files are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "mars"
    return records.home().parent / "pages"


def note(page: Whereabouts) -> Path | None:
    """Write down where a page is; None if no private file can be written. The page works without.

    Parameters
    ----------
    page : Whereabouts
        The page.
    """
    try:
        name = f"{page.pid}-{os.urandom(6).hex()}.json"
        path = private_files.directory(folder()) / name
        return private_files.write_new(path, json.dumps(page._asdict()).encode())
    except (OSError, CredentialsError):
        return None


def everything() -> list[Whereabouts]:
    """The pages of this user. Files that a program left behind when it was killed are removed.

    Raises
    ------
    CredentialsError
        Other users may enter the folder, or have written a file in it.
    """
    found: list[Whereabouts] = []
    if not folder().exists():
        return found
    for path in sorted(private_files.directory(folder()).glob("*.json")):
        try:
            page = Whereabouts(**json.loads(private_files.read(path)))
            os.kill(page.pid, 0)  # does nothing but tell whether the process is there
        except (FileNotFoundError, ValueError, TypeError):
            continue
        except (ProcessLookupError, PermissionError):  # or the number is another user's by now
            path.unlink(missing_ok=True)
            continue
        found.append(page)
    return found


__all__ = ["Whereabouts", "everything", "folder", "note"]
