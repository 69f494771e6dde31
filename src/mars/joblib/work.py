"""What runs in a worker for joblib: the batches of one loop.

A batch comes as a pickle of its own, because its large buffers are values that batches share; see
`mars.joblib.packing`. Called by workers, for calls that `mars.joblib.flight` describes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mars.attempt import codec, context

if TYPE_CHECKING:
    from mars.task import Buffer


class Initializer(NamedTuple):
    """What a worker process does before its first batch, and only once."""

    token: str
    function: Callable[..., object]
    args: tuple[object, ...]


class _Process:
    """What is known of this process."""

    forked = False  # by the program, or by a call; workers themselves do not count

    def was_forked(self) -> None:
        self.forked = True


process = _Process()
os.register_at_fork(after_in_child=process.was_forked)


def is_limited() -> bool:
    """Whether this process is one that must not start workers: forked or daemonic."""
    return process.forked or bool(multiprocessing.current_process().daemon)


class Loop:
    """Runs batches of one loop; this is the function of their calls.

    A worker loads it once, with the functions of the program that it holds. So what an initializer
    sets in a module of the program is there for all batches that this worker runs.

    Parameters
    ----------
    functions : tuple of callable
        Functions that items of batches name by their numbers.
    nested : tuple
        Makes the backend for the loops inside: a function, and what it is called with.
    initializer : Initializer, optional
        What has to be called first.
    threads : int, optional
        Threads for native libraries, if that is not what the call's cores say.
    """

    def __init__(
        self,
        functions: tuple[Callable[..., object], ...],
        nested: tuple[Callable[..., object], tuple[object, ...]],
        initializer: Initializer | None,
        threads: int | None,
    ) -> None:
        self._functions = functions
        self._nested = nested
        self._initializer = initializer
        self._threads = threads

    def __call__(
        self, data: bytes, buffers: Sequence[Buffer] = (), values: Sequence[object] = ()
    ) -> list[object]:
        """Run one batch.

        Parameters
        ----------
        data : bytes
            Pickle of its items: functions or their numbers, arguments and keyword arguments.
        buffers : sequence of buffers, default ()
            The large parts of the pickle.
        values : sequence of object, default ()
            Values of the objects of mars that are among the arguments.

        Returns
        -------
        list of object
            What the functions returned.
        """
        from joblib.parallel import BatchedCalls

        process.forked = False  # a worker was forked, but not by the program
        (given,), _ = codec.decode_arguments(data, buffers, values)
        del buffers, values
        items = [
            (self._functions[func] if type(func) is int else func, args, kwargs)
            for func, args, kwargs in given  # type: ignore[attr-defined]
        ]
        del given
        make, its_args = self._nested
        batch = BatchedCalls(items, (make(*its_args), None))
        running = batch.items = _Running(items)
        with contextlib.nullcontext() if self._threads is None else _threads(self._threads):
            initializer = self._initializer
            if initializer is not None:
                initializer.function(*initializer.args)
                self._initializer = None
            try:
                return batch()  # type: ignore[no-any-return]
            except BaseException:
                _, args, kwargs = running.last
                context.show_arguments(*args, **kwargs)  # those of the batch tell nobody anything
                raise


_Item = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class _Running(list[_Item]):
    """The items of a batch, and which one of them runs."""

    last: _Item = (str, (), {})

    def __iter__(self) -> Iterator[_Item]:
        for item in list.__iter__(self):
            self.last = item
            yield item


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let libraries, and child processes, use so many threads."""
    from threadpoolctl import threadpool_limits

    from mars.attempt.threads import environment
    from mars.engines.given import environment_with

    asked = {name: str(count) for name in environment(count, {}) if name.endswith("_THREADS")}
    with environment_with(asked), threadpool_limits(count):
        yield


__all__ = ["Initializer", "Loop", "is_limited"]
