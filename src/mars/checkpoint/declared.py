"""Digests of what a program declares with ``depends=``: values, and files by their content.

Called by `mars.checkpoint.identifier`.
"""

from __future__ import annotations

import os
from hashlib import blake2b

from mars.checkpoint.identity import KEY_BYTES, Code
from mars.checkpoint.walk import Walk


def look_again() -> None:
    """Forget the digests of files: they may have changed since the last time."""
    _file_digests.clear()


def value_digest(value: object) -> bytes:
    """Return the digest of a value. A path counts by what is in its file or folder."""
    if isinstance(value, os.PathLike):
        return _file_digest(os.fspath(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        digests = [value_digest(item) for item in value]
        if isinstance(value, (set, frozenset)):
            digests.sort()
        return blake2b(b"".join(digests), digest_size=KEY_BYTES).digest()
    if isinstance(value, dict):
        items = sorted((value_digest(key), value_digest(item)) for key, item in value.items())
        return blake2b(b"".join(k + v for k, v in items), digest_size=KEY_BYTES).digest()
    walk = Walk(Code())
    walk.walk(value, "depends")
    return walk.digest()


def _file_digest(path: str) -> bytes:
    known = _file_digests.get(path)
    if known is None:
        known = _file_digests[path] = _read_digest(path)
    return known


_file_digests: dict[str, bytes] = {}


def _read_digest(path: str) -> bytes:
    digest = blake2b(digest_size=KEY_BYTES)
    if os.path.isdir(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                full = os.path.join(folder, name)
                digest.update(os.path.relpath(full, path).encode("utf-8", "surrogateescape"))
                digest.update(_read_digest(full))
        return digest.digest()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError:
        digest.update(b"there is no such file")
    return digest.digest()
