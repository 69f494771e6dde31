"""What the original's own tests show of its behaviour, said again in our words.

Each case names the test of Mars that it comes from. Cases about tensors and frames are left
out: there are none here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
import mars.session
from mars.remote import ExecutableTuple, spawn

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


CLUSTER = os.environ.get("MARS_TEST_CLUSTER")
"""Address of a cluster that these tests are to run on, for a test that runs them there."""


@pytest.fixture(
    scope="module",
    autouse=True,
    params=[CLUSTER]
    if CLUSTER
    else [
        "local",
        pytest.param("dask", marks=pytest.mark.campaign),
        pytest.param("ray", marks=pytest.mark.campaign),
    ],
)
def session(request: pytest.FixtureRequest, leak_guard: None) -> Iterator[mars.session.Session]:
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    if CLUSTER:
        opened = mars.new_session(CLUSTER, backend="mars", default=True, web=False)
    else:
        opened = mars.new_session(
            backend="mars", engine=request.param, n_cpu=2, default=True, web=False
        )
    yield opened
    opened.stop_server()


# -- mars/remote/tests/test_remote_function.py -------------------------------------------------


def test_arguments_of_every_form_meet_in_one_formula() -> None:
    """test_remote_function"""

    def plus(x: int) -> int:
        return x + 1

    def combine(x: int, y: int, z: object = None, **named: int) -> int:
        first, second = z["parts"]  # type: ignore[index]
        return x * y * (first + second) + sum(named.values())

    a, b = spawn(plus, 2), spawn(plus, args=(3,))
    c, d = spawn(plus, args=4), spawn(plus, kwargs={"x": 5})
    total = spawn(combine, args=(a, b), kwargs={"z": {"parts": [c, d]}, "extra": a})
    assert total.execute().fetch() == 3 * 4 * (5 + 6) + 3


def test_the_default_session_inside_a_function_is_the_callers() -> None:
    """test_remote_function"""
    expected = mars.session.get_default_session().session_id

    def check() -> str:
        from mars.session import get_default_session

        found: str = get_default_session().session_id
        return found

    assert spawn(check).execute().fetch() == expected


def test_words_are_counted_by_mappers_with_two_outputs_and_reducers() -> None:
    """test_multi_output"""
    sentences = ["word1 word2", "word2 word3", "word3 word2 word1"]

    def mapper(sentence: str) -> list[defaultdict[str, int]]:
        shards: list[defaultdict[str, int]] = [defaultdict(lambda: 0), defaultdict(lambda: 0)]
        for word in sentence.split():
            shards[ord(word[-1]) % 2][word] += 1
        return shards

    def reducer(counted: list[dict[str, int]]) -> dict[str, int]:
        total: dict[str, int] = defaultdict(lambda: 0)
        for counts in counted:
            for word, count in counts.items():
                total[word] += count
        return dict(total)

    columns: tuple[list[object], list[object]] = ([], [])
    for sentence in sentences:
        left, right = spawn(mapper, sentence, n_output=2)
        columns[0].append(left)
        columns[1].append(right)
    result: dict[str, int] = {}
    for counts in ExecutableTuple([spawn(reducer, column) for column in columns]).to_object():
        result.update(counts)
    assert result == {"word1": 2, "word2": 3, "word3": 2}


def test_calls_chain() -> None:
    """test_chained_remote"""
    inner = spawn(lambda x: x + 1, 2)
    assert spawn(lambda x: x * 2, inner).execute().fetch() == 6


def test_calls_that_return_none_can_be_waited_for_as_inputs() -> None:
    """test_none_outputs"""

    def nothing(*_: object) -> None:
        pass

    first = spawn(nothing)
    second = spawn(nothing, args=(first,))
    third = spawn(nothing, args=([first, second],))
    assert third.execute().fetch() is None


def test_an_exception_beside_arguments_that_pickle_badly_comes_out() -> None:
    """test_remote_with_unpickable"""
    payload = [{"key": lambda: 1}, lambda: 2]

    def fail(*_: object) -> None:
        raise TypeError("from the function")

    with pytest.raises(TypeError, match="from the function"):
        spawn(fail, args=(payload,)).execute()


def test_a_function_finds_its_worker_and_can_be_sent_to_it() -> None:
    """test_context"""
    workers = spawn(lambda: mars.get_context().get_worker_addresses()).execute().fetch()
    assert len(workers) > 0
    for worker in workers:

        def here(expected: str) -> bool:
            return bool(mars.get_context().worker_address == expected)

        assert spawn(here, args=(worker,), expect_worker=worker).execute().fetch()


# -- mars/tests/test_session.py ----------------------------------------------------------------


def test_a_run_without_waiting_gives_the_executed_object_or_its_value() -> None:
    """test_session_async_execute"""
    call = spawn(sum, args=([1, 2, 3],))
    assert call.execute(wait=False).result().fetch() == 6
    assert spawn(sum, args=([1, 2, 3],)).to_object(wait=False).result() == 6
    assert mars.execute(spawn(int), spawn(int), wait=False).result()[1].fetch() == 0


def test_a_named_tuple_of_calls_is_executable() -> None:
    """test_executable_tuple_execute"""
    result = namedtuple("result", "model score")
    calls = ExecutableTuple(result(spawn(str, args=("m",)), spawn(float, args=("0.5",))))
    fetched = calls.execute().fetch()
    assert fetched == result("m", 0.5)
    assert fetched.score == 0.5


def test_a_closed_session_raises_runtime_error(session: mars.session.Session) -> None:
    """test_closed_session"""
    closed = mars.new_session(session.address, default=False)
    with closed:
        call = spawn(int).execute(session=closed)
        assert call.fetch(session=closed) == 0
    with pytest.raises(RuntimeError, match=r"^Session closed already$"):
        spawn(int).execute(session=closed)


def repeat(text: str, times: int) -> None:
    print(text * times)
    sys.stdout.flush()


def test_logs_of_several_functions_are_read_in_parts() -> None:
    """test_fetch_log"""
    calls = ExecutableTuple([spawn(repeat, args=("f1", 30)), spawn(repeat, args=("f1", 40))])
    calls.execute()
    logs = mr.ExecutableTuple(calls).fetch_log()
    assert [str(log) for log in logs] == ["f1" * 30 + "\n", "f1" * 40 + "\n"]
    part = calls[0].fetch_log(offsets=-20, sizes=10)
    assert str(part) == ("f1" * 30 + "\n")[-20:-10]
    assert len(part.offsets) == 1 and all(offset > 0 for offset in part.offsets)
    assert len(part.chunk_op_keys) == 1
    part = calls[0].fetch_log(offsets="-0.02K", sizes="0.01K")
    assert str(part) == ("f1" * 30 + "\n")[-20:-10]


def test_the_log_of_a_nested_function_can_be_printed_by_its_parent() -> None:
    """test_fetch_log"""

    def outer() -> None:
        print("level0")
        inner = spawn(repeat, args=("level1", 1)).execute()
        print(inner.fetch_log())

    text = str(spawn(outer).execute().fetch_log())
    assert "level0\n" in text and "level1\n" in text


def test_prints_of_threads_are_in_the_log() -> None:
    """test_fetch_log"""

    def threaded(x: int) -> None:
        threads = [threading.Thread(target=print, args=(f"{x}-{i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    calls = mars.execute([spawn(threaded, args=(i,)) for i in range(3)])
    for x, log in enumerate(mars.fetch_log(calls)):
        assert sorted(str(log).split()) == [f"{x}-{i}" for i in range(3)]


# -- mars/deploy/oscar/tests/test_local.py -----------------------------------------------------


def test_a_session_executes_fetches_and_tells(session: mars.session.Session) -> None:
    """test_sync_execute"""
    call = spawn(pow, args=(2, 5))
    assert session.execute(call) is not None
    assert session.fetch(call) in (32, [32])
    assert session.get_web_endpoint() is None
    assert len(session.get_cluster_versions()) >= 1


def test_the_default_session_can_be_cleared(session: mars.session.Session) -> None:
    """test_clear_default_session"""
    from mars.session import clear_default_session, get_default_session

    assert get_default_session() is session
    clear_default_session()
    assert get_default_session() is None
    session.as_default()


def test_progress_set_by_functions_arrives(
    wait_until: Callable[..., None], pass_gate: Callable[..., None], tmp_path: Path
) -> None:
    """test_session_set_progress"""
    gates = [tmp_path / "first", tmp_path / "second"]

    def steps() -> None:
        context = mars.get_context()
        context.set_progress(0.25)
        pass_gate(gates[0])
        context.set_progress(0.75)
        pass_gate(gates[1])

    execution = spawn(steps).execute(wait=False)
    for gate, progress in zip(gates, (0.25, 0.75), strict=True):
        wait_until(lambda progress=progress: execution.progress() == progress)
        gate.touch()
    execution.result(20)
    assert execution.progress() == 1


def test_ten_long_sleepers_are_cancelled_quickly_and_the_session_is_usable() -> None:
    """test_cancel"""
    calls = ExecutableTuple([spawn(time.sleep, args=(200,)) for _ in range(10)])
    execution = calls.execute(wait=False)
    execution.cancel()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(_awaited(execution), 30))  # they would take 200 s
    assert spawn(int).execute().fetch() == 0


async def _awaited(execution: object) -> object:
    return await execution  # type: ignore[misc]


def test_logs_take_offsets_as_text_and_dicts_and_sizes_as_lists() -> None:
    """_run_web_session_test"""
    call = spawn(repeat, args=("output in function", 1)).execute()
    assert str(call.fetch_log(offsets="0k", sizes=[1000])) == "output in function\n"
    keys = call.fetch_log(offsets=0).chunk_op_keys
    again = call.fetch_log(offsets=dict.fromkeys(keys, "0k"), sizes=[1000])
    assert str(again) == "output in function\n"
    assert str(call.fetch_log(offsets=-3, sizes=2)) == "on"


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_a_naive_code_file_runs(run_python: RunPython, stdin: bool) -> None:
    """test_naive_code_file"""
    done = run_python(
        "import mars\n"
        "import mars.remote as mr\n"
        "mars.new_session(n_cpu=1)\n"
        "def add_one(x):\n"
        "    return x + 1\n"
        "print(mr.spawn(add_one, args=(41,)).execute().fetch())\n"
        "mars.stop_server()\n",
        stdin=stdin,
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_program_without_any_session_works_and_warns(run_python: RunPython) -> None:
    """test_no_default_session"""
    done = run_python(
        "import mars.remote as mr\nprint(mr.spawn(lambda x: x + 1, 41).execute().fetch())\n"
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert "No session found, local session will be created in background" in done.stderr
    assert "Traceback" not in done.stderr


# -- test_fault_injection.py, services/session/tests, core/tests -------------------------------


def test_the_last_frame_of_a_failure_is_the_remote_one() -> None:
    """test_fault_injection: the remote frame comes last in the traceback"""
    import traceback

    def remote_frame() -> None:
        raise ValueError("injected")

    with pytest.raises(ValueError, match="injected") as caught:
        spawn(remote_frame).execute()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "remote_frame"


def test_retries_are_honoured_for_errors_that_come_and_go(tmp_path: object) -> None:
    """test_retryable"""
    import pathlib

    ledger = pathlib.Path(str(tmp_path)) / "runs"

    def third_time() -> int:
        runs = len(ledger.read_text()) + 1 if ledger.exists() else 1
        ledger.write_text("x" * runs)
        if runs < 3:
            raise OSError("come again")
        return runs

    assert spawn(third_time, retry_when_fail=True).execute().fetch() == 3


def test_a_shared_remote_object_can_be_a_lock() -> None:
    """test_dmap"""

    def use() -> bool:
        context = mars.get_context()
        lock = context.create_remote_object("my_lock", threading.Lock)
        assert lock.acquire(False)
        assert not context.get_remote_object("my_lock").acquire(False)
        lock.release()
        assert context.get_remote_object("my_lock").acquire(False)
        context.destroy_remote_object("my_lock")
        return True

    assert spawn(use).execute().fetch()


def test_there_is_no_context_after_a_run() -> None:
    """core/tests/test_context"""
    assert spawn(lambda: mars.get_context() is not None).execute().fetch()
    assert mars.get_context() is None


# -- the article -------------------------------------------------------------------------------


def test_pi_by_monte_carlo_in_chunks() -> None:
    np = pytest.importorskip("numpy")

    def calc_chunk(n: int, i: int) -> int:
        rs = np.random.RandomState(i)
        points = rs.uniform(-1, 1, size=(n, 2))
        return int((np.linalg.norm(points, axis=1) < 1).sum())

    def calc_pi(counts: list[int], n: int) -> float:
        return sum(counts) * 4 / n

    n, chunks = 20_000, 10
    counts = [spawn(calc_chunk, args=(n // chunks, i)) for i in range(chunks)]
    pi = spawn(calc_pi, args=(counts, n)).execute().fetch()
    serial = calc_pi([calc_chunk(n // chunks, i) for i in range(chunks)], n)
    assert pi == serial
    assert 3.0 < pi < 3.3


def test_a_search_over_shuffled_models_with_data_split_by_one_call() -> None:
    np = pytest.importorskip("numpy")

    def split(n: int) -> tuple[object, ...]:
        rows = np.arange(n * 2.0).reshape(n, 2)
        cut = n * 3 // 4
        return rows[:cut], rows[cut:], np.arange(cut), np.arange(n - cut)

    def fit(scale: int, *, train: object, labels: object, test: object) -> tuple[int, float]:
        print(f"fitting {scale}")
        total = float(train.sum() + labels.sum() + test.sum())  # type: ignore[attr-defined]
        return scale, scale * total

    train, test, labels, _ = spawn(split, args=(40,), n_output=4)
    given = {"train": train, "labels": labels, "test": test}
    models = []
    for scale in range(6):
        models.extend(spawn(fit, args=(scale,), kwargs=given, n_output=2))
    tasks = ExecutableTuple(np.random.permutation(models))
    tasks.execute()
    assert [m.fetch() for m in models[::2]] == list(range(6))
    assert models[3].fetch() * 2 == models[5].fetch()
    assert str(models[0].fetch_log()) == "fitting 0\n"
