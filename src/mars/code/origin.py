"""Whose code something is: the project's own, or an installed module's."""

from __future__ import annotations

import functools
import os
import sys
from types import FunctionType, ModuleType
from typing import Final

_PACKAGE: Final = __name__.partition(".")[0]


_STANDARD_LIBRARY: Final = os.path.dirname(os.path.realpath(os.__file__)) + os.sep

_MISSING: Final = object()


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
    """Whether a module is the user's own: not installed, not the standard library, not mars.

    ``__main__`` is a matter of its own, and is not meant here.
    """
    if name is None or name == "__main__" or name.partition(".")[0] == _PACKAGE:
        return False
    path = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(path, str) and is_project_file(path)


def is_made_by_hand(name: str, module: object) -> bool:
    """Whether the program made a module itself, so that no worker could import it.

    Compiled code makes such modules, too, but puts no Python functions into them.
    """
    of_own_loader = _is_of_own_loader(module)
    of_own_class = isinstance(module, ModuleType) and _is_of_project(type(module))
    return (
        (type(module) is ModuleType or of_own_class)
        and ((_has_no_loader(module) and not hasattr(module, "__path__")) or of_own_loader)
        and not isinstance(getattr(module, "__file__", None), str)
        and name not in sys.builtin_module_names
        and ("." not in name or not is_installed_package(name.rpartition(".")[0]))
        and (of_own_class or of_own_loader or _has_functions(module))
    )


def _has_no_loader(module: object) -> bool:
    return getattr(getattr(module, "__spec__", None), "loader", None) is None


def _is_of_own_loader(module: object) -> bool:
    """Whether a loader of the program's made a module, which no worker has."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return loader is not None and _is_of_project(
        loader if isinstance(loader, type) else type(loader)
    )


def _is_of_project(kind: type) -> bool:
    module = module_of(kind)
    return module == "__main__" or (isinstance(module, str) and is_project_module(module))


def _has_functions(module: object) -> bool:
    """Whether a module, or a class in it, has Python functions of its own."""
    return any(
        getattr(value, "__globals__", None) is module.__dict__
        for kind in [module, *filter(_is_class, [*vars(module).values()])]
        for value in [*vars(kind).values()]
        if type(value) is FunctionType
    )


def _is_class(value: object) -> bool:
    return issubclass(type(value), type)


def is_installed_package(name: str) -> bool:
    """Whether a package is loaded that is not the project's."""
    if name not in sys.modules or is_project_module(name):
        return False
    package = sys.modules[name]
    if isinstance(getattr(package, "__file__", None), str):
        return True
    # One without an __init__.py is whose folders it has.
    folders = getattr(package, "__path__", ())
    return not any(isinstance(path, str) and is_project_file(path) for path in folders)


def module_of(value: object) -> object:
    """The name that a class or function gives as its module's; it may be anything."""
    try:
        return value.__module__
    except Exception:  # a class may answer as it likes
        return None


def found(module: object, qualname: str) -> object:
    """What a name in a module that is loaded leads to; nothing is imported."""
    value: object = sys.modules.get(module, _MISSING) if isinstance(module, str) else _MISSING
    for step in qualname.split("."):
        try:
            value = getattr(value, step, _MISSING)
        except Exception:  # a module, or a metaclass, that makes its attributes
            return _MISSING
    return value


def is_global(value: object) -> bool:
    """Whether a function or class is found under its name, and so lasts as long as its module."""
    name = getattr(value, "__qualname__", None)
    return isinstance(name, str) and found(module_of(value), name) is value
