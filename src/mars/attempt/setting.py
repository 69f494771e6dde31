"""One thing that a program sets in its process and that its calls find, too.

A `Setting` has two ends: the program's looks what is set, the worker's sets it before the next
call, and puts back what a call has changed. Which things these are stands in `followed`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Final

_IMPORTING: Final = "<frozen importlib._bootstrap>"

PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types whose values mean the same in every process."""


class Setting:
    """How to look at one thing that a program can set, and how to set it.

    Parameters
    ----------
    name : str
        What it is called between the two ends.
    look : callable
        Gives a value that is cheap to compare; may raise whatever a foreign library raises.
    put : callable
        Sets what ``look`` gave, or what ``told`` made of it.
    library : str, optional
        The module whose option it is.
    told : callable, optional
        Makes of what ``look`` gave a plain value, which means the same elsewhere.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], object],
        put: Callable[..., object],
        library: str = "",
        told: Callable[..., object] | None = None,
    ) -> None:
        self.name, self.library = name, library
        self.look, self._put, self._as_told = look, put, told
        self._seen: tuple[object, object] = None, None  # here at last, and as told
        self._told: object = None  # by the program; None: nothing
        self._kept: object = None  # as calls should find it; of what type, each setting knows
        self._begun = False  # the library is loaded, and `_kept` is known

    # The program's end.

    def found(self) -> object:
        """What is set here, the same object until it changes; None: the library is not known."""
        try:
            now = self.look()
            seen, told = self._seen  # threads may be here at once
            if now != seen:
                told = now if self._as_told is None else self._as_told(now)
                self._seen = now, told
            return told
        except Exception:  # half imported in another thread, or not the library that we know
            return None

    # The worker's end.

    def begin(self) -> None:
        """The library is loaded: what was told before counts now."""
        self._begun = True
        self._set()

    def follow(self, told: object) -> None:
        """The program has set this."""
        if told != self._told:
            self._told = told
            if self._begun:
                self._set()

    def changed(self) -> bool:
        """Whether a call has left something else."""
        return self._begun and self._now() != self._kept

    def restore(self) -> None:
        """Have it again as calls should find it."""
        self._try(self._kept)
        self._kept = self._now()

    def _set(self) -> None:
        if self._told is not None:
            self._try(self._told)
        self._kept = self._now()

    def _now(self) -> object:
        try:
            return self.look()
        except Exception:  # a call has put something there that is none
            return None

    def _try(self, value: object) -> None:
        try:
            self._put(value)
        except Exception:  # a locale that this node lacks, an option of another version
            return


def importing() -> bool:
    """Whether the calling code runs because a module is being imported."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


_last_path: list[str] = []


def import_path() -> list[str]:
    """``sys.path`` without what Python ignores in it: it may hold anything.

    The same list as long as nothing changes, so nobody may change it.
    """
    global _last_path
    path = getattr(sys, "path", None)
    if type(path) is list:
        if path == _last_path:
            return _last_path
        for entry in path:
            if type(entry) is not str:
                break
        else:
            _last_path = list(path)
            return _last_path
    if not isinstance(path, Iterable):
        return []
    # Of a subclass of `str` the text, as its class may not be known elsewhere.
    return [str.__str__(entry) for entry in path if isinstance(entry, str)]
