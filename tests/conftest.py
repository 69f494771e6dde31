"""What every test module shares: a guard against leftovers, waiting without sleeping, scripts.

The guard is the test of "what starts, stops": after the last test of a module, when the module's
own sessions are stopped, no process, thread, descriptor or file of ours may remain. Called by
pytest for every module; a module fails here even when all of its tests passed.
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

hypothesis.settings.register_profile("mars", deadline=None)  # no test is judged by its time
hypothesis.settings.load_profile("mars")

SETTLE_S = 20.0
"""Time for what was stopped to be gone. Processes are reaped in milliseconds; a loaded machine
may need seconds."""

ALLOWED_THREADS = ("pytest_timeout", "pydevd", "ThreadPoolExecutor", "asyncio_", "Dask-")
ALLOWED_PROCESSES = (
    "resource_tracker",
    "resource-tracker",
    "semaphore_tracker",
    "loky",
    "ray::",
    "import sys, ray",
    "/ray/",
)
ALLOWED_TARGETS = ("/dev/null", "/dev/urandom", "/dev/random", ".pyc", ".coverage")
ALLOWED_TEMPORARY = ("pytest-", "joblib_memmapping", "matplotlib", "loky", "pymp-", "ray")
RAY_DESCRIPTORS = 16


SWITCHES = (
    "CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "MARS_ADDRESS",
)  # fmt: skip
"""Variables that change what a program prints or how many threads it has: a test that wants one
sets it, whatever the machine that runs the tests has set."""


ON_CLUSTERS = ("cluster", "deploy", "lab")
"""Folders whose tests need Dask or Ray, as do others that are given one of these engines."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a cluster: `make test` runs it in a process of its own.

    Dask and Ray, once imported and running, change what other tests look at: children, listeners,
    descriptors, how exceptions are pickled.
    """
    here = Path(__file__).parent
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {}).values()
        folder = item.path.relative_to(here).parts[0]
        chosen = folder in ("engines", "resume", "surface") and any(
            one in ("dask", "ray") for one in given
        )
        if folder in ON_CLUSTERS or chosen:
            item.add_marker(pytest.mark.clusters)


def pytest_configure(config: pytest.Config) -> None:
    """Give this run a temporary directory of its own, so that what appears in it is ours."""
    for name in SWITCHES:
        os.environ.pop(name, None)
    # A shell starts what runs in the background with SIGINT ignored, and all below it would be.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Programs can be found by their user in a folder; in ours, only by these tests.
    runtime = tempfile.mkdtemp(prefix="pytest-runtime-")
    config.add_cleanup(lambda: shutil.rmtree(runtime, ignore_errors=True))
    os.environ["XDG_RUNTIME_DIR"] = runtime
    # Ray reads them once, when it is imported.
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    own = tempfile.mkdtemp(prefix="mars-tests-")
    os.environ["TMPDIR"] = own
    tempfile.tempdir = own
    config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))


def _poll(condition: Callable[[], object], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _children() -> dict[int, str]:
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline()) or child.name()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            command = "?"
        if not any(allowed in command for allowed in ALLOWED_PROCESSES):
            found[child.pid] = command
    return found


def _descriptors() -> dict[int, str]:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return {}
    found = {}
    for entry in os.listdir(folder):
        try:
            target = os.readlink(folder / entry)
        except OSError:  # the descriptor of the listing itself
            continue
        if not any(allowed in target for allowed in ALLOWED_TARGETS):
            found[int(entry)] = target
    return found


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {name for name in os.listdir(folder) if "mars" in name} if folder.exists() else set()


def _temporary() -> set[str]:
    return {
        name for name in os.listdir(tempfile.gettempdir()) if not name.startswith(ALLOWED_TEMPORARY)
    }


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.name.startswith(ALLOWED_THREADS)}


@pytest.fixture(scope="module", autouse=True)
def leak_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the module when it leaves a process, thread, descriptor or file behind."""
    processes, threads = _children(), _threads()
    descriptors, shared, temporary = _descriptors(), _shared_memory(), _temporary()
    yield

    def leftovers() -> dict[str, object]:
        # What the last failed test left for a debugger holds its objects, and so their files.
        for name in ("last_value", "last_traceback", "last_exc"):
            vars(sys).pop(name, None)
        gc.collect()
        # Ray's client itself leaves some open whenever it disconnects.
        spare = RAY_DESCRIPTORS if "ray" in sys.modules else 0
        grown = len(_descriptors()) - len(descriptors) - spare
        candidates: dict[str, object] = {
            "processes": {p: c for p, c in _children().items() if p not in processes},
            "threads": [t.name for t in _threads() - threads],
            "descriptors": sorted(set(_descriptors().items()) - set(descriptors.items()))
            if grown > 0
            else [],
            "/dev/shm": sorted(_shared_memory() - shared),
            "temporary directory": sorted(_temporary() - temporary),
        }
        return {kind: found for kind, found in candidates.items() if found}

    if not _poll(lambda: not leftovers(), SETTLE_S):
        pytest.fail(f"{request.node.name} leaves behind {leftovers()}", pytrace=False)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """``wait_until(condition, limit_s=30)``: poll until true, fail past the limit.

    The limit tells what comes late from what never comes: a busy machine must not reach it.
    """

    def wait(condition: Callable[[], object], limit_s: float = 30.0) -> None:
        assert _poll(condition, limit_s), f"did not happen within {limit_s} s"

    return wait


@pytest.fixture(scope="session")
def note() -> Callable[..., None]:
    """``note(path, text)`` appends one line, atomically, from any process: a ledger of runs."""

    def note(path: object, text: object = "run") -> None:
        descriptor = os.open(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{text}\n".encode())
        finally:
            os.close(descriptor)

    return note


@pytest.fixture(scope="session")
def lines() -> Callable[[object], list[str]]:
    """``lines(path)`` reads a ledger; a missing one is empty."""

    def lines(path: object) -> list[str]:
        file = Path(str(path))
        return file.read_text().splitlines() if file.exists() else []

    return lines


@pytest.fixture(scope="session")
def pass_gate() -> Callable[..., None]:
    """``pass_gate(path)`` inside a call returns once the file exists; fails past the limit."""

    def pass_gate(path: object, limit_s: float = 50.0) -> None:
        deadline = time.monotonic() + limit_s
        while not os.path.exists(str(path)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the gate {path} was not opened within {limit_s} s")
            time.sleep(0.005)

    return pass_gate


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[float], None]]:
    """``ctrl_c(0.3)`` presses it in so many seconds; also where a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers = []

    def press(after_s: float) -> None:
        timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGINT))
        timers.append(timer)
        timer.start()

    yield press
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def script_environment() -> dict[str, str]:
    """An environment in which ``python`` finds the same mars as this process."""
    import mars

    source = str(Path(mars.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([source, inherited] if inherited else [source])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def run_python(
    script_environment: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_python(code, stdin=True)`` runs a program from stdin, or from a file."""

    def run(
        code: str, *arguments: str, stdin: bool = False, limit_s: float = 50.0
    ) -> subprocess.CompletedProcess[str]:
        if stdin:
            command = [sys.executable, "-", *arguments]
        else:
            program = tmp_path / "program.py"
            program.write_text(code)
            command = [sys.executable, str(program), *arguments]
        return subprocess.run(
            command,
            input=code if stdin else None,
            stdin=None if stdin else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=script_environment,
            cwd=tmp_path,
            check=False,
        )

    return run


RAY_HEAD = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         configure_logging=False, _node_ip_address="127.0.0.1")
print("at", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="session")
def ray_head() -> Iterator[str]:
    """Address of a Ray that runs beside the tests; started when the first of them wants it."""
    head = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RAY_HEAD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert head.stdin is not None and head.stdout is not None
    line = head.stdout.readline()
    while line and not line.startswith("at "):
        line = head.stdout.readline()
    yield line.removeprefix("at ").strip()
    head.stdin.close()
    head.wait()
    head.stdout.close()


@pytest.fixture(scope="module")
def ray_here(leak_guard: None, ray_head: str) -> Iterator[None]:
    """Have this process connected with that Ray, as a program would that uses Ray itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of packages that it uses
        import ray

        ray.init(address=ray_head, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the program's own modules, on `sys.path`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
