"""The joblib backend "mars" beside sessions of its own, other processes and scikit-learn."""

from __future__ import annotations

import gc
import multiprocessing
import os
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

import mars
from mars.errors import SessionClosed
from mars.joblib import MarsBackend
from mars.joblib.packing import Sharing
from mars.learn.contrib.joblib import register_mars_backend


@pytest.fixture(scope="module")
def session(leak_guard: None) -> Iterator[mars.Session]:
    with mars.new_session(n_cpu=2, default=False) as opened:
        yield opened


def squares(**given: Any) -> list[int]:
    found: list[int] = Parallel(**given)(delayed(pow)(x, 2) for x in range(5))
    return found


def test_the_names_of_the_original_work(session: mars.Session) -> None:
    register_mars_backend()
    with joblib.parallel_backend("mars", session=session, n_parallel=2):
        assert squares() == [0, 1, 4, 9, 16]
        assert joblib.effective_n_jobs(None) == 2
    with joblib.parallel_backend("mars", service=session.address) as (backend, _):
        assert squares(n_jobs=2) == [0, 1, 4, 9, 16]
        assert len(backend.batches) > 0


def test_a_loop_without_a_session_starts_one_without_a_warning() -> None:
    assert mars.session.get_default_session() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert squares(n_jobs=2, backend="mars") == [0, 1, 4, 9, 16]
    started = mars.session.get_default_session()
    assert started is not None
    assert squares(n_jobs=2, backend="mars") == [0, 1, 4, 9, 16]
    assert mars.session.get_default_session() is started
    started.stop_server()


def test_a_session_that_has_ended_is_said_and_waited_for_by_nobody() -> None:
    ended = mars.new_session(n_cpu=2, default=False, engine="inline")
    ended.close()
    with joblib.parallel_config("mars", session=ended), pytest.raises(SessionClosed):
        squares(n_jobs=2)


def _jobs(answers: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answers.put((squares(n_jobs=2, backend="mars"), [str(one.message) for one in told]))


@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads
def test_in_a_forked_process_there_is_one_job(session: mars.Session, daemon: bool) -> None:
    forking = multiprocessing.get_context("fork")
    answers = forking.SimpleQueue()
    child = forking.Process(target=_jobs, args=(answers,), daemon=daemon)
    child.start()
    found, told = answers.get()
    child.join()
    assert found == [0, 1, 4, 9, 16]
    assert "starts no workers in a process that was forked or is daemonic" in told[0]


def test_options_of_calls_can_be_given_to_the_backend_and_to_a_loop(session: mars.Session) -> None:
    def threads() -> str:
        return os.environ["OMP_NUM_THREADS"]

    with joblib.parallel_config("mars", session=session, n_jobs=2, cpus=2):
        assert Parallel()([delayed(threads)()]) == ["2"]
        assert Parallel(cpus=1)([delayed(threads)()]) == ["1"]
    with joblib.parallel_config("mars", session=session, n_jobs=2, inner_max_num_threads=3):
        assert Parallel()([delayed(threads)()]) == ["3"]
    with pytest.raises(ValueError, match="Unexpected kw: cpu"):
        MarsBackend(cpu=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'cpu'"):
        squares(n_jobs=2, backend="mars", cpu=2)
    with pytest.raises(TypeError, match="session has to be a Session or an address"):
        MarsBackend(session=3)  # type: ignore[arg-type]


def test_an_array_is_stored_once_for_a_loop_and_goes_with_its_owner(session: mars.Session) -> None:
    sharing = Sharing(session, 1_000_000)
    array = np.ones(200_000)
    first = sharing.pack([(sum, (array,), {})]).buffers[0]
    assert sharing.pack([(sum, ({"deep": array[:]},), {})]).buffers[0] is first
    other = np.ones(200_000)
    assert sharing.pack([(sum, (other,), {})]).buffers[0] is not first
    assert sharing.pack([(sum, (np.ones(1_000),), {})]).buffers == []
    stored = weakref.ref(first)
    del array, first
    gc.collect()
    assert stored() is None


def test_of_a_smaller_array_each_batch_gets_what_it_holds_then(session: mars.Session) -> None:
    sharing = Sharing(session, 1_000_000)
    array = np.ones(20_000)
    first = sharing.pack([(sum, (array,), {})]).buffers[0]
    assert sharing.pack([(sum, (array,), {})]).buffers[0] is first
    array[7] = 5.0
    assert sharing.pack([(sum, (array,), {})]).buffers[0] is not first
    assert Sharing(session, None).pack([(sum, (array,), {})]).buffers == []

    def refilled() -> Iterator[Any]:
        for number in range(6):
            array.fill(number)
            yield delayed(np.sum)(array)

    with joblib.parallel_config("mars", session=session, n_jobs=2):
        # joblib takes two items at a time before it sends the first of them.
        assert Parallel(batch_size=1)(refilled()) == [20_000 * n for n in (1, 1, 3, 3, 5, 5)]


def test_a_search_of_scikit_learn_finds_what_it_finds_alone(
    session: mars.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    X, y = load_iris(return_X_y=True)
    model = DecisionTreeClassifier(random_state=0)
    search = GridSearchCV(model, {"max_depth": [1, 3]}, cv=2, verbose=3)
    alone = search.fit(X, y).cv_results_["mean_test_score"]
    capsys.readouterr()
    with joblib.parallel_config("mars", session=session):
        found = search.fit(X, y).cv_results_["mean_test_score"]
    assert found.tolist() == alone.tolist()
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition("]")[0] for line in lines) == [
        "Fitting 2 folds for each of 2 candidates, totalling 4 fits",
        *["[CV 1/2", "[CV 1/2", "[CV 2/2", "[CV 2/2"],
    ]


def _kept(path: Path, seed: int, table: Any) -> float:
    with path.open("a") as file:
        file.write(f"{seed}\n")
    return float(table.sum()) + seed


def test_a_batch_that_a_checkpoint_has_is_not_run_again(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for counts in ((4, 0), (1, 4)):
        checkpoint = str(tmp_path / "kept")
        with mars.new_session(n_cpu=2, default=False, checkpoint=checkpoint) as session:
            table = np.ones(200_000)  # large enough to be stored once for the loop
            seeds = range(sum(counts))
            with joblib.parallel_config("mars", session=session, n_jobs=2):
                loop = Parallel(batch_size=1)
                found = loop(delayed(_kept)(ran, seed, table) for seed in seeds)
            assert found == [200_000.0 + seed for seed in seeds]
            kept = session.checkpoint
            assert kept is not None
            assert (kept.executed, kept.reused) == counts
    assert sorted(ran.read_text().split()) == ["0", "1", "2", "3", "4"]
