"""What a session gives to its calls besides what the program has: `env=` and `working_dir=`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import cast

TYPE_CHECKING = False  # known to type checkers; loaded when somebody has credentials
if TYPE_CHECKING:
    from mars.storage import Storage


@contextmanager
def environment_with(values: Mapping[str, str]) -> Iterator[None]:
    """Have variables in the environment of this process, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    if "TZ" in values:
        time.tzset()
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
        if "TZ" in values:
            time.tzset()


class Given:
    """Variables and a folder for the calls of an engine.

    Parameters
    ----------
    env : mapping, optional
        Environment variables.
    working_dir : str, optional
        Absolute path of the folder that calls run in, and can import from.
    storage : Storage, optional
        What calls open URLs with.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.storage = storage
        self._env = dict(env or {})
        self._encoded = {os.fsencode(name): os.fsencode(text) for name, text in self._env.items()}
        self.working_dir = working_dir

    def variables(self, changed: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
        """Ours, and those that the program has changed, which win."""
        return {**self._encoded, **changed} if self._encoded else changed

    def settings(self, found: dict[str, object]) -> dict[str, object]:
        """What the program has set in its process, and what the session opens URLs with."""
        if self.storage is None:
            return found
        below = cast("Storage | None", found.get("fsspec"))
        return {**found, "fsspec": self.storage.over(below)}

    @contextmanager
    def here(self) -> Iterator[None]:
        """Have all of it in this process, for a while."""
        path, folder = list(sys.path), os.getcwd()
        storage = nullcontext() if self.storage is None else self.storage.in_place()
        with environment_with(self._env), storage:
            if self.working_dir is not None:
                os.chdir(self.working_dir)
                sys.path.insert(0, self.working_dir)
            try:
                yield
            finally:
                if self.working_dir is not None:
                    os.chdir(folder)
                    sys.path[:] = path

    def __bool__(self) -> bool:
        return bool(self._env) or self.working_dir is not None or self.storage is not None
