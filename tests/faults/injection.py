"""Makes the k-th call of one function of the system fail, once or from then on, in one process.

Only calls that `mars` itself makes are counted, so neither the test nor the interpreter is hit. In
the program it is installed by hand. In the zygote and its workers a `sitecustomize` that the test
puts in their way installs it from an environment variable; `mars` knows nothing of either.
"""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

VARIABLE: Final = "MARS_TEST_INJECTION"

OWNERS: Final[dict[str, Any]] = {
    "os": os, "mmap": mmap, "socket": socket, "socket.socket": socket.socket, "select": select,
}  # fmt: skip

_open, _close, _getpid = os.open, os.close, os.getpid


class Plan(NamedTuple):
    """What is to fail: ``function`` as ``owner.name``, and ``error`` as errno has it, or short."""

    where: str
    function: str
    k: int
    error: str
    forever: bool
    mark: str

    def happened(self) -> bool:
        """Whether anything failed: else there are no k such calls."""
        return os.path.exists(self.mark)


def _shorten(function: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with which less is read or written than was asked for, as the system may."""
    if function == "os.pwrite":
        descriptor, data, offset = arguments
        view = memoryview(data)
        return descriptor, view[: max(1, len(view) // 2)], offset
    if function == "socket.socket.send":
        sock, data = arguments
        return sock, memoryview(data)[: max(1, len(data) // 2)]
    if function == "socket.socket.sendmsg":
        sock, (data,), ancillary = arguments
        return sock, [memoryview(data)[: max(1, len(data) // 2)]], ancillary
    if function == "socket.socket.recvmsg":
        sock, limit, *rest = arguments
        return sock, min(limit, 7), *rest
    raise ValueError(function)


def install(plan: Plan, applies: Callable[[], bool] = lambda: True) -> Callable[[], None]:
    """Begin; gives what ends it."""
    owner_name, _, name = plan.function.rpartition(".")
    owner = OWNERS[owner_name]
    real = getattr(owner, name)
    inherited = name not in vars(owner)
    count = itertools.count(1)

    def strikes() -> bool:
        caller = sys._getframe(2).f_globals.get("__name__", "")
        if not caller.startswith("mars.") or not applies():
            return False
        number = next(count)
        if number != plan.k and not (plan.forever and number > plan.k):
            return False
        try:
            _close(_open(plan.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return plan.forever
        return True

    def faulty(*arguments: Any, **named: Any) -> Any:
        if strikes():
            if plan.error != "short":
                code = getattr(errno, plan.error)
                raise OSError(code, os.strerror(code))
            return real(*_shorten(plan.function, arguments), **named)
        return real(*arguments, **named)

    setattr(owner, name, faulty)

    def undo() -> None:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, real)

    return undo


def environment(plan: Plan, folder: Path) -> dict[str, str]:
    """Variables with which a zygote that is started next follows the plan."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('injection', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module.follow()\n"
    )
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(folder), *([inherited] if inherited else [])])
    return {VARIABLE: json.dumps(plan), "PYTHONPATH": path}


def follow() -> None:
    """In a process that finds the variable: the zygote, whose workers are forked from it."""
    plan = Plan(*json.loads(os.environ.pop(VARIABLE, "null")) or ("",) * 6)
    if plan.where in ("zygote", "worker") and "mars.engines.local.zygote" in str(sys.orig_argv):
        zygote = _getpid()
        install(plan, lambda: (_getpid() == zygote) == (plan.where == "zygote"))
