"""The zygote: a clean process with one thread that forks workers, and outlives none of them.

Started by `launch` with exec, so nothing of the user's process is copied: no threads, no locks,
no CUDA, no ``__main__``. It forks a worker in about a millisecond, tells how each one ended, and
kills all of them, with their children, as soon as the driver is gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mars import platform
from mars.engines.wire import messages
from mars.engines.wire.frames import Inbox, Outgoing
from mars.engines.wire.large_pages import Mounting
from mars.engines.wire.messages import DESCRIPTORS
from mars.settings import HEAP_KEPT_BYTES, THREADS_LEFT

if TYPE_CHECKING:
    import resource


class _Threads:
    """A process whose threads are workers."""

    def __init__(self, pid: int, sock: platform.Socket) -> None:
        self.pid = pid
        self.sock = sock
        self.inbox = Inbox(sock)
        self.outgoing = Outgoing()
        self.workers: set[int] = set()
        self.killed = 0  # threads that were to end by force, most of which are still there

    def tell(
        self, message: messages.FromZygote | messages.ToZygote, descriptors: Sequence[int] = ()
    ) -> None:
        data = self.outgoing.frame(message)
        try:
            sent = platform.send(self.sock, data, descriptors)
            self.sock.sendall(memoryview(data)[sent:])
        except OSError:  # it has ended, and is about to be reaped
            pass


class _Zygote:
    def __init__(self, control: platform.Socket, driver: int, pages: int | None) -> None:
        self.inbox = Inbox(control)
        self.outgoing = Outgoing()
        self.control = control
        self.driver = driver
        self.pages = pages
        self.workers: dict[int, int] = {}  # process id -> worker
        self.threads: dict[int, _Threads] = {}  # by process id
        self.newest: _Threads | None = None  # that gets further workers
        self.poller = select.poll()
        self.complete = False  # all that workers may share is loaded
        self.lost = False  # the driver missed a message: it starts another zygote

    def run(self) -> None:
        """Serve until the driver closes the socket or ends."""
        read_end, write_end = platform.pipe()
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller = self.poller
        poller.register(self.control, select.POLLIN)
        poller.register(read_end, select.POLLIN)
        driver = -1
        if platform.HAS_PIDFD:
            try:
                # A process that the user forked from the driver may keep the socket open.
                driver = os.pidfd_open(self.driver)
                poller.register(driver, select.POLLIN)
            except ProcessLookupError:
                return self.end()  # the driver has ended already
            except OSError as error:  # before Linux 5.3, say: the socket has to tell
                print(f"no descriptor of the driver: {error}", file=sys.stderr)
            if os.getppid() != self.driver:
                return self.end()  # it has, and the number is that of another process
        if self.pages is not None:
            self._tell((messages.PAGES, 0), [self.pages])
        while not self.lost:
            for descriptor, _ in poller.poll():
                if descriptor == self.control.fileno():
                    if not self._serve():
                        return self.end()
                elif descriptor == read_end:
                    os.read(read_end, 4096)
                    self._reap()
                elif descriptor == driver:
                    return self.end()
                else:
                    self._hear(descriptor)
        return self.end()

    def _serve(self) -> bool:
        try:
            if not self.inbox.receive():
                return False
        except ConnectionError:
            return False
        for _, data in self.inbox.frames():
            message: messages.ToZygote = pickle.loads(data)
            if message[0] == messages.FORK:
                self._fork(*message[1:])
                if not self.complete:
                    _load(_FOR_SOME_CALLS)  # while the first worker starts
                    self.complete = True
            elif message[0] == messages.SIGNAL:
                self._signal(*message[1:])
            elif message[0] == messages.STOP:
                return False
        return True

    def _fork(self, worker: int, facts: messages.Facts) -> None:
        descriptors = [self.inbox.descriptors.pop(0) for _ in range(DESCRIPTORS)]
        if facts["cloudpickle"]:
            try:
                import cloudpickle  # noqa: F401  # once here, not in each worker
            except Exception as error:  # a worker that needs it says so, too
                print(f"cannot load cloudpickle for workers: {error}", file=sys.stderr)
        if facts.get("threads"):
            self._start_thread(worker, facts, descriptors)
            return
        try:
            pid = os.fork()
        except OSError as error:
            self._not_forked(worker, descriptors, error)
            return
        if pid == 0:
            self._become_worker(worker, facts, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.workers[pid] = worker
        # Nobody but we can reap it, so the number is still its own.
        process = platform.open_process(pid)
        if process < 0:
            self._tell((messages.STARTED, worker, pid, False))
            return
        self._tell((messages.STARTED, worker, pid, True), [process])
        os.close(process)

    def _not_forked(self, worker: int, descriptors: Sequence[int], error: OSError) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        self._tell((messages.ENDED, worker, 0, None, 0, f"cannot fork: {error}"))

    # -- workers that are threads -------------------------------------------------------------

    def _start_thread(self, worker: int, facts: messages.Facts, descriptors: list[int]) -> None:
        """Start a worker as a thread of the process for that, which is forked for the first one."""
        threads = self.newest
        if threads is None or threads.killed >= THREADS_LEFT:
            try:
                ours, theirs = platform.socket_pair()
                try:
                    pid = os.fork()
                except BaseException:
                    ours.close()
                    theirs.close()
                    raise
            except OSError as error:
                self._not_forked(worker, descriptors, error)
                return
            if pid == 0:
                ours.close()
                for descriptor in descriptors:  # they come with the first worker
                    os.close(descriptor)
                for other in self.threads.values():
                    other.sock.close()
                self._become_worker(worker, facts, theirs)
            theirs.close()
            before, self.newest = self.newest, _Threads(pid, ours)
            threads = self.threads[pid] = self.newest
            self.poller.register(ours, select.POLLIN)
            if before is not None:
                self._end_if_unused(before)
        threads.workers.add(worker)
        threads.tell((messages.FORK, worker, facts), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._tell((messages.STARTED, worker, threads.pid, False))

    def _hear(self, descriptor: int) -> None:
        """Pass on how threads of a process ended, if its socket is still there."""
        for threads in self.threads.values():
            if threads.sock.fileno() == descriptor:
                break
        else:
            return
        try:
            there = threads.inbox.receive(block=False)
        except BlockingIOError:  # it was about another socket, which had the same number
            return
        except ConnectionError:
            there = False
        if not there:
            self.poller.unregister(descriptor)  # it has ended, and is reaped next
        for _, data in threads.inbox.frames():
            message: messages.Ended = pickle.loads(data)
            if message[1] in threads.workers:
                threads.workers.remove(message[1])
                self._tell(message)
        self._end_if_unused(threads)

    def _end_if_unused(self, threads: _Threads) -> None:
        """End a process that gets no further workers and has none."""
        if threads is not self.newest and not threads.workers:
            _kill_group(threads.pid)

    def _threads_ended(self, threads: _Threads, status: int, peak_kib: int) -> None:
        """A process of threads was reaped, and all its workers with it."""
        if self.newest is threads:
            self.newest = None
        with contextlib.suppress(KeyError):  # `_hear` was faster
            self.poller.unregister(threads.sock)
        threads.inbox.close()
        for worker in threads.workers:
            self._tell((messages.ENDED, worker, threads.pid, status, peak_kib, ""))

    # -- workers that are processes -----------------------------------------------------------

    def _become_worker(
        self, worker: int, facts: messages.Facts, given: list[int] | platform.Socket
    ) -> None:
        """In a child: be a worker, or with a socket a process of threads that are workers."""
        status = 1
        try:
            os.setpgid(0, 0)
            platform.die_with_parent()
            if os.getppid() != facts["zygote"]:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.close()
            if isinstance(given, list):
                from mars.engines.worker import process as program

                status = program.main(worker, facts, given, self.pages)
            else:
                from mars.engines.worker import thread_host

                status = thread_host.main(facts, given)
        except BaseException as error:
            # Nothing is loaded for it: there may be no memory left for that.
            sys.__excepthook__(type(error), error, error.__traceback__)
        finally:
            if status >= 0:  # else Python is to end it, see `process.ENDS_BY_ITSELF`
                os._exit(status)
        raise SystemExit  # through all of the zygote's own frames, of which none holds it up

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = self._reap_one()
            except ChildProcessError:
                return
            if pid == 0 or usage is None:
                return
            worker = self.workers.pop(pid, None)
            peak_kib = usage.ru_maxrss if platform.LINUX else usage.ru_maxrss // 1024
            threads = self.threads.pop(pid, None)
            if threads is not None:
                self._threads_ended(threads, status, peak_kib)
            if worker is None:
                continue  # threads, or a grandchild that lost its parent
            self._tell((messages.ENDED, worker, pid, status, peak_kib, ""))

    def _reap_one(self) -> tuple[int, int, resource.struct_rusage | None]:
        """As `os.wait4`, of any child that has ended; what a worker leaves in its group is killed.

        That is done before the worker is reaped, where the system can tell: until then nobody else
        has its number.
        """
        if not hasattr(os, "waitid"):
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid in self.workers or pid in self.threads:
                _kill_group(pid)
            return pid, status, usage
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return 0, 0, None
        if ended.si_pid in self.workers or ended.si_pid in self.threads:
            _kill_group(ended.si_pid)
        return os.wait4(ended.si_pid, 0)

    def _signal(self, worker: int, number: int) -> None:
        """Signal a worker for a driver that has no descriptor of it."""
        for pid, known in self.workers.items():
            if known == worker:
                _kill(pid, number)
        for threads in self.threads.values():
            if worker in threads.workers:
                threads.killed += number == signal.SIGKILL
                threads.tell((messages.SIGNAL, worker, number))

    def _tell(self, message: messages.FromZygote, descriptors: Sequence[int] = ()) -> None:
        data = self.outgoing.frame(message)
        try:
            sent = platform.send(self.control, data, descriptors) if descriptors else 0
            self.control.sendall(memoryview(data)[sent:])
        except OSError:  # the driver is gone, or cannot know any more what is here
            self.lost = True

    def end(self) -> None:
        """Kill every worker and all that descends from them."""
        for pid in (*self.workers, *self.threads):
            _kill_group(pid)
        # A descendant may fork while it is being killed: look until nothing is left.
        for look in range(100):
            platform.kill_descendants(os.getpid())
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            time.sleep(0.001 if look < 5 else 0.005)


# Of children that were not reaped: nobody else has their numbers.


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        _kill(pid, signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


_FOR_ANY_CALL: Final = (
    "mars.engines.worker.process", "mars.attempt.diagnose", "mars.attempt.failure",
    "mars.code.pickling",
)  # fmt: skip
"""What a worker needs for a call, its result and its failure.

A call may take all descriptors of its process. So nothing of this is loaded after a call has begun.
"""

_FOR_SOME_CALLS: Final = ("mars.attempt.rows", "mars.engines.worker.requests")
"""What only maps and nested calls need. The first worker loads it when it is asked for."""


def _load(modules: Sequence[str]) -> None:
    """Import modules which workers that are forked from now on share."""
    gc.disable()  # it would look through all that is imported, several times
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # what all workers share stays as it is: no collector need look at it
    gc.enable()


def main(descriptor: int, driver: int, descriptors: int) -> None:
    """Entry point of the process that `launch` starts; calls have the program's limit."""
    platform.limit_descriptors(descriptors)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to act on
    platform.adopt_orphans()
    mounting = Mounting()
    _load(_FOR_ANY_CALL)
    platform.unbuffer_c_output()
    platform.keep_heap(HEAP_KEPT_BYTES)
    _Zygote(platform.Socket(fileno=descriptor), driver, mounting.wait()).run()
    sys.stdout.flush()
    os._exit(0)  # the driver waits, and to take an interpreter apart takes 10 ms
