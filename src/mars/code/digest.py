"""The hash function of this package.

From where `hashlib` has it, as `hashlib` itself takes 4 ms to load OpenSSL.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

__all__ = ["blake2b"]
