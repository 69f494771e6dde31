"""Libraries that take an executor, each with the ten lines that docs/howto/executor.md names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mars


@pytest.fixture(scope="module")
def executor() -> Iterator[mars.Executor]:
    with mars.Executor(max_workers=2) as made:
        yield made


def bowl(point: Any) -> float:
    return float(((np.asarray(point) - 0.3) ** 2).sum())


def log_probability(point: Any) -> float:
    return -0.5 * float((np.asarray(point) ** 2).sum())


def to_cube(unit: Any) -> Any:
    return 10.0 * unit - 5.0


def test_adaptive_learns(executor: mars.Executor) -> None:
    adaptive = pytest.importorskip("adaptive")
    learner = adaptive.Learner1D(bowl, bounds=(-1, 1))
    adaptive.BlockingRunner(learner, npoints_goal=20, executor=executor, ntasks=2)
    assert learner.npoints >= 20


def test_emcee_samples(executor: mars.Executor) -> None:
    emcee = pytest.importorskip("emcee")
    start = np.random.default_rng(1).normal(size=(8, 2))
    sampler = emcee.EnsembleSampler(8, 2, log_probability, pool=executor)
    sampler.run_mcmc(start, 10)
    assert sampler.get_chain().shape == (10, 8, 2)


def test_dynesty_samples(executor: mars.Executor) -> None:
    dynesty = pytest.importorskip("dynesty")
    sampler = dynesty.NestedSampler(
        log_probability, to_cube, 2, nlive=50, pool=executor, queue_size=2
    )
    sampler.run_nested(maxiter=100, print_progress=False)
    assert len(sampler.results["logl"]) >= 100


def test_nevergrad_minimizes(executor: mars.Executor) -> None:
    nevergrad = pytest.importorskip("nevergrad")
    optimizer = nevergrad.optimizers.OnePlusOne(parametrization=2, budget=40, num_workers=2)
    found = optimizer.minimize(bowl, executor=executor, batch_mode=False)
    assert bowl(found.value) < 1


def test_pymoo_minimizes(executor: mars.Executor) -> None:
    pytest.importorskip("pymoo")
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.optimize import minimize

    try:
        from pymoo.parallelization import StarmapParallelization
    except ImportError:
        from pymoo.core.problem import StarmapParallelization

    class Bowl(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(n_var=2, n_obj=1, xl=-1.0, xu=1.0, **kwargs)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = bowl(x)

    runner = StarmapParallelization(
        lambda f, items: list(executor.map(f, *zip(*items, strict=True)))
    )
    found = minimize(Bowl(elementwise_runner=runner), GA(pop_size=10), ("n_gen", 5), seed=1)
    assert found.F[0] < 1
