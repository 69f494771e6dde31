"""A signal goes to the process that it is meant for, also when its number is another's by now."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars import platform
from mars.engines.local import stacks
from mars.engines.local.launch import Launch
from mars.engines.local.process import LocalProcess, Watch

SOURCE = Path(mars.__file__).parent

pytestmark = pytest.mark.skipif(not platform.HAS_PIDFD, reason="no descriptors of processes here")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def ended_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", ""])


def lives(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def test_a_worker_whose_number_is_another_process_s_by_now_is_not_signalled_by_it(
    stranger: subprocess.Popen[bytes],
) -> None:
    worker = ended_process()
    watch = Watch()
    process = LocalProcess(1, watch)
    process.handed_over()
    process.started(worker.pid, os.pidfd_open(worker.pid))
    worker.wait()
    process.pid = stranger.pid  # as if the number had been used again
    process.kill()
    process.interrupt(7)
    process.close()
    watch.close()
    assert lives(stranger)


def test_a_descriptor_of_another_process_is_not_taken_for_that_of_a_worker(
    stranger: subprocess.Popen[bytes],
) -> None:
    worker = ended_process()
    watch = Watch()
    process = LocalProcess(1, watch)
    process.handed_over()
    process.started(worker.pid, os.pidfd_open(stranger.pid))
    assert process.descriptor < 0
    process.kill()
    process.close()
    watch.close()
    worker.wait()
    assert lives(stranger)


def test_without_a_descriptor_the_zygote_passes_signals_on(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(platform, "is_of_process", lambda *_: False)
    with mars.new_session(n_cpu=1) as session:
        first: int = mr.spawn(os.getpid).execute().fetch()
        processes: Any = session.engine.loop.workers.processes  # type: ignore[attr-defined]
        assert all(one.descriptor < 0 for one in list(processes.values()))

        def hang() -> None:
            import time

            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(600)

        with pytest.raises(mars.errors.TaskTimeout):
            mr.spawn(hang, timeout=0.3).execute()
        assert mr.spawn(os.getpid).execute().fetch() != first


def test_a_zygote_whose_number_is_another_process_s_by_now_is_not_signalled_by_it(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Launch()
    pid, launch.pid = launch.pid, stranger.pid
    monkeypatch.setattr("mars.engines.local.launch.STOP_S", 0.0)  # it is not waited for
    launch.close()
    assert lives(stranger)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_only_what_is_below_a_process_is_killed_as_a_descendant(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen(["sleep", "600"])
    # As if a child had ended and its number been used again after we looked.
    monkeypatch.setattr(platform, "descendants", lambda _: [child.pid, 1, os.getppid()])
    monkeypatch.setattr(platform, "parent_of", {child.pid: os.getpid(), os.getppid(): 1}.get)
    platform.kill_descendants(os.getpid())
    assert child.wait(10) == -signal.SIGKILL
    assert lives(stranger)


def test_a_process_that_took_a_worker_s_number_is_not_asked_for_its_stack(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    answer.touch()
    worker = ended_process()
    opened = os.pidfd_open

    def reused(pid: int) -> int:
        """The worker ends as soon as it is known, and a stranger gets its number."""
        descriptor = opened(worker.pid)
        worker.wait()
        return descriptor

    monkeypatch.setattr(os, "pidfd_open", reused)
    monkeypatch.setattr(stacks, "_file_in_memory", lambda *_: str(answer))
    monkeypatch.setattr(stacks, "_catches", lambda *_: True)
    assert stacks.examine(stranger.pid, 0.1).state is stacks.State.SILENT
    assert lives(stranger)


SIGNALS_BY_NUMBER = {
    "platform.py": 2,  # `Process`, where the system has no descriptors; signal 0 does nothing
    "engines/local/zygote.py": 2,  # children that it has not reaped
}
"""Where the source sends a signal by a process number, and how often."""


def test_signals_are_sent_by_number_only_where_that_is_safe() -> None:
    found: dict[str, int] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in {("os", "kill"), ("os", "killpg")}
            ):
                name = path.relative_to(SOURCE).as_posix()
                found[name] = found.get(name, 0) + 1
    assert found.items() <= SIGNALS_BY_NUMBER.items()


def test_what_a_worker_leaves_in_its_group_is_killed_before_the_worker_is_reaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mars.engines.local import zygote

    steps: list[str] = []
    served: Any = zygote._Zygote.__new__(zygote._Zygote)
    served.workers, served.threads = {}, {}
    served._tell = lambda message: steps.append(message[0])
    child = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    served.workers[child.pid] = 1
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    def killpg(pid: int, number: int) -> None:
        assert (pid, number) == (child.pid, signal.SIGKILL)
        os.kill(child.pid, 0)  # it is there: not reaped
        steps.append("group killed")

    monkeypatch.setattr(os, "killpg", killpg)
    served._reap()
    assert steps == ["group killed", "ended"]
    child.returncode = 0  # it was reaped
