"""Settings of the program's process that its calls have, too, such as its recursion limit.

One list with two ends. The program's end, `Program`, looks at all of it before each run, which
takes a few microseconds, and gives the same object as long as nothing has changed. The worker's
end, `Followed`, sets it before the next call, and puts back what a call has changed of it.

Options of a library count once the library is loaded. A worker that has not loaded it yet sets
them at the end of its import, so nothing is imported for their sake.

Called by the engines in the program, and by `ambient` in a worker. What is not followed stands in
docs/guide.md under "Inside a call".
"""

from __future__ import annotations

import _locale
import _socket  # `socket` itself is loaded by few calls
import gc
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from mars.attempt.filters import Filters
from mars.attempt.libraries import library_settings
from mars.attempt.loggers import Logging
from mars.attempt.setting import PLAIN, Setting, importing
from mars.code import world

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Surroundings = tuple[list[str], str, dict[bytes, bytes | None], dict[str, object]]
    """What calls have of the program: its import path, its folder, the variables that it has
    changed (None: removed), and its settings, which `Program` has found."""


class _Recursion(Setting):
    """The recursion limit. What a module sets while it is imported stays, as it stays imported."""

    _kept: int

    def __init__(self) -> None:
        self._set_limit = sys.setrecursionlimit
        self._imported = 0  # the highest that a module has set
        super().__init__("recursion limit", sys.getrecursionlimit, self._put_limit)

    def begin(self) -> None:
        super().begin()
        sys.setrecursionlimit = self._on_set

    def _put_limit(self, limit: int) -> None:
        self._set_limit(max(limit, self._imported))

    def _on_set(self, limit: int, /) -> None:
        self._set_limit(limit)
        if importing():
            self._imported = max(self._imported, limit)
            self._kept = max(self._kept, limit)


_Interpreter = tuple[int, float, bool, tuple[int, int, int], bool]


def _argv() -> list[object] | None:
    found = getattr(sys, "argv", None)
    return list(found) if isinstance(found, list | tuple) else None


def _words(argv: list[object] | None) -> list[object] | None:
    if argv is None:
        return None
    return [one if type(one) in PLAIN else str(one) for one in argv]


def _set_argv(value: list[str]) -> None:
    sys.argv = list(value)


def _interpreter() -> _Interpreter:
    """What is a number or a switch, read together, as this is asked for before each run."""
    return (
        sys.get_int_max_str_digits(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold(),
        sys.dont_write_bytecode,
    )  # fmt: skip


def _set_interpreter(value: _Interpreter) -> None:
    digits, interval, collects, thresholds, sys.dont_write_bytecode = value
    sys.set_int_max_str_digits(digits)
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)
    (gc.enable if collects else gc.disable)()


def _locale_now() -> str:
    return _locale.setlocale(_locale.LC_ALL, None)


def _set_locale(value: str) -> None:
    _locale.setlocale(_locale.LC_ALL, value)


def _main_file() -> str | None:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path if type(path) is str else None


def _always() -> tuple[object, ...]:
    """What is there without any library, as one value: it is asked for at each single submit."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    argv = getattr(sys, "argv", None)
    return (
        path if type(path) is str else None,
        argv[:] if type(argv) is list else _argv(),
        sys.getrecursionlimit(), sys.get_int_max_str_digits(), sys.getswitchinterval(),
        gc.isenabled(), gc.get_threshold(), sys.dont_write_bytecode,
        warnings.filters[:], _socket.getdefaulttimeout(),
    )  # fmt: skip


_LOOKED_AT_BY_ALWAYS: Final = frozenset(
    {"main", "argv", "recursion limit", "interpreter", "warnings", "socket"}
)


def _settings() -> list[Setting]:
    return [
        Setting("main", _main_file, world.set_main_file),
        Setting("argv", _argv, _set_argv, told=_words),
        _Recursion(),
        Setting("interpreter", _interpreter, _set_interpreter),
        Setting("locale", _locale_now, _set_locale),
        Filters(),
        Logging(),
        *library_settings(),
    ]


# -- the two ends ---------------------------------------------------------------------------------


class Program:
    """The program's end."""

    def __init__(self) -> None:
        self._settings = _settings()
        self._looks: list[Callable[[], object]] = []  # of what is loaded
        self._modules = 0  # how many were loaded then
        self._known: tuple[object, dict[str, object]] = None, {}

    def look(self) -> dict[str, object]:
        """All that is set: the same object until something changes."""
        loaded = sys.modules
        seen, known = self._known  # threads may be here at once
        if len(loaded) != self._modules:
            self._modules = len(loaded)
            self._looks = [
                setting.look
                for setting in self._settings
                if (not setting.library or setting.library in loaded)
                and setting.name not in _LOOKED_AT_BY_ALWAYS
                # To ask C for it takes as long as all else. Nobody sets it but with this module.
                and (setting.name != "locale" or "locale" in loaded)
            ]
        try:
            now: object = _always(), [look() for look in self._looks]
            if now == seen:
                return known
        except Exception:  # a library is not what we know, or half imported in another thread
            now = None
        found = {
            setting.name: setting.found()
            for setting in self._settings
            if not setting.library or setting.library in loaded
        }
        found = {name: one for name, one in found.items() if one is not None}
        self._known = now, known if found == known else found
        return self._known[1]


class Followed:
    """The worker's end. Made in the main thread, before any call."""

    def __init__(self) -> None:
        self._settings = {setting.name: setting for setting in _settings()}
        waiting = {}
        for setting in self._settings.values():
            if setting.library and setting.library not in sys.modules:
                waiting[setting.library] = setting.begin
            else:
                setting.begin()
        sys.meta_path.insert(0, _Watch(waiting))  # type: ignore[arg-type]

    def follow(self, told: Mapping[str, object]) -> None:
        """The program has set this."""
        for name, setting in self._settings.items():
            setting.follow(told.get(name))

    def changed(self) -> bool:
        """Whether a call has left something else; takes 2 us, more with libraries loaded."""
        return any(setting.changed() for setting in self._settings.values())

    def restore(self, _: object = None) -> None:
        """Have all of it again as calls should find it."""
        for setting in self._settings.values():
            if setting.changed():
                setting.restore()


class _Watch:
    """Says when one of some modules has been imported; asked by Python for each that is."""

    def __init__(self, waiting: dict[str, Callable[[], object]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._waiting:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._waiting, name)
                found: ModuleSpec = spec
                return found
        return None


class _Loader:
    """Loads as another loader does, which is the module's from then on, and says so at the end."""

    def __init__(self, loader: Loader, waiting: dict[str, Callable[[], object]], name: str) -> None:
        self._loader, self._waiting, self._name = loader, waiting, name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        begin = self._waiting.pop(self._name, None)
        if begin is not None:
            begin()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)
