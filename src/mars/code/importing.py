"""Modules of the project that a worker imports by name, as the program had them.

A `Generation` is a set of modules that were imported together. A call that was spawned after one of
them was edited and loaded again gets another generation: all modules of the project are imported
anew for it, and those of the one before are put aside, for its own calls.

The file of a module is read where the program has it. If it holds something else by now, or if it
is not there, as on the nodes of a cluster, the text comes from the program's process.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Final

from mars.code import modules
from mars.code.digest import blake2b
from mars.code.modules import DIGEST_BYTES, Source
from mars.code.origin import is_project_module

if TYPE_CHECKING:
    from importlib.abc import Loader

fetch_text: Callable[[bytes], bytes | None] = modules.text_of
"""Where the text of a module comes from that has no file here; a worker asks its driver."""


class Generation:
    """Modules of the project that were imported together.

    Attributes
    ----------
    sources : dict
        What they were made from, by name; also of those that were not imported yet.
    parked : dict
        The modules themselves, while another generation is in place.
    held : dict
        What they held right after their import, by where: pickles to compare with.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources: dict[str, Source] = dict(sources)
        self.parked: dict[str, ModuleType] = {}
        self.held: dict[tuple[str, str], object] = {}

    def accepts(self, manifest: Mapping[str, Source]) -> bool:
        """Whether what it has agrees with what a call expects."""
        for name, source in manifest.items():
            known = self.sources.get(name)
            if self is _current and (known is None or _is_program):
                known = _loaded(name)  # imported without our doing, or in another state since
            if known is not None and known.digest != source.digest:
                return False
        return True


_generations: list[Generation] = [Generation({})]
_current: Generation = _generations[0]
_is_program = True
_on_import: Callable[[str], object] | None = None
_lock = threading.RLock()


def _loaded(name: str) -> Source | None:
    """What a module was made from that is loaded already."""
    record = modules.record_of(name)
    return None if record is None else record.source


def current() -> Generation:
    """The generation that is in place."""
    return _current


def is_program() -> bool:
    """Whether this process is the program itself, and no worker of it."""
    return _is_program


def generation_for(manifest: Mapping[str, Source]) -> Generation:
    """Modules that a call with these expectations can run with."""
    with _lock:
        for one in (_current, *reversed(_generations)):
            if one.accepts(manifest):
                one.sources.update(manifest)
                return one
        made = Generation(manifest)
        _generations.append(made)
        install()
        return made


def enter(generation: Generation | None, on_import: Callable[[str], object] | None) -> None:
    """Put modules in place, and have ``on_import`` told of those that are imported from here on."""
    global _current, _on_import
    with _lock:
        _on_import = on_import
        if generation is None or generation is _current:
            return
        before, _current = _current, generation
        for name in [*sys.modules]:
            own = name in before.sources or is_project_module(name)
            if own and getattr(sys.modules[name], "__spec__", None) is not None:
                before.parked[name] = sys.modules.pop(name)
        sys.modules.update(generation.parked)
        generation.parked.clear()


def clear_parked() -> None:
    """Let go of what modules hold that are put aside; at its end, Python clears the others only."""
    with _lock:
        for generation in _generations:
            for module in reversed(generation.parked.values()):
                module.__dict__.clear()
            generation.parked.clear()
            generation.held.clear()


class Finder:
    """Finds modules of the project as the program had them; first in ``sys.meta_path``."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that calls expect; None: let others look for it."""
        source = _current.sources.get(name)
        if _is_program and _current is _generations[0]:
            return None
        if source is None:
            return _namespace_package(name, path)
        text = _read(source.file)
        if text is not None and _digest(text) == source.digest:
            loader = _Told(name, source.file, text)
        else:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            if spec is not None and _holds(spec, source):
                return _telling(spec)
            text = fetch_text(source.digest)
            if text is None:
                return None
            loader = _FromText(name, source.file, text)
        from importlib.util import spec_from_file_location  # late: a plain call imports nothing

        folder = [os.path.dirname(source.file)] if source.package else None
        return spec_from_file_location(
            name, source.file, loader=loader, submodule_search_locations=folder
        )


def _namespace_package(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """The spec of a package without a file of which calls expect a module; None: it is none."""
    inside = f"{name}."
    if not any(one.startswith(inside) for one in _current.sources):
        return None
    if importlib.machinery.PathFinder.find_spec(name, path) is not None:
        return None  # it is here, too
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = []
    return spec


def _read(file: str) -> bytes | None:
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=DIGEST_BYTES).digest()


def _holds(spec: importlib.machinery.ModuleSpec, source: Source) -> bool:
    """Whether what would be imported, from an archive perhaps, is what the program had."""
    try:
        text = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
    except Exception:
        return False
    return isinstance(text, str) and _digest(text.encode()) == source.digest


class _Loading(threading.local):
    depth = 0  # modules that this thread imports inside each other

    def __init__(self) -> None:
        self.complete: list[str] = []


_loading = _Loading()


@contextlib.contextmanager
def _telling_of(module: ModuleType) -> Iterator[None]:
    """Tell of a module once it is complete, and all that are being imported around it."""
    _loading.depth += 1
    try:
        yield
        modules.note_complete(module)
        _loading.complete.append(module.__name__)
    finally:
        _loading.depth -= 1
        if not _loading.depth:
            complete, _loading.complete = _loading.complete, []
            for name in complete:
                if _on_import is not None:
                    _on_import(name)


class _Told(importlib.machinery.SourceFileLoader):
    """Imports from a file, and tells when the module is complete.

    What it read stays known: the file may hold something else later.
    """

    def __init__(self, name: str, file: str, text: bytes) -> None:
        super().__init__(name, file)
        self.text = text
        self._code: CodeType | None = None

    def get_code(self, fullname: str) -> CodeType | None:
        """The module's code, as it was imported."""
        if self._code is None:
            self._code = self._make(fullname)
        return self._code

    def _make(self, fullname: str) -> CodeType | None:
        if self._is_newer_than_compiled():
            return self.source_to_code(self.text, self.path)
        return super().get_code(fullname)

    def _is_newer_than_compiled(self) -> bool:
        """Whether the file was written after it was compiled, perhaps in the same second.

        Python compares whole seconds and sizes, and would take the code of the text before.
        """
        from importlib.util import cache_from_source

        try:
            compiled = os.stat(cache_from_source(self.path))
            return compiled.st_mtime_ns <= os.stat(self.path).st_mtime_ns
        except (OSError, NotImplementedError):  # it is not compiled, or nobody keeps that
            return False

    def exec_module(self, module: ModuleType) -> None:
        with _telling_of(module):
            super().exec_module(module)


class _FromText(_Told):
    """Imports from a text that the program had in a file."""

    def get_data(self, path: str) -> bytes:
        """The text, and what else lies beside it, where that is here."""
        return self.text if os.fspath(path) == self.path else super().get_data(path)

    def _make(self, fullname: str) -> CodeType | None:
        # From the text: no compiled file of another text is looked at.
        return self.source_to_code(self.text, self.path)


def _telling(spec: importlib.machinery.ModuleSpec) -> importlib.machinery.ModuleSpec:
    """A spec of another loader that tells when its module is complete."""
    if spec.loader is not None:
        spec.loader = _Around(spec.loader)  # type: ignore[assignment]
    return spec


class _Around:
    """A loader around another one."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does, and then tell."""
        with _telling_of(module):
            self._loader.exec_module(module)


FINDER: Final = Finder()


def install(fetch: Callable[[bytes], bytes | None] | None = None) -> None:
    """Have imports of this process look here first.

    Parameters
    ----------
    fetch : callable, optional
        In a worker: asks the program for the text of a module. There the first generation is what
        calls expect, too; in the program itself it is what the program has, whatever it is.
    """
    global fetch_text, _is_program
    if fetch is not None:
        fetch_text, _is_program = fetch, False
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
