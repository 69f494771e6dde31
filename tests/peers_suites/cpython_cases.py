"""CPython's tests of `concurrent.futures`, with `mars.Executor` in place of the process pool.

The tests are those that are installed with Python; here their classes are only put together. They
are a package from Python 3.12 on, and one module before.
"""

from __future__ import annotations

import importlib
import unittest
from typing import Any

import mars

PACKAGE = importlib.import_module("test.test_concurrent_futures")


def _part(name: str) -> Any:
    if not hasattr(PACKAGE, "__path__"):
        return PACKAGE
    return importlib.import_module(f"test.test_concurrent_futures.{name}")


util = _part("util")


class MarsExecutor(mars.Executor):
    """Under the name that scripts of the suite import it by."""


class MarsMixin(util.ExecutorMixin):  # type: ignore[misc]
    """What the mixins of the suite say about a kind of executor."""

    executor_type = MarsExecutor


class MarsPoolMixin(MarsMixin):
    """For tests that ask for a context of multiprocessing."""

    ctx = "spawn"


KINDS: dict[tuple[str, str], Any] = {
    ("executor", "ExecutorTest"): MarsMixin,
    ("test_as_completed", "AsCompletedTests"): MarsMixin,
    ("test_init", "InitializerMixin"): MarsMixin,
    ("test_init", "FailingInitializerMixin"): MarsMixin,
    ("test_shutdown", "ExecutorShutdownTest"): MarsMixin,
    ("test_wait", "WaitTests"): MarsMixin,
    ("test_deadlock", "ExecutorDeadlockTest"): MarsPoolMixin,
    ("test_process_pool", "ProcessPoolExecutorTest"): MarsPoolMixin,
}
"""The classes of the suite, by the modules of its package."""


def _cases() -> None:
    here: dict[str, Any] = {"__name__": __name__}
    bases = (unittest.TestCase,)  # the suite's own base waits for all children, our zygote too
    for (module, name), kind in KINDS.items():
        tests = getattr(_part(module), name)
        if util is PACKAGE:
            util.create_executor_tests(tests, bases=bases, executor_mixins=(kind,))
        else:
            util.create_executor_tests(here, tests, bases=bases, executor_mixins=(kind,))
    made = vars(util) if util is PACKAGE else here
    globals().update({name: one for name, one in made.items() if name.startswith("Mars")})


_cases()
