"""Memory: a budget for objects, disks that fill up, limits of calls, and the kernel's killer."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mars
import mars.remote as mr
from mars.errors import StoreFull, WorkerDied
from tests.faults.conftest import Program

np = pytest.importorskip("numpy")

MIB = 2**20


def block(seed: int, size: int) -> Any:
    """``size`` bytes that only ``seed`` gives."""
    return np.random.default_rng(seed).integers(0, 2**63, size // 8)


def total(one: Any, *more: Any) -> int:
    return int(sum(int(part.sum() & 0xFFFF) for part in (one, *more)))


class Watch:
    """The most that this process and its descendants take, beyond what they took at first."""

    def __init__(self) -> None:
        self.first = self._now()
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _now(self) -> int:
        size = self._arenas()
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                # What is mapped from a disk file can be had back any time: it is no cost.
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss_Anon:"):
                        size += int(line.split()[1]) * 1024
            except (OSError, psutil.Error):
                continue
        return size

    def _arenas(self) -> int:
        """Arenas in memory, whether mapped or not: the driver has a descriptor of each."""
        files: dict[int, int] = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                if "mars-arena" in os.readlink(f"/proc/self/fd/{name}"):
                    found = os.fstat(int(name))
                    files[found.st_ino] = found.st_blocks * 512
            except OSError:
                continue
        return sum(files.values())

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, self._now() - self.first)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def spill(count: int, size: int, budget: int, folder: Path) -> None:
    session = mars.new_session(n_cpu=2, object_memory=budget, spill_directory=folder)
    try:
        with Watch() as watch:
            made = [mr.spawn(block, args=(seed, size)) for seed in range(count)]
            pairs = [
                mr.spawn(total, args=(made[i], made[(i * 7 + 3) % count])) for i in range(count)
            ]
            mr.ExecutableTuple([*made, *pairs]).execute(session=session)
            sums = [pair.fetch(session=session) for pair in pairs]
            # All are alive now, and most of them on disk.
            taken = sum(
                os.fstat(arena[0]).st_blocks * 512
                for number, arena in session.engine.store._arenas.items()
                if number & (1 << 19)
            )
            assert taken >= count * size - budget - 64 * MIB
            assert os.listdir(folder) == []
            for seed in range(0, count, max(1, count // 8)):
                assert (made[seed].fetch(session=session) == block(seed, size)).all()
        expected = [total(block(seed, size)) for seed in range(count)]
        assert sums == [expected[i] + expected[(i * 7 + 3) % count] for i in range(count)]
        assert watch.peak <= budget + 400 * MIB, f"{watch.peak / MIB:.0f} MiB"
        del made, pairs
    finally:
        session.stop_server()


def test_objects_beyond_the_budget_go_to_disk_and_come_back_unseen(tmp_path: Path) -> None:
    spill(count=48, size=16 * MIB, budget=128 * MIB, folder=tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_eight_gib_of_objects_within_a_budget_of_one(tmp_path: Path) -> None:
    spill(count=256, size=32 * MIB, budget=1024 * MIB, folder=tmp_path)


def test_the_memory_of_dropped_objects_is_used_before_the_disk(tmp_path: Path) -> None:
    with mars.new_session(n_cpu=1, object_memory="64MiB", spill_directory=tmp_path) as session:
        for seed in range(20):
            call = mr.spawn(block, args=(seed, 24 * MIB))
            assert (call.execute(session=session).fetch() == block(seed, 24 * MIB)).all()
            del call
        store = session.engine.store
        assert store.spilled_bytes == 0
        assert store.ledger.total() <= 64 * MIB
        session.stop_server()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder],
            check=False,
            capture_output=True,
        ).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_that_names_the_call_and_the_rest_goes_on(
    small_disk: Path,
) -> None:
    session = mars.new_session(n_cpu=2, object_memory="8MiB", spill_directory=small_disk)
    try:
        held = mr.spawn(block, args=(0, 8 * MIB)).execute(session=session)
        fits = mr.spawn(block, args=(1, 12 * MIB)).execute(session=session)
        too_much = mr.spawn(block, args=(2, 12 * MIB), name="too much")
        small = [mr.spawn(pow, args=(i, 2)) for i in range(20)]
        mr.ExecutableTuple([too_much, *small]).execute(session=session, on_error="continue")
        with pytest.raises(StoreFull, match="No space left") as caught:
            too_much.fetch(session=session)
        assert any("too much" in note for note in caught.value.__notes__)
        assert [one.fetch(session=session) for one in small] == [i * i for i in range(20)]
        assert (held.fetch(session=session) == block(0, 8 * MIB)).all()
        assert (fits.fetch(session=session) == block(1, 12 * MIB)).all()
        with pytest.raises(StoreFull, match="an argument of total"):
            mr.spawn(total, args=(block(3, 12 * MIB),)).execute(session=session)
        # Room on the disk is room again.
        del fits, too_much, caught
        assert mr.spawn(block, args=(4, 12 * MIB)).execute(session=session).fetch().size
    finally:
        session.stop_server()


def test_a_spill_directory_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spill_directory"):
        mars.new_session(spill_directory=tmp_path / "missing")
    with pytest.raises(ValueError, match="object_memory"):
        mars.new_session(object_memory="much")


# -- limits of calls --------------------------------------------------------------------------


def grab(size: int) -> int:
    return len(bytearray(size))


@pytest.mark.usefixtures("still_works")
def test_a_call_that_takes_more_than_its_memory_fails_and_says_so(
    session: mars.session.Session,
) -> None:
    greedy = mr.spawn(grab, args=(300 * MIB,), memory="100MiB")
    modest = [mr.spawn(grab, args=(50 * MIB,), memory="100MiB") for _ in range(4)]
    free = mr.spawn(grab, args=(300 * MIB,))
    mr.ExecutableTuple([greedy, *modest, free]).execute(on_error="continue")
    with pytest.raises(MemoryError) as caught:
        greedy.fetch()
    assert any("memory=104,857,600" in note for note in caught.value.__notes__)
    assert [one.fetch() for one in modest] == [50 * MIB] * 4
    assert free.fetch() == 300 * MIB, "the limit is the call's, not the worker's"


def lower_the_hard_limit() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = 2**36 if hard == resource.RLIM_INFINITY else hard - 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit - 2**20, limit))
    return "done"


@pytest.mark.usefixtures("still_works")
def test_a_call_with_a_limit_may_lower_it_itself(session: mars.session.Session) -> None:
    calls = [mr.spawn(lower_the_hard_limit, memory="100MiB") for _ in range(4)]
    assert mr.ExecutableTuple(calls).execute().fetch() == ["done"] * 4


def hold_nested(size: int) -> int:
    made = mr.spawn(block, args=(0, size))
    return int(made.execute().fetch().nbytes)


@pytest.mark.usefixtures("still_works")
def test_what_a_call_maps_of_others_is_not_what_it_takes(session: mars.session.Session) -> None:
    large = mr.spawn(block, args=(5, 200 * MIB))
    limited = mr.spawn(total, args=(large,), memory="50MiB")
    assert limited.execute().fetch() == total(block(5, 200 * MIB))
    assert mr.spawn(hold_nested, args=(200 * MIB,), memory="50MiB").execute().fetch() == 200 * MIB


def test_a_call_for_more_memory_than_there_is_is_refused_before_anything_runs(
    session: mars.session.Session,
) -> None:
    with pytest.raises(mars.errors.NoAvailableBand, match="memory="):
        mr.spawn(grab, args=(1,), memory="1000TiB").execute()


OVERLAP = """
import os, sys, time
import mars.remote as mr

def hold(size, path):
    data = bytearray(size - 100 * 2**20)
    for place in range(0, len(data), 4096):
        data[place] = 1
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"+")
    time.sleep(0.1)
    os.write(fd, b"-")
    return os.getpid()

options = {} if sys.argv[1] == "learned" else {"memory": "600MiB"}
if not options:
    mr.spawn(hold, args=(600 * 2**20, "first")).execute()
mr.ExecutableTuple(
    [mr.spawn(hold, args=(600 * 2**20, "trace"), **options) for _ in range(4)]
).execute()
print(open("trace").read())
"""


@pytest.mark.parametrize("how", ["asked", "learned"])
def test_calls_that_do_not_fit_together_do_not_run_together(
    how: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    environment = {**script_environment, "SLURM_MEM_PER_NODE": "1024", "MARS_CPUS": "2"}
    one = Program(tmp_path, environment, OVERLAP, how)
    try:
        assert one.line() == "+-" * 4, one.errors()
    finally:
        one.close()


# -- the kernel's out-of-memory killer --------------------------------------------------------


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group that may take 400 MiB."""
    base = Path("/sys/fs/cgroup/memory")
    version_1 = base.is_dir()
    group = (base if version_1 else base.parent) / f"mars-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if version_1 else "memory.max")
        limit.write_text(str(400 * MIB))
    except OSError:
        pytest.skip("needs the right to make a control group")
    yield group
    deadline = time.monotonic() + 30
    while True:
        try:
            group.rmdir()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


HOGS = """
import os, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
import mars
import mars.remote as mr
from mars.errors import WorkerDied

def hog(size):
    data = bytearray(size)
    for place in range(0, size, 4096):
        data[place] = 1
    return size

mars.new_session(n_cpu=3, default=True)
M = 2**20
# Alone each fits; together they do not. The last fits nowhere.
together = [mr.spawn(hog, args=(200 * M,), name=f"hog {i}") for i in range(3)]
never = mr.spawn(hog, args=(600 * M,), name="too large")
small = [mr.spawn(pow, args=(i, 2)) for i in range(50)]
mr.ExecutableTuple([*together, never, *small]).execute(on_error="continue")
try:
    never.fetch()
except WorkerDied as error:
    print("died:", str(error).replace("\\n", " | "))
print([one.fetch() // M for one in together])
print(sum(one.fetch() for one in small))
"""


def test_out_of_memory_costs_the_calls_that_took_it_and_never_the_program(
    program: Callable[..., Program], memory_group: Path
) -> None:
    one = program(HOGS, str(memory_group))
    died = one.line()
    assert died.startswith("died:") and "too large" in died, (died, one.errors())
    assert "memory ran out" in died and "SIGKILL" in died
    assert one.line() == "[200, 200, 200]", one.errors()
    assert one.line() == str(sum(i * i for i in range(50)))
    assert one.wait() == 0
    one.assert_nothing_left()


def adjustment() -> str:
    return Path("/proc/self/oom_score_adj").read_text().strip()


def test_the_kernel_ends_workers_before_the_program(session: mars.session.Session) -> None:
    assert mr.spawn(adjustment).execute().fetch() == "1000"
    assert adjustment() != "1000"
    assert issubclass(WorkerDied, mars.errors.TaskError)
