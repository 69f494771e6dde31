"""CPython's tests of `concurrent.futures`, with `mars.Executor` in place of the process pool.

The tests are those that are installed with Python; here their classes are only put together.
"""

from __future__ import annotations

import unittest
from typing import Any

from test.test_concurrent_futures import (  # type: ignore[import-not-found]
    executor,
    test_as_completed,
    test_deadlock,
    test_init,
    test_process_pool,
    test_shutdown,
    test_wait,
    util,
)

import mars


class MarsExecutor(mars.Executor):
    """Under the name that scripts of the suite import it by."""


class MarsMixin(util.ExecutorMixin):  # type: ignore[misc]
    """What the mixins of the suite say about a kind of executor."""

    executor_type = MarsExecutor


class MarsPoolMixin(MarsMixin):
    """For tests that ask for a context of multiprocessing."""

    ctx = "spawn"


def _cases() -> None:
    here: dict[str, Any] = {"__name__": __name__}
    kinds: dict[Any, Any] = {
        executor.ExecutorTest: MarsMixin,
        test_as_completed.AsCompletedTests: MarsMixin,
        test_init.InitializerMixin: MarsMixin,
        test_init.FailingInitializerMixin: MarsMixin,
        test_shutdown.ExecutorShutdownTest: MarsMixin,
        test_wait.WaitTests: MarsMixin,
        test_deadlock.ExecutorDeadlockTest: MarsPoolMixin,
        test_process_pool.ProcessPoolExecutorTest: MarsPoolMixin,
    }
    for tests, kind in kinds.items():
        bases = (unittest.TestCase,)  # the suite's own base waits for all children, our zygote too
        util.create_executor_tests(here, tests, bases=bases, executor_mixins=(kind,))
    globals().update({name: one for name, one in here.items() if name.startswith("Mars")})


_cases()
