"""Keeps frames of ours out of the tracebacks that programs see.

An error of a call comes with the frames of the user's function. Between the line of the program
that asked for it and these frames, nothing of ours helps anybody. So each function that a program
calls to execute or to fetch catches what passes, has `trim` cut these frames away, and raises it
on. Errors that are bugs of ours keep all frames. Pure.
"""

from __future__ import annotations

import os
from typing import Final

from mars.errors import InternalError

_OURS: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_WAITING: Final = (
    os.path.join(os.path.dirname(os.__file__), "threading.py"),
    os.path.join(os.path.dirname(os.__file__), "concurrent", "futures", "_base.py"),
)
"""Files of the standard library in which we wait, or keep the result of a future."""


def trim(error: BaseException) -> None:
    """Cut our frames from the front of the traceback of an error that is about to be raised on.

    Parameters
    ----------
    error : BaseException
        What was caught. After this, a bare ``raise`` adds at most one frame of ours.
    """
    if isinstance(error, InternalError):
        return
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith(_OURS) and file not in _WAITING:
            break
        traceback = traceback.tb_next
    error.__traceback__ = traceback


__all__ = ["trim"]
