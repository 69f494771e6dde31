"""Workers that do nothing end as any Python process ends: exit handlers run, files are written."""

from __future__ import annotations

import atexit
import gzip
import importlib
import logging.handlers
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr

Lines = Callable[[object], list[str]]
Note = Callable[..., None]
Wait = Callable[..., None]

pytestmark = pytest.mark.usefixtures("local_only")


@pytest.fixture
def own(engine: str, session: mars.session.Session) -> Iterator[mars.session.Session]:
    """An engine of one worker for the test alone, which ends it."""
    opened = mars.new_session(engine=engine, n_cpu=1, default=False)
    yield opened
    opened.stop_server()


def run(session: mars.session.Session, function: Callable[..., Any], *args: object) -> Any:
    return mr.spawn(function, args).execute(session=session).fetch(session=session)


KEPT: list[object] = []


def leave_all_kinds(folder: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def write(name: str, text: str = "done") -> None:
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)

    def write_late() -> None:
        time.sleep(0.1)  # until after the call, or its thread would say nothing
        write("thread")

    atexit.register(write, "atexit")

    class Owner:
        pass

    owner = Owner()
    weakref.finalize(owner, write, "finalizer")
    text = open(f"{folder}/text", "w")  # noqa: SIM115
    text.write("done")
    zipped = gzip.open(f"{folder}/zipped", "wt")  # noqa: SIM115
    zipped.write("done")
    log = logging.FileHandler(f"{folder}/log")
    memory = logging.handlers.MemoryHandler(100, target=log)
    memory.emit(logging.makeLogRecord({"msg": "done", "levelno": logging.INFO}))
    temporary = tempfile.TemporaryDirectory(dir=folder, prefix="temporary")
    pool = ThreadPoolExecutor(1)
    pool.submit(time.sleep, 0.05)
    pool.submit(write, "pool")
    threading.Thread(target=write_late).start()
    KEPT.extend([owner, text, zipped, log, memory, temporary, pool])


KINDS = ["atexit", "finalizer", "log", "pool", "text", "thread", "zipped"]


def read_all(folder: Path) -> dict[str, str]:
    return {
        file.name: gzip.open(file, "rt").read() if "zipped" in file.name else file.read_text()
        for file in sorted(folder.iterdir())
        if file.is_file()
    }


def test_at_the_end_of_an_engine_all_is_run_and_written(
    own: mars.session.Session, tmp_path: Path
) -> None:
    run(own, leave_all_kinds, str(tmp_path))
    assert any(path.name.startswith("temporary") for path in tmp_path.iterdir())
    own.stop_server()
    assert {name: text.strip() for name, text in read_all(tmp_path).items()} == dict.fromkeys(
        KINDS, "done"
    )
    assert not any(path.name.startswith("temporary") for path in tmp_path.iterdir())


def test_also_when_the_last_session_is_closed(own: mars.session.Session, tmp_path: Path) -> None:
    run(own, leave_all_kinds, str(tmp_path))
    own.close()
    assert sorted(read_all(tmp_path)) == KINDS


def test_also_where_the_program_just_ends(run_python: Callable[..., Any], engine: str) -> None:
    done = run_python(
        f"""
import atexit
import mars, mars.remote as mr
mars.new_session(engine={engine!r}, n_cpu=1)
def work():
    def write():
        with open("at-the-end", "w") as file:
            file.write("done")
    atexit.register(write)
    global kept
    kept = open("still-open", "w")
    kept.write("done")
mr.spawn(work).execute()
"""
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.args[1]).parent
    assert (folder / "at-the-end").read_text() == "done"
    assert (folder / "still-open").read_text() == "done"


def test_a_process_that_a_call_spoiled_runs_its_handlers_before_it_is_replaced(
    own: mars.session.Session, tmp_path: Path, lines: Lines, wait_until: Wait
) -> None:
    def spoil() -> int:
        import resource

        told = os.open(tmp_path / "told", os.O_WRONLY | os.O_CREAT)
        atexit.register(os.write, told, b"handler\n")
        if os.getuid() == 0:
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return os.getpid()

    pid = run(own, spoil)
    assert run(own, os.getpid) != pid
    wait_until(lambda: lines(tmp_path / "told") == ["handler"])


def test_workers_that_nested_calls_needed_run_their_handlers_when_they_are_retired(
    own: mars.session.Session, tmp_path: Path, note: Note, lines: Lines, wait_until: Wait
) -> None:
    def inner(depth: int) -> int:
        atexit.register(note, tmp_path / "told", depth)
        if depth:
            return 1 + mr.spawn(inner, args=depth - 1).to_object()
        return 0

    assert run(own, inner, 4) == 4
    wait_until(lambda: len(lines(tmp_path / "told")) >= 3)  # while the engine lives


def test_a_handler_that_raises_keeps_no_other_from_running(
    own: mars.session.Session, tmp_path: Path, note: Note, lines: Lines
) -> None:
    def work() -> None:
        def refuse() -> None:
            raise ValueError("no")

        atexit.register(note, tmp_path / "told", "first")
        atexit.register(refuse)
        atexit.register(os.close, 10**6)
        atexit.register(note, tmp_path / "told", "last")

    run(own, work)
    own.stop_server()
    assert lines(tmp_path / "told") == ["last", "first"]


def hang_in_python() -> None:
    time.sleep(600)


def hang_in_c() -> None:
    """Holds the interpreter, so no thread of the process could end it."""
    import re

    re.match("(a*)*b", "a" * 40)


def ignore_alarms_and_hang() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(600)


@pytest.mark.parametrize(
    "hang", [hang_in_python, hang_in_c, ignore_alarms_and_hang], ids=lambda f: f.__name__
)
def test_a_handler_that_hangs_is_killed(
    own: mars.session.Session, hang: Callable[[], None]
) -> None:
    def work() -> int:
        atexit.register(hang)
        return os.getpid()

    process = psutil.Process(run(own, work))
    own.stop_server()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_thread_that_does_not_end_is_killed_with_its_worker(own: mars.session.Session) -> None:
    def work() -> int:
        threading.Thread(target=time.sleep, args=(600,)).start()
        return os.getpid()

    process = psutil.Process(run(own, work))
    own.stop_server()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_handler_that_asks_for_calls_is_told_that_nobody_answers(
    own: mars.session.Session, tmp_path: Path, note: Note, lines: Lines
) -> None:
    def ask() -> None:
        try:
            mr.spawn(abs, args=-1).execute()
        except Exception as error:
            note(tmp_path / "told", type(error).__name__)

    def work() -> None:
        mr.spawn(abs, args=-1).execute()
        atexit.register(ask)

    run(own, work)
    own.stop_server()
    assert lines(tmp_path / "told") == ["SessionClosed"]  # it was not killed while it waited


def test_a_worker_in_a_call_is_not_waited_for(
    own: mars.session.Session, tmp_path: Path, note: Note, wait_until: Wait
) -> None:
    def work() -> None:
        atexit.register(time.sleep, 600)
        note(tmp_path / "started")
        time.sleep(600)

    execution = mr.spawn(work).execute(session=own, wait=False)
    wait_until((tmp_path / "started").exists)
    own.stop_server()
    with pytest.raises(mars.errors.SessionClosed):
        execution.result(timeout=200)


HOLDER = """
import gzip, os
MARK = {mark}
def new(kind, how=open):
    return how("{folder}/" + kind if os.getpid() != {pid} else os.devnull, "wt")
plain = new("plain-{mark}")
zipped = new("zipped-{mark}", gzip.open)
inside = [dict(file=new("inside-{mark}"))]
class Held:
    first = None
    def keep(self):
        self.file = new("held-{mark}")
        self.file.write("done")
        Held.first = self
def close():
    for file in (plain, zipped, inside[0]["file"]):
        file.close()
def write():
    for file in (plain, zipped, inside[0]["file"]):
        file.write("done")
    Held().keep()
    return MARK
"""


def test_files_that_modules_and_classes_hold_are_written(
    own: mars.session.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, modules = tmp_path / "files", tmp_path / "modules"
    folder.mkdir()
    modules.mkdir()
    monkeypatch.syspath_prepend(str(modules))
    module: Any = None
    for mark in (1, 2):  # the first one is put aside when the second one runs
        text = HOLDER.format(mark=mark, pid=os.getpid(), folder=folder)
        (modules / "holder_of_files.py").write_text(text)
        importlib.invalidate_caches()
        if module is None:
            module = importlib.import_module("holder_of_files")
        else:
            importlib.reload(module)
        assert run(own, module.write) == mark
        module.close()
    own.stop_server()
    del sys.modules["holder_of_files"]
    assert {name: text.strip() for name, text in read_all(folder).items()} == {
        f"{kind}-{mark}": "done"
        for kind in ("held", "inside", "plain", "zipped")
        for mark in (1, 2)
    }


class Keeper:
    """Of a module that travels by value here."""

    first: Any = None

    def keep(self, path: str) -> None:
        self.file = open(path, "w")  # noqa: SIM115
        self.file.write("done")
        Keeper.first = self


def test_a_file_that_an_instance_at_its_own_class_holds_is_written(
    own: mars.session.Session, tmp_path: Path
) -> None:
    run(own, Keeper().keep, str(tmp_path / "kept"))
    own.stop_server()
    assert (tmp_path / "kept").read_text() == "done"
