"""Who watches the program: a notebook, a terminal, or nobody.

Small, because a session asks it before anything is shown. Nothing is imported for a question.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # known to type checkers; `typing` itself would cost 8 ms to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs us. Asks IPython only if somebody else has loaded it."""
    ipython = sys.modules.get("IPython")
    try:
        shell = ipython.get_ipython() if ipython is not None else None
    except Exception:
        return False
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except Exception:  # closed, or a stand-in that lacks it
        return False


def is_watched() -> bool:
    """Whether somebody most likely looks at what the program writes to stderr."""
    return is_terminal(sys.stderr) or in_notebook()


def has_colour(stream: TextIO | None, environ: Mapping[str, str] | None = None) -> bool:
    """Whether to show colours: on a terminal and in a notebook, unless ``NO_COLOR`` is set."""
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR"):
        return False
    if in_notebook():
        return True
    return environ.get("TERM", "").lower() not in ("dumb", "unknown") and is_terminal(stream)


def is_logged() -> bool:
    """Whether the program has set a level for the logger ``mars``, and its lines go somewhere.

    A program that logs at INFO for its own sake is not told of each of its runs.
    """
    logging: object = sys.modules.get("logging")
    if logging is None or not hasattr(logging, "getLogger"):
        return False
    logger = logging.getLogger("mars")
    return bool(logger.level and logger.isEnabledFor(20) and logger.hasHandlers())  # INFO


__all__ = ["has_colour", "in_notebook", "is_logged", "is_terminal", "is_watched"]
