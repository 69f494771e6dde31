"""Module names of the original: ``from mars.tensor.datasource import tensor``.

The original spread its functions over modules, and programs import some of them from there. Here
such a module is only a name: it has what its package has. `mars.tensor` and `mars.dataframe` call
this when they are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType


def stand_for(package: str, modules: Mapping[str, Mapping[str, str]]) -> None:
    """Make modules that have the names of a package.

    Parameters
    ----------
    package : str
        The package.
    modules : dict
        For each module, below the package, the names that the package has under other ones.
    """
    for name, renamed in modules.items():
        full = f"{package}.{name}"
        sys.modules.setdefault(full, _StandIn(full, package, renamed))


class _StandIn(ModuleType):
    """A module that has the names of a package."""

    def __init__(self, name: str, package: str, renamed: Mapping[str, str]) -> None:
        super().__init__(name, f"The names of `{package}`, under a name of the original.")
        self.__package__ = package
        self._of, self._renamed = package, renamed

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(sys.modules[self._of], self._renamed.get(name, name))


__all__ = ["stand_for"]
