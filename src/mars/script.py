"""`mars.remote.run_script`: a whole script as a call."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def read(script: str | os.PathLike[str] | IO[str] | IO[bytes]) -> tuple[str, str]:
    """Text and name of a script given as a path or a file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    if isinstance(script, (str, os.PathLike)):
        with open(script, encoding="utf-8") as file:
            return file.read(), os.fspath(script)
    if not hasattr(script, "read"):
        raise TypeError(f"script has to be a path or a file, got {type(script).__name__}")
    content = script.read()
    text = content.decode("utf-8") if isinstance(content, bytes) else str(content)
    name = getattr(script, "name", "<script>")
    return text, name if isinstance(name, str) else "<script>"


def run(
    text: str, name: str, rank: int, size: int, data: Mapping[str, object], argv: tuple[str, ...]
) -> dict[str, str]:
    """Run the script in this process, which is as it was before when it ends."""
    from mars.sessions.opening import get_default_session

    environ = {"RANK": str(rank), "WORLD_SIZE": str(size)}
    before = {key: os.environ.get(key) for key in environ}
    argv_before = sys.argv
    os.environ.update(environ)
    sys.argv = ["script", *argv]
    try:
        exec(
            compile(text, name, "exec"),
            {"__name__": "__main__", "__file__": name, "session": get_default_session(), **data},
        )
    except SystemExit as end:  # as many scripts end
        if end.code not in (None, 0):
            raise
    finally:
        sys.argv = argv_before
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
    return {"status": "ok"}


def status(copies: list[dict[str, str]]) -> dict[str, str]:
    """What the caller gets once all copies have ended."""
    return copies[0]
