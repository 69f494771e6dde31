"""What a checkpoint costs: nothing without one, little with one."""

from __future__ import annotations

import gc
import statistics
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.checkpoint import checkpoint, digests, journal
from mars.checkpoint.index import Index
from mars.checkpoint.local_folder import LocalFolder


def test_a_journal_of_a_hundred_thousand_calls_opens_within_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "otto").mkdir()
    with (tmp_path / "otto" / "journal.mars").open("wb") as file:
        for index in range(100_000):
            key = blake2b(b"%d" % index, digest_size=16).digest()
            meta = journal.CALL_META.pack(
                key,
                bytes(8),
                30,
                0,
                1e9,
                0.1,
                0.2,
                0.3,
                0.4,
                index,
                journal.WHOLE,
                0,
                1,
                0,
                0,
                0,
                0,
            )
            for part in journal.record(journal.CALL, meta + bytes(8), [bytes(80)]):
                file.write(part)
    folder = LocalFolder(str(tmp_path / "otto"), create=False)
    started = time.process_time()  # the machine may be busy with something else
    index_of_all = Index(folder)
    taken = time.process_time() - started
    folder.close()
    assert len(index_of_all.calls) == 100_000
    assert taken <= 2


def test_without_a_checkpoint_nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("it was asked what a call is")

    monkeypatch.setattr(digests, "code_of", refuse)
    monkeypatch.setattr(digests, "arguments_of", refuse)
    monkeypatch.setattr(checkpoint.Checkpoint, "landed", refuse)
    with mars.new_session(n_cpu=1) as session:
        calls = [mr.spawn(abs, -index) for index in range(50)]
        assert session.fetch(session.execute(calls)) == list(range(50))
        assert mr.map(abs, range(-3, 0)).execute().fetch() == [3, 2, 1]
        assert not any(hasattr(one._call, "identity") for one in calls)


def test_import_mars_loads_nothing_of_checkpoints(run_python: Any) -> None:
    code = (
        "import sys, mars\n"
        "with mars.new_session(engine='inline'): pass\n"
        "print(sorted(name for name in sys.modules "
        "if name.startswith('mars.checkpoint') or name == 'fsspec'))"
    )
    assert run_python(code).stdout == "[]\n"


def spin(seconds: float, _: int) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.lab
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("call_s", "count", "limit"), [(0.001, 20_000, 0.05), (0.02, 1500, 0.01)])
def test_a_checkpoint_costs_at_the_most(
    tmp_path: Path, call_s: float, count: int, limit: float
) -> None:
    def once(where: Any) -> tuple[float, float]:
        with mars.new_session(n_cpu=2, checkpoint=where) as session:
            session.execute([mr.spawn(spin, (call_s, -i)) for i in range(1, 50)])
            calls = [mr.spawn(spin, (call_s, index)) for index in range(count)]
            gc.collect()
            cpu, started = time.process_time(), time.perf_counter()
            session.execute(calls, show_progress=False)
            return time.perf_counter() - started, (time.process_time() - cpu) / count

    ratios, cpus = [], []
    for turn in range(8):
        pair = [turn % 2 == 1, turn % 2 == 0]  # what a machine does meanwhile hits both alike
        taken = {kept: once(tmp_path / f"otto{turn}" if kept else False) for kept in pair}
        ratios.append(taken[True][0] / taken[False][0] - 1)
        cpus.append(taken[True][1] - taken[False][1])
    ratio = statistics.median(ratios)
    print(
        f"calls of {call_s * 1e3:g} ms: {ratio:+.2%} ({min(ratios):+.2%} to {max(ratios):+.2%}), "
        f"{statistics.median(cpus) * 1e6:.0f} us more of the program's CPU time for each"
    )
    assert ratio <= limit
