"""A worker is killed in the middle of an example of each adapter: the answer is right."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
from tests.one_session import default, session

__all__ = ["default", "session"]

Deadly = Callable[[Any], Any]


@pytest.fixture
def deadly(tmp_path: Path) -> Any:
    """Gives a function that kills its worker the second time that it is called, and squares."""

    def make(square: Callable[[Any], Any] = lambda x: x * x) -> Deadly:
        def call(x: Any) -> Any:
            begun = len(list(tmp_path.glob("begun-*")))
            (tmp_path / f"begun-{begun}-{os.getpid()}").touch()
            if begun >= 1 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return square(x)

        return call

    yield make
    assert (tmp_path / "killed").exists(), "nothing was killed, so nothing was tested"


def test_executor(session: mars.Session, deadly: Callable[..., Deadly]) -> None:
    with session.executor(idempotent=True) as executor:
        call = deadly()
        assert list(executor.map(call, range(6), chunksize=2)) == [x * x for x in range(6)]
        futures = [executor.submit(call, x) for x in range(4)]
        assert sorted(one.result() for one in as_completed(futures)) == [0, 1, 4, 9]


def test_asyncio(session: mars.Session, deadly: Callable[..., Deadly]) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with session.executor(idempotent=True) as executor:
            call = deadly()
            return await asyncio.gather(
                *[loop.run_in_executor(executor, call, x) for x in range(6)]
            )

    assert asyncio.run(main()) == [x * x for x in range(6)]


def test_scipy(session: mars.Session, deadly: Callable[..., Deadly]) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    call = deadly(lambda x: float(np.sum((x - 0.25) ** 2)))
    with session.executor(idempotent=True) as executor:
        found = optimize.differential_evolution(
            call, [(-1, 1)] * 2, workers=executor.map, updating="deferred", seed=0, maxiter=3,
            popsize=4, polish=False,
        )  # fmt: skip
    alone = optimize.differential_evolution(
        lambda x: float(np.sum((x - 0.25) ** 2)), [(-1, 1)] * 2, updating="deferred", seed=0,
        maxiter=3, popsize=4, polish=False,
    )  # fmt: skip
    assert np.array_equal(found.x, alone.x)


def test_joblib(session: mars.Session, deadly: Callable[..., Deadly]) -> None:
    joblib = pytest.importorskip("joblib")
    import mars.joblib  # noqa: F401  # registers the name

    with joblib.parallel_config("mars", session=session, n_jobs=2):
        loop = joblib.Parallel(batch_size=1, return_as="generator")
        found = loop(joblib.delayed(deadly())(x) for x in range(8))
        assert list(found) == [x * x for x in range(8)]


def test_scikit_learn(session: mars.Session, deadly: Callable[..., Deadly]) -> None:
    joblib = pytest.importorskip("joblib")
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    import mars.joblib  # noqa: F401  # registers the name

    X, y = datasets.load_iris(return_X_y=True)

    def search(score: Any) -> list[float]:
        model = DecisionTreeClassifier(random_state=0)
        found = GridSearchCV(model, {"max_depth": [1, 2, 3]}, cv=2, scoring=score).fit(X, y)
        return list(found.cv_results_["mean_test_score"])

    call = deadly(float)
    alone = search(lambda model, X, y: float(model.score(X, y)))
    with joblib.parallel_config("mars", session=session, n_jobs=2):
        assert search(lambda model, X, y: call(model.score(X, y))) == alone


def test_dask(default: None, deadly: Callable[..., Deadly]) -> None:
    dask = pytest.importorskip("dask")
    da = pytest.importorskip("dask.array")
    import mars.dask

    call = deadly()
    with mars.dask.enable():
        x = da.ones((40, 40), chunks=10).map_blocks(lambda block: call(block * 3), dtype=float)
        kept = x.persist()
        assert float((kept + x.T).sum().compute()) == 2 * 9 * 1600
        assert dask.delayed(sum)([dask.delayed(call)(n) for n in range(5)]).compute() == 30


def test_frames_of_dask(default: None, deadly: Callable[..., Deadly]) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    dd = pytest.importorskip("dask.dataframe")
    import mars.dask

    call = deadly(lambda group: int(group.v.sum()))
    frame = pd.DataFrame({"k": np.arange(120) % 5, "v": np.arange(120)})
    with mars.dask.enable():
        d = dd.from_pandas(frame, npartitions=4)
        found = d.groupby("k").apply(call, meta=(None, "i8")).compute()
    assert found.sort_index().to_dict() == frame.groupby("k").v.sum().to_dict()


def test_dask_on_an_executor(session: mars.Session, deadly: Callable[..., Deadly]) -> None:
    dask = pytest.importorskip("dask")
    call = deadly()
    with session.executor(idempotent=True) as executor:
        total = dask.delayed(sum)([dask.delayed(call)(n) for n in range(5)])
        assert total.compute(scheduler=executor) == 30


def test_pandas(default: None, deadly: Callable[..., Deadly]) -> None:
    pd = pytest.importorskip("pandas", minversion="3")
    import mars.pandas

    call = deadly()
    frame = pd.DataFrame({"k": np.arange(40) % 4, "v": np.arange(40)})
    engine = mars.pandas.Engine(blocks=4)
    found = frame.apply(lambda row: call(int(row["v"])), axis=1, engine=engine)
    assert found.tolist() == [v * v for v in range(40)]
    assert frame["v"].map(lambda v: v + 1, engine=engine).tolist() == list(range(1, 41))
    groups = mars.pandas.apply_groups(frame.groupby("k"), lambda g: int(g.v.max()), engine=engine)
    assert groups.to_dict() == frame.groupby("k").v.max().to_dict()
