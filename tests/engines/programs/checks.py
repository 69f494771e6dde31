"""What the programs of this folder share: a session, and checks that print a line each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mars
import mars.remote as mr


def start() -> None:
    """Open a session on the engine that the program was given."""
    mars.options.show_progress = False
    mars.new_session(engine=sys.argv[1], n_cpu=2, default=True)


def check(what: str, got: Any, want: Any = True) -> None:
    """Print whether something is as it should be."""
    same = type(got) is type(want) and got == want
    print(f"ok  {what}" if same else f"BAD {what}: {got!r}, not {want!r}", flush=True)


def check_call(what: str, func: Callable[..., Any], *args: Any, want: Any = True) -> None:
    """Check what a call of a function gives in another process."""
    try:
        got = mr.spawn(func, args=args).to_object()
    except BaseException as error:
        print(f"BAD {what}: {type(error).__name__}: {error}", flush=True)
        raise SystemExit(1) from error
    check(what, got, want)


def check_calls(what: str, calls: list[Any], want: list[Any]) -> None:
    """Check what calls give that are executed together."""
    check(what, mr.ExecutableTuple(calls).execute().fetch(), want)
