"""What programs that use joblib find on each engine, under the backend "mars"."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

import mars
import mars.joblib
from mars.errors import EncodeError
from mars.joblib import MarsBackend

state: dict[str, int] = {}


@pytest.fixture(autouse=True)
def backend(session: mars.Session) -> Iterator[MarsBackend]:
    with joblib.parallel_config("mars", n_jobs=2) as config:
        yield config["backend"]


def say(word: str) -> str:
    print("said", word)
    return word.upper()


def test_results_come_in_the_order_of_the_items() -> None:
    assert Parallel()(delayed(pow)(x, 2) for x in range(30)) == [x * x for x in range(30)]


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_come_from_generators(return_as: str) -> None:
    found = Parallel(return_as=return_as)(delayed(pow)(x, 2) for x in range(30))
    assert sorted(found) == [x * x for x in range(30)]


def test_what_calls_print_is_shown_and_can_be_read(
    backend: MarsBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Parallel(batch_size=1)(delayed(say)(word) for word in ("one", "two")) == ["ONE", "TWO"]
    assert sorted(capsys.readouterr().out.splitlines()) == ["said one", "said two"]
    assert [str(batch.fetch_log()) for batch in backend.batches] == ["said one\n", "said two\n"]
    assert [(batch.name, batch.size) for batch in backend.batches] == [("say", 1), ("say", 1)]


def test_nothing_is_shown_without_echo(capsys: pytest.CaptureFixture[str]) -> None:
    with joblib.parallel_config(MarsBackend(echo=False), n_jobs=2) as config:
        Parallel()([delayed(say)("one")])
    assert capsys.readouterr().out == ""
    assert str(config["backend"].batches[0].fetch_log()) == "said one\n"


def test_an_error_has_its_type_and_says_where_it_was_raised() -> None:
    def divide(x: int) -> float:
        return 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        Parallel()(delayed(divide)(x) for x in (1, 0, 2))
    assert "in divide" in str(caught.value.__cause__)
    assert caught.value.__notes__[0].startswith("task divide(0) · ")
    assert Parallel()(delayed(divide)(x) for x in (1, 2)) == [1, 0.5]


def test_an_error_names_the_item_of_its_batch_that_failed() -> None:
    def divide(x: int, by: int) -> float:
        return x / by

    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(batch_size=3)(delayed(divide)(x, by=x - 4) for x in (3, 4, 5))
    assert caught.value.__notes__[0].startswith("task divide(4, by=0) · ")


def test_what_does_not_pickle_is_named() -> None:
    with pytest.raises(EncodeError, match=r"args\[0\]: _thread.lock of say"):
        Parallel()(delayed(say)(word) for word in ("one", threading.Lock()))


def test_an_iterator_that_raises_in_the_middle_ends_the_loop() -> None:
    def items() -> Iterator[Any]:
        for x in range(20):
            if x == 15:
                raise LookupError("no more")
            yield delayed(abs)(x)

    with pytest.raises(LookupError, match="no more"):
        Parallel(batch_size=1)(items())


def test_each_batch_may_change_its_own_copy_of_a_shared_array() -> None:
    class Model:
        def __init__(self) -> None:
            self.table = np.ones(300_000)

        def total(self, x: float) -> float:
            self.table[0] = x
            return float(self.table.sum())

    model = Model()
    found = Parallel(batch_size=1)(delayed(model.total)(x) for x in range(4))
    assert found == [299_999.0 + x for x in range(4)]
    assert model.table[0] == 1


def test_loops_nest_to_any_depth() -> None:
    def tree(depth: int) -> int:
        if not depth:
            return 1
        return sum(Parallel(n_jobs=2)(delayed(tree)(depth - 1) for _ in range(2)))

    assert Parallel()(delayed(tree)(2) for _ in range(2)) == [4, 4]


def test_a_loop_inside_has_one_job_unless_it_asks_for_more(engine: str) -> None:
    def jobs() -> tuple[int, int]:
        return joblib.effective_n_jobs(None), joblib.effective_n_jobs(2)

    most = 1 if engine == "inline" else 2  # inline, one call runs at a time
    assert Parallel()(delayed(jobs)() for _ in range(2)) == [(1, most)] * 2


def test_objects_of_mars_among_the_arguments_are_inputs() -> None:
    held = mars.put([1, 2, 3])
    assert Parallel()(delayed(sum)(one) for one in (held, [4])) == [6, 4]


def test_n_jobs_counts_from_the_cores_of_the_session() -> None:
    assert joblib.effective_n_jobs(-1) == 2
    assert MarsBackend(n_jobs=-2).effective_n_jobs(None) == 1
    assert MarsBackend().effective_n_jobs(5) == 5
    assert MarsBackend(cpus=2).effective_n_jobs(-1) == 1
    with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
        joblib.effective_n_jobs(0)


def test_what_an_initializer_sets_is_there_for_each_batch() -> None:
    def prepare(value: int) -> None:
        state["value"] = value

    def read() -> int:
        return state["value"]

    loop = Parallel(batch_size=1, initializer=prepare, initargs=(7,))
    assert loop(delayed(read)() for _ in range(8)) == [7] * 8


def test_a_worker_that_dies_costs_no_result(tmp_path: Path, local_only: None) -> None:
    marker = str(tmp_path / "died")

    def die_once(x: int) -> int:
        import signal  # here, as it is the worker that needs it

        if x == 3 and not os.path.exists(marker):
            with open(marker, "x"):
                os.kill(os.getpid(), signal.SIGKILL)
        return x

    assert Parallel(batch_size=1)(delayed(die_once)(x) for x in range(8)) == list(range(8))
    assert os.path.exists(marker)


def test_a_timeout_ends_the_loop(local_only: None) -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.05)(delayed(_wait_for)("/nowhere") for _ in range(4))
    assert Parallel()(delayed(abs)(x) for x in (-1, -2)) == [1, 2]


def _wait_for(path: str) -> None:
    import time

    while not os.path.exists(path):
        time.sleep(0.01)


def test_calls_that_wait_run_in_threads(tmp_path: Path, local_only: None) -> None:
    def meet(number: int) -> int:
        (tmp_path / str(number)).touch()
        for other in range(6):
            _wait_for(str(tmp_path / str(other)))
        return os.getpid()

    with joblib.parallel_config("mars", threads=6, n_jobs=-1):
        assert len(set(Parallel(batch_size=1, timeout=50)(map(delayed(meet), range(6))))) == 1
    with pytest.raises(TypeError, match="'retry'; did you mean retries=2"):
        Parallel(retry=2)(delayed(abs)(x) for x in (-1, -2))


def test_a_generator_that_is_dropped_stops_its_own_loop_only(local_only: None) -> None:
    first = Parallel(return_as="generator")(
        delayed(_wait_for)("/" if x == 0 else "/nowhere") for x in range(6)
    )
    assert next(first) is None
    second = Parallel(return_as="generator")(delayed(abs)(x) for x in range(20))
    with pytest.warns(
        UserWarning, match="still being processed by the workers have been cancelled"
    ):
        del first
    assert list(second) == list(range(20))


def test_a_backend_travels_without_its_session() -> None:
    copied = pickle.loads(pickle.dumps(MarsBackend(n_jobs=3, cpus=1, echo=False)))
    assert copied.effective_n_jobs(None) == 3
    assert (copied.options, copied.echo) == ({"cpus": 1}, False)
