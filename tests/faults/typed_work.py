"""Calls that may each fail with a typed error, and have the right value if they do not."""

from __future__ import annotations

import contextlib
import os
import random
from typing import Any

import mars.remote as mr
from mars.errors import InternalError, MarsError

BIG = random.Random(1).randbytes(300_000)
TYPED = (OSError, MarsError)
LIMIT_S = 90.0
"""What takes longer hangs: on a quiet machine all is done in a second, on a busy one in 30."""


def size(data: bytes) -> int:
    print("size", len(data))
    return len(data)


def double(data: bytes) -> bytes:
    return data + data


def nest() -> Any:
    return mr.spawn(double, args=(b"n" * 70_000,)).execute().fetch()


def typed_errors(session: Any, expected: dict[Any, Any]) -> list[BaseException]:
    """Execute calls of which these values are expected; the typed errors on the way."""
    errors: list[BaseException] = []
    try:
        run = mr.ExecutableTuple(list(expected)).execute(
            session=session, wait=False, on_error="continue"
        )
        with contextlib.suppress(TimeoutError):
            run.exception(timeout=LIMIT_S)
        assert run.done(), "it hangs"
    except TYPED as error:
        errors.append(error)
    for call, value in expected.items():
        try:
            assert call.fetch(session=session) == value
        except TYPED as error:
            errors.append(error)
    for call in expected:
        with contextlib.suppress(*TYPED):
            str(call.fetch_log(session=session))
    assert not any(isinstance(error, InternalError) for error in errors), errors
    return errors


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(found)
