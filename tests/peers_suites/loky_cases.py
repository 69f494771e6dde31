"""loky's tests of its executor, with `mars.Executor` in its place; copied beside its own tests."""

from __future__ import annotations

from multiprocessing import Manager
from types import SimpleNamespace
from typing import Any

from loky.backend import get_context  # type: ignore[import-not-found]
from loky_tests import _executor_mixin  # type: ignore[import-not-found]
from loky_tests._test_process_executor import (  # type: ignore[import-not-found]
    AsCompletedTests,
    ExecutorShutdownTest,
    ExecutorTest,
    WaitTests,
)

import mars

_executor_mixin.psutil = None  # it would count processes by names that only loky's have


class MarsExecutor(mars.Executor):
    """Takes the arguments that only loky has, which are about its processes."""

    _flags = SimpleNamespace(broken=None)

    def __init__(
        self, max_workers: int | None = None, context: object = None, timeout: object = None,
        job_reducers: object = None, result_reducers: object = None, **rest: Any,
    ) -> None:  # fmt: skip
        super().__init__(max_workers, **rest)

    def shutdown(self, wait: bool = True, kill_workers: bool = False, **rest: Any) -> None:
        super().shutdown(wait, cancel_futures=kill_workers, **rest)


class MarsMixin(_executor_mixin.ExecutorMixin):  # type: ignore[misc]
    """An event that travels as an argument, which events of multiprocessing do not."""

    executor_type = MarsExecutor
    context = get_context("loky")

    @classmethod
    def setup_class(cls) -> None:
        cls.manager = Manager()
        _executor_mixin._test_event = cls.manager.Event()

    @classmethod
    def teardown_class(cls) -> None:
        _executor_mixin._test_event = None
        cls.manager.shutdown()


class TestMarsShutdown(MarsMixin, ExecutorShutdownTest):  # type: ignore[misc]
    def _prime_executor(self) -> None:
        pass


class TestMarsWait(MarsMixin, WaitTests):  # type: ignore[misc]
    pass


class TestMarsAsCompleted(MarsMixin, AsCompletedTests):  # type: ignore[misc]
    pass


class TestMarsExecutor(MarsMixin, ExecutorTest):  # type: ignore[misc]
    pass
