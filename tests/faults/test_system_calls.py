"""The k-th call of one function of the system fails: one typed error, or none, and nothing else.

Each function that the engine calls, in the program, the zygote and the workers, with the errors
that it can give. Nothing hangs, no value is wrong, the engine works on, nothing is left behind.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from tests.faults import injection
from tests.faults.campaign import SEED
from tests.faults.typed_work import BIG, TYPED, descriptors, double, nest, size, typed_errors

CASES = [
    ("driver", "os.pwrite", ("ENOSPC", "short")),
    ("driver", "os.ftruncate", ("ENOSPC",)),
    ("driver", "os.memfd_create", ("EMFILE",)),
    ("driver", "os.open", ("EMFILE",)),
    ("driver", "os.dup", ("EMFILE",)),
    ("driver", "os.pipe", ("EMFILE",)),
    ("driver", "os.pread", ("EIO",)),
    ("driver", "os.posix_spawn", ("ENOMEM",)),
    ("driver", "mmap.mmap", ("ENOMEM",)),
    ("driver", "select.epoll", ("EMFILE",)),
    ("driver", "socket.socketpair", ("EMFILE",)),
    ("driver", "socket.socket.send", ("EPIPE", "ENOBUFS", "short")),
    ("driver", "socket.socket.sendmsg", ("EPIPE", "ENOBUFS", "short")),
    ("driver", "socket.socket.sendall", ("EPIPE",)),
    ("driver", "socket.socket.recvmsg", ("ECONNRESET", "ENOMEM", "short")),
    ("zygote", "os.fork", ("EAGAIN",)),
    ("zygote", "os.pipe", ("EMFILE",)),
    ("zygote", "os.pidfd_open", ("EMFILE",)),
    ("zygote", "socket.socket.sendall", ("EPIPE",)),
    ("zygote", "socket.socket.recvmsg", ("ENOMEM", "short")),
    ("worker", "os.pwrite", ("ENOSPC", "short")),
    ("worker", "os.memfd_create", ("EMFILE",)),
    ("worker", "os.open", ("EMFILE",)),
    ("worker", "os.dup2", ("EBADF",)),
    ("worker", "os.lseek", ("EIO",)),
    ("worker", "os.pread", ("EIO",)),
    ("worker", "os.write", ("EIO",)),
    ("worker", "os.chdir", ("EACCES",)),
    ("worker", "mmap.mmap", ("ENOMEM",)),
    ("worker", "socket.socket.sendall", ("EPIPE",)),
    ("worker", "socket.socket.sendmsg", ("EPIPE", "short")),
    ("worker", "socket.socket.recvmsg", ("ENOMEM", "short")),
]
EACH = [(where, name, error) for where, name, errors in CASES for error in errors]


def fail() -> None:
    print("before it fails")
    raise ValueError("as it should")


def work(session: mars.session.Session) -> list[BaseException]:
    """Large arguments and results, nested calls and small ones; the typed errors on the way."""
    made = mr.spawn(double, args=(BIG,))
    expected: dict[Any, Any] = {
        mr.spawn(size, args=(BIG,)): 300_000,
        made: BIG + BIG,
        mr.spawn(size, args=(made,)): 600_000,
        mr.spawn(nest): b"n" * 140_000,
        **{mr.spawn(pow, args=(i, 2)): i * i for i in range(10)},
    }
    errors = typed_errors(session, expected)
    with pytest.raises((ValueError, *TYPED)):
        mr.spawn(fail).execute(session=session)
    return errors


def try_out(plan: injection.Plan, folder: Path, patch: pytest.MonkeyPatch) -> bool:
    """One program under the plan; whether anything failed."""
    before = descriptors()
    with patch.context() as context:
        undo: Callable[[], object] = int
        if plan.where == "driver":
            undo = injection.install(plan)
        else:
            for name, value in injection.environment(plan, folder / "site").items():
                context.setenv(name, value)
        try:
            session = mars.new_session(n_cpu=2, default=False)
        except TYPED:
            undo()
        else:
            try:
                work(session)
                before_again = plan.happened()  # else it may be now that it happens
                assert work(session) == [] or not before_again, "once is once"
            finally:
                undo()
                session.stop_server()
            del session
    deadline = time.monotonic() + 20
    while psutil.Process().children(recursive=True) or len(descriptors()) > len(before):
        gc.collect()
        assert time.monotonic() < deadline, f"{descriptors()} are open, {before} were"
        time.sleep(0.01)
    return plan.happened()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("where", "name", "error"), EACH)
def test_a_system_call_that_fails_is_one_typed_error_and_nothing_hangs_or_is_left(
    where: str, name: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = [1, random.Random(f"{SEED} {where} {name} {error}").randint(2, 6)]
    for k in tries[:1] if error == "short" else tries:
        plan = injection.Plan(where, name, k, error, False, str(tmp_path / f"mark-{k}"))
        try_out(plan, tmp_path, monkeypatch)


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("where", "name", "error"), EACH)
def test_each_single_system_call_may_fail(
    where: str, name: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = 1
    while k < 60:
        plan = injection.Plan(where, name, k, error, False, str(tmp_path / f"mark-{k}"))
        if not try_out(plan, tmp_path, monkeypatch):
            break
        k += 1
    assert k > 1, "nothing calls it: take it off the list"
