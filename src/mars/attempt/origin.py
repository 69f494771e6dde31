"""Whose code something is: the project's own, which travels by value, or an installed module's."""

from __future__ import annotations

import functools
import os
import sys
from types import CodeType
from typing import Any, Final

_PACKAGE: Final = __name__.partition(".")[0]


_STANDARD_LIBRARY: Final = os.path.dirname(os.path.realpath(os.__file__)) + os.sep


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    import sysconfig  # 2 ms, and most programs have one file and need none of this

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in names})


@functools.cache
def is_project_file(path: str) -> bool:
    """Whether a source file is the user's own."""
    if path.startswith("<") or "site-packages" in path or "dist-packages" in path:
        return False
    path = os.path.realpath(path)
    return not path.startswith(_STANDARD_LIBRARY) and not path.startswith(_installed_folders())


def is_project_module(name: str | None) -> bool:
    """Whether a module is the user's own: not installed, not the standard library, not mars."""
    if name is None or name == "__main__" or name.partition(".")[0] == _PACKAGE:
        return False  # cloudpickle takes __main__ by value itself
    path = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(path, str) and is_project_file(path)


def is_installed(value: Any) -> bool:
    """Whether a function or class is found under its name in an installed module."""
    if value.__module__ == "__main__" or is_project_module(value.__module__):
        return False
    found: Any = sys.modules.get(value.__module__)
    for step in value.__qualname__.split("."):
        found = getattr(found, step, None)
    return found is value


def names_in(code: CodeType) -> list[str]:
    """Global names that code may look up, of nested functions too (and some attribute names)."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(names_in(constant)))
    return list(names)
