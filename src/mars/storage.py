"""Credentials of object stores that a session gives to its calls, and that nobody gets to see.

They travel with what calls have of the program: over the sockets of its workers, in memory, never
in a variable, an argument of a process, a file or a log. In a worker they stand in the settings of
fsspec, so `mars.remote.open`, plain fsspec, pandas and whatever opens URLs by fsspec use them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Final

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
LIBRARY: Final = "fsspec.config"
"""The module whose dict ``conf`` has, by protocol, what fsspec opens URLs with."""


class Storage:
    """Options of fsspec by protocol. It shows none of them, and it pickles.

    Parameters
    ----------
    options : dict
        By protocol, such as ``"s3"``: what `fsspec.filesystem` takes.
    """

    __slots__ = ("options",)

    def __init__(self, options: Mapping[str, Mapping[str, object]]) -> None:
        self.options = options

    def __reduce__(self) -> tuple[object, ...]:
        return Storage, (self.options,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and other.options == self.options

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        protocols = ", ".join(sorted(self.options)) or "nothing"
        return f"<Storage for {protocols}; what is in it is not shown>"

    def over(self, below: Storage | None) -> Storage:
        """These options, and those of ``below`` for protocols that these do not name."""
        return self if below is None else Storage({**below.options, **self.options})

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have fsspec of this process use the options, for a while."""
        try:
            from fsspec.config import conf
        except ImportError:  # then nothing here can open a URL with them
            yield
            return
        before = dict(conf)
        conf.update({name: dict(some) for name, some in self.options.items()})
        try:
            yield
        finally:
            conf.clear()
            conf.update(before)


def parse_storage(given: object) -> Storage | None:
    """Check what `mars.new_session` was given as ``storage_options``.

    Raises
    ------
    TypeError
        It is no dict of dicts of plain values. The message names none of them.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(
            f"storage_options has to map protocols to options, as {{'s3': {{'key': ...}}}}, "
            f"got {type(given).__name__}"
        )
    found = {}
    for protocol, options in given.items():
        if not isinstance(protocol, str) or not protocol or "://" in protocol:
            raise TypeError(
                f"storage_options maps protocols, such as 's3' without '://', got {protocol!r:.40}"
            )
        if not isinstance(options, Mapping):
            raise TypeError(
                f"storage_options[{protocol!r}] has to be a dict of what fsspec takes for it, "
                f"got {type(options).__name__}"
            )
        found[protocol] = {
            _name(protocol, name): _plain(one, f"storage_options[{protocol!r}][{name!r}]")
            for name, one in options.items()
        }
    return Storage(found)


def _name(protocol: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"storage_options[{protocol!r}] has a name that is no str: {name!r:.40}")
    return name


def _plain(value: object, where: str) -> object:
    """A copy of a value that means the same in every process."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(one, where) for one in value])
    if isinstance(value, Mapping):
        return {str(name): _plain(one, where) for name, one in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}; calls run in other processes, so give text, "
        f"numbers, bytes, lists or dicts of these, such as a key and not a client made of it"
    )


# -- what `mars.attempt.followed` needs: fsspec's settings of a program, as its calls have them ---


def look() -> Storage:
    """What fsspec of this process has been told; fsspec is loaded."""
    conf = sys.modules[LIBRARY].conf
    return Storage({name: dict(some) for name, some in conf.items() if isinstance(some, Mapping)})


def told(found: Storage) -> Storage:
    """Of these what is plain, protocol by protocol."""
    kept = {}
    for protocol, options in found.options.items():
        with contextlib.suppress(TypeError):
            kept[protocol] = {name: _plain(one, "") for name, one in options.items()}
    return Storage(kept)


def put(storage: Storage) -> None:
    """Have fsspec of this process know these options."""
    conf = sys.modules[LIBRARY].conf
    conf.clear()
    conf.update({name: dict(some) for name, some in storage.options.items()})


__all__ = ["LIBRARY", "Storage", "look", "parse_storage", "put", "told"]
