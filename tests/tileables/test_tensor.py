"""Tensors give what numpy gives, and are executed as the original executes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mars
import mars.tensor as mt
from mars.errors import NotExecuted
from mars.tensor import find, names

DATA = np.random.RandomState(0).rand(7, 5)
OTHER = np.random.RandomState(1).rand(7, 5)


def executed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [executed(one) for one in value]
    return value.execute().fetch() if hasattr(value, "execute") else value


def same(got: Any, wanted: Any) -> None:
    if isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted)
        for one, two in zip(got, wanted, strict=True):
            same(one, two)
        return
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


CASES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "arithmetic": lambda m, a, b: (a + b * 2 - 1) / (b + 1) ** 2,
    "matmul": lambda m, a, b: a @ b.T,
    "reductions": lambda m, a, b: [
        m.sum(a, axis=0), a.mean(axis=1), a.std(), m.var(a, axis=1, ddof=1), a.max(axis=0),
        m.argmin(a, axis=1), m.prod(a), m.any(a > 0.9, axis=0), m.all(a > 0), a.sum(keepdims=True),
    ],
    "cumulative": lambda m, a, b: [m.cumsum(a, axis=0), a.cumprod(axis=1)],
    "indexing": lambda m, a, b: [
        a[2:6, ::2], a[3], a[:, -1], a[[1, 3]], a[a > 0.5], a[..., None], a[[1, 2], [0, 3]],
    ],
    "where": lambda m, a, b: m.where(a > b, a, b),
    "joining": lambda m, a, b: [
        m.concatenate([a, b]), m.stack([a, b], axis=1), m.vstack((a, b)), m.hstack((a, b)),
        m.column_stack((a[:, 0], b)), m.dstack((a, b)),
    ],
    "splitting": lambda m, a, b: [m.split(a, [2, 4]), m.array_split(a, 3), m.hsplit(a, 5)],
    "sorting": lambda m, a, b: [
        m.sort(a), m.sort(a, axis=0), m.argsort(a, axis=1), m.sort(a, axis=None),
        m.partition(a, 2, axis=1)[:, 2],
    ],
    "shapes": lambda m, a, b: [
        a.reshape(5, 7), a.reshape((5, 7), order="F"), a.T, a.ravel(), m.swapaxes(a, 0, 1),
        m.expand_dims(a, 0), m.roll(a, 2, axis=0), m.flip(a), m.tile(a, 2), m.repeat(a, 2, axis=1),
        m.broadcast_to(a, (2, 7, 5)), m.moveaxis(a, 0, 1), m.atleast_3d(a), m.squeeze(a[None]),
    ],
    "sets": lambda m, a, b: [
        m.unique(m.round(a, 1)), m.setdiff1d(a, b), m.isin(a, a[0]), m.union1d(a, b),
    ],
    "linalg": lambda m, a, b: [
        m.linalg.norm(a), m.linalg.inv(a[:5]), m.dot(a, b.T), m.inner(a, b), m.tensordot(a, b),
        m.linalg.solve(a[:5], b[:5, 0]),
        m.einsum("ij,kj->ik", a, b), m.vdot(a, b), m.outer(a[0], b[0]), m.linalg.det(a[:5]),
    ],
    "statistics": lambda m, a, b: [
        m.cov(a, b), m.corrcoef(a), m.average(a, axis=0, weights=b[:, 0]), m.median(a, axis=0),
        m.histogram(a, bins=5, range=(0, 1)), m.digitize(a, m.array([0.2, 0.6])), m.ptp(a, axis=0),
        m.bincount(m.array([1, 2, 2])), m.percentile(a.ravel(), [50]) * 0, m.diff(a, axis=0),
    ],
    "fft": lambda m, a, b: [
        m.fft.fft(a), m.fft.ifft(a, axis=0), m.fft.fft2(a), m.fft.rfft(a, n=8), m.fft.fftshift(a),
        m.fft.fftn(a), m.fft.fftfreq(10), m.fft.fft(a, norm="ortho"),
    ],
    "elementwise": lambda m, a, b: [
        m.sqrt(a), m.exp(a), m.arctan2(a, b), m.maximum(a, b), m.clip(a, 0.2, 0.6), m.floor(a * 9),
        m.isnan(a), m.sign(a - 0.5), m.hypot(a, b), m.logaddexp(a, b), m.nan_to_num(a), m.sinc(a),
        m.modf(a * 3), m.around(a, 2), m.fmod(a, 0.3),
    ],
    "exact": lambda m, a, b: [
        m.percentile(a, 30), m.percentile(a, [20, 50], axis=0), m.quantile(a, 0.3, axis=1),
        m.median(a), m.median(a, axis=1), m.nanquantile(a, 0.2, axis=0, keepdims=True),
        m.searchsorted(m.sort(a[:, 0]), [0.2, 0.5]), m.insert(a, 2, 9),
        m.insert(a, [1, 2], 9, axis=0), m.delete(a, [0, 2], axis=0), m.delete(a, 3),
    ],
    "whole": lambda m, a, b: [
        m.kron(a[:2], b[:2]), m.interp(a[0], [0, 1], [5, 6]), m.cross(a[:, :3], b[:, :3]),
    ],
    "refused by Dask": lambda m, a, b: [
        m.repeat(a, 2), m.repeat(a, np.arange(7), axis=0),
        m.choose([1, 4], [[0, 1], [2, 3]], mode="clip"),
        m.compress([0, 1, 1], a, axis=0), m.take(a, [4, 20]), m.take(a, [[0, 1], [2, 3]]),
        m.dot(3, 4), m.sum([]), m.any(m.nan), m.mean(1), m.append(a, b), m.linalg.norm(a[0], -2),
        m.unravel_index(a.argmax(), (7, 5)), m.histogram(a, bins="auto"),
        m.einsum(a, [0, 1], [1, 0]),
        m.unique(m.round(a, 1), axis=0, return_counts=True), m.triu([[1, 2], [3, 4]]),
        m.cumsum(np.array(list("abc"), dtype=object)) == 1, m.linspace(2, 9, 11, dtype=int),
        m.r_["0,2", [1, 2], [3, 4]], m.ediff1d(a, to_end=[8, 9]),
        m.diff(m.arange("2020-01", "2020-03", dtype="M8[D]")).astype(int),
        m.arange(1, 3, 0.3), m.linalg.norm(a, axis=1), a[1:3, a[0] > 0.5, None],
        m.transpose(m.nonzero(a > 0.9)),
    ],
    "of one axis": lambda m, a, b: [
        m.gradient(a[0]), m.searchsorted(m.sort(a[0]), b), m.insert(a[0], 2, [5.0, 6.0]),
        m.insert(a, 1, [1, 2, 3, 4, 5, 6, 7], axis=1), m.eye(5, 7, k=1), m.eye(7, 5, k=-1),
        m.eye(0, 4),
    ],
    "decompositions": lambda m, a, b: [
        m.linalg.slogdet(a[:5]), m.linalg.eigh(a[:5] @ a[:5].T)[0], m.linalg.multi_dot([a, b.T, a]),
        m.linalg.lstsq(a, b[:, 0], rcond=None)[0], m.linalg.lstsq(a, b[:, 0], rcond=0.5)[2],
    ],
    "making": lambda m, a, b: [
        m.ones((3, 2)), m.zeros(4), m.full((2, 2), 7), m.arange(3, 9, 2), m.linspace(0, 1, 5),
        m.eye(3, k=1), m.identity(2), m.diag(a[:5]), m.tri(3), m.triu(a), m.tril(a, -1),
        m.meshgrid([1, 2], [3, 4, 5]), m.indices((2, 3)), m.full_like(a, 2), m.mgrid[0:2, 0:3],
        m.r_[1:4, 5], m.c_[a[0], b[0]],
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gives_what_numpy_gives(name: str) -> None:
    case = CASES[name]
    got = case(mt, mt.tensor(DATA, chunk_size=3), mt.tensor(OTHER, chunk_size=3))
    flat: list[Any] = []

    def collect(value: Any) -> None:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            (collect if isinstance(one, (list, tuple)) else flat.append)(one)

    collect(got)
    mars.execute([one for one in flat if hasattr(one, "execute")])
    same(executed(got), case(np, DATA, OTHER))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    chunk=st.integers(1, 6),
    data=st.data(),
)
def test_any_slice_of_any_chunks_is_numpys(shape: list[int], chunk: int, data: Any) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    index = tuple(
        data.draw(st.one_of(st.integers(-n, n - 1), st.slices(n)), label="index") for n in shape
    )
    tensor = mt.tensor(array, chunk_size=chunk).execute()
    np.testing.assert_array_equal(tensor[index].fetch(), array[index])
    np.testing.assert_array_equal((tensor[index] * 2).to_numpy(), array[index] * 2)


def test_execute_returns_the_tensor_and_fetch_needs_it() -> None:
    tensor = mt.ones((4, 4), chunk_size=2)
    with pytest.raises(NotExecuted, match="unexecuted"):
        tensor.fetch()
    assert tensor.execute() is tensor
    assert tensor.fetch().sum() == 16
    assert (tensor + 1).to_numpy().sum() == 32


def test_lazy_and_executed_texts() -> None:
    tensor = mt.tensor(np.arange(5000), chunk_size=1000)
    assert repr(tensor).startswith("Tensor <op=")
    assert str(tensor).startswith("Tensor(op=") and "shape=(5000,)" in str(tensor)
    tensor.execute()
    assert repr(tensor) == repr(np.arange(5000))
    assert str(tensor) == str(np.arange(5000))


def test_shapes_that_data_decide_are_known_once_executed() -> None:
    tensor = mt.tensor(np.arange(10), chunk_size=4)
    odd = tensor[tensor % 2 == 1]
    assert np.isnan(odd.shape[0])
    odd.execute()
    assert odd.shape == (5,) and odd.nsplits == ((2, 2, 1),)
    assert len(odd) == 5


def test_what_several_tensors_share_is_computed_once() -> None:
    counted = mt.ones(4, chunk_size=2).map_chunk(lambda chunk: print("seen") or chunk)
    one, two = counted + 1, counted * 3
    mars.execute(one, two, counted)
    assert str(counted.fetch_log()).count("seen") + sum(
        str(tensor.fetch_log()).count("seen") for tensor in (one, two)
    ) in (2, 6)  # each call that shows it has it in its log; it ran for two chunks
    assert [one.fetch().sum(), two.fetch().sum()] == [8, 12]


def test_logs_are_those_of_the_chunks() -> None:
    def tell(chunk: Any, chunk_index: Any) -> Any:
        print("chunk", chunk_index[0])
        return chunk

    tensor = mt.ones(4, chunk_size=2).map_chunk(tell, with_chunk_index=True).execute()
    log = tensor.fetch_log()
    assert len(log.chunk_op_keys) == 2 and len(log.results) == 2
    assert "Chunk op key:" in str(log) and "chunk 0" in str(log) and "chunk 1" in str(log)


def test_random_numbers_belong_to_the_seed(session: mars.Session) -> None:
    one = mt.random.RandomState(3).rand(20, 10, chunk_size=6).to_numpy()
    other = mars.new_session(engine="inline", default=False)
    two = mt.random.RandomState(3).rand(20, 10, chunk_size=6)
    try:
        np.testing.assert_array_equal(one, two.execute(session=other).fetch(session=other))
    finally:
        other.stop_server()
    mt.random.seed(1)
    first = mt.random.randint(0, 9, size=30, chunk_size=10).to_numpy()
    mt.random.seed(1)
    assert np.array_equal(first, mt.random.randint(0, 9, size=30, chunk_size=10).to_numpy())
    assert sorted(mt.random.permutation(10).to_numpy()) == list(range(10))


def test_assignment_changes_this_tensor_only() -> None:
    tensor = mt.zeros((4, 4), chunk_size=2)
    other = tensor.copy()
    tensor[1, :] = 5
    tensor[tensor == 0] = 1
    mt.fill_diagonal(tensor, 9)
    wanted = np.ones((4, 4))
    wanted[1, :] = 5
    np.fill_diagonal(wanted, 9)
    np.testing.assert_array_equal(tensor.to_numpy(), wanted)
    assert other.to_numpy().sum() == 0
    tensor += 1
    np.testing.assert_array_equal(tensor.to_numpy(), wanted + 1)


def test_numpys_own_functions_take_tensors() -> None:
    tensor = mt.tensor(DATA, chunk_size=3)
    assert isinstance(np.sqrt(tensor), mt.Tensor)
    assert isinstance(np.mean(tensor, axis=0), mt.Tensor)
    np.testing.assert_allclose(np.linalg.norm(tensor).to_numpy(), np.linalg.norm(DATA))
    np.testing.assert_allclose(np.asarray(tensor), DATA)
    assert isinstance(DATA + tensor, mt.Tensor)
    assert tensor.__array_namespace__() is mt
    assert float(tensor.sum()) == pytest.approx(DATA.sum())


def test_out_gets_the_result() -> None:
    out = mt.zeros((7, 5), chunk_size=3)
    assert mt.add(mt.tensor(DATA, chunk_size=3), 1, out=out) is out
    np.testing.assert_allclose(out.to_numpy(), DATA + 1)


def test_execute_without_waiting_gives_a_future() -> None:
    run = mt.ones(10, chunk_size=5).sum().execute(wait=False)
    assert run.result().fetch() == 10


def test_eager_mode_executes_at_once() -> None:
    with mars.config.option_context({"eager_mode": True}):
        tensor = mt.ones(4, chunk_size=2) + 1
    assert tensor.fetch().sum() == 8


def test_numpys_errors_are_raised_at_once() -> None:
    tensor = mt.tensor(DATA, chunk_size=3)
    for wrong in (
        lambda m, a: m.compress([0, 1, 1, 0, 0, 1], a, axis=1),
        lambda m, a: m.expand_dims(a, 7),
        lambda m, a: m.matmul(a, a),
        lambda m, a: m.choose([0, 5], [[1, 2], [3, 4]], mode="nonsense"),
    ):
        with pytest.raises(Exception) as wanted:
            wrong(np, DATA)
        with pytest.raises(wanted.type):
            wrong(mt, tensor)


def test_order_in_memory_is_kept_up_to_fetch() -> None:
    by_columns = np.asfortranarray(DATA)
    tensor = mt.tensor(by_columns, chunk_size=3)
    made = [
        tensor + 1,
        mt.ones((7, 5), chunk_size=3, order="F"),
        tensor.T,
        tensor.astype(int, order="C"),
    ]
    mars.execute(made)
    assert [one.fetch().flags.f_contiguous for one in made] == [True, True, False, False]
    tensor[0] = 3
    assert tensor.to_numpy().flags.f_contiguous


def test_the_largest_and_their_indices() -> None:
    tensor = mt.tensor(DATA, chunk_size=3)
    found, places = mt.topk(tensor, 2, return_index=True)
    np.testing.assert_array_equal(found.to_numpy(), np.sort(DATA)[:, :-3:-1])
    np.testing.assert_array_equal(
        np.take_along_axis(DATA, places.to_numpy(), axis=1), found.to_numpy()
    )
    np.testing.assert_array_equal(
        mt.topk(tensor, 9, axis=0, largest=False).to_numpy(), np.sort(DATA, axis=0)
    )
    ordered, places = mt.sort(tensor, axis=0, return_index=True)
    np.testing.assert_array_equal(ordered.to_numpy(), np.sort(DATA, axis=0))
    np.testing.assert_array_equal(places.to_numpy(), np.argsort(DATA, axis=0))


def test_out_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        mt.take(mt.tensor(DATA, chunk_size=3), [1, 2, 3], out=mt.zeros(4))
    first, second = mt.zeros((7, 5)), mt.zeros((7, 5), dtype=int)
    mt.frexp(mt.tensor(DATA, chunk_size=3), first, second)
    np.testing.assert_array_equal(second.to_numpy(), np.frexp(DATA)[1])


def test_assignment_that_dask_refuses() -> None:
    kind = np.dtype([("a", "i4"), ("b", "f8")])
    wanted, tensor = np.zeros((4, 3), kind), mt.tensor(np.zeros((4, 3), kind), chunk_size=2)
    for one in (wanted, tensor):
        one[1:3, 1] = (3, 4.0)
    np.testing.assert_array_equal(tensor.to_numpy(), wanted)
    wanted, tensor = np.zeros((7, 5)), mt.zeros((7, 5), chunk_size=3)
    wanted[DATA[:, 0] > 0.5] = OTHER[DATA[:, 0] > 0.5]
    tensor[mt.tensor(DATA[:, 0], chunk_size=3) > 0.5] = mt.tensor(OTHER[DATA[:, 0] > 0.5])
    np.testing.assert_array_equal(tensor.to_numpy(), wanted)


def test_random_arguments_may_stand_in_their_places() -> None:
    for shape, made in (
        ((3,), mt.random.choice(5, 3)), ((4, 2), mt.random.uniform(-1, 1, (4, 2))),
        ((6,), mt.random.random_integers(1, 6, 6)), ((9, 2), mt.random.poisson((1.0, 5.0), (9, 2))),
    ):  # fmt: skip
        assert made.to_numpy().shape == shape


def test_distances_between_rows() -> None:
    from scipy.spatial import distance

    one, two = mt.tensor(DATA, chunk_size=3), mt.tensor(OTHER, chunk_size=2)
    np.testing.assert_allclose(
        mt.spatial.distance.cdist(one, two).to_numpy(), distance.cdist(DATA, OTHER)
    )
    close = mt.spatial.distance.pdist(one, "cityblock")
    np.testing.assert_allclose(close.to_numpy(), distance.pdist(DATA, "cityblock"))
    np.testing.assert_allclose(
        mt.spatial.distance.squareform(close).to_numpy(),
        distance.squareform(distance.pdist(DATA, "cityblock")),
    )
    with pytest.raises(ValueError, match="columns"):
        mt.spatial.distance.cdist(one, two[:, :2])


def test_errors_of_chunks_are_raised() -> None:
    def fail(chunk: Any) -> Any:
        raise LookupError("no such chunk")

    tensor = mt.ones(4, chunk_size=2).map_chunk(fail, dtype=float)
    with pytest.raises(LookupError, match="no such chunk"):
        tensor.execute()


def test_files_of_hdf5(tmp_path: Any) -> None:
    pytest.importorskip("h5py")
    path = str(tmp_path / "data.h5")
    assert mt.to_hdf5(mt.tensor(DATA, chunk_size=3), path, "x").execute().fetch() == DATA.nbytes
    np.testing.assert_array_equal(mt.from_hdf5(path, "x", chunk_size=4).to_numpy(), DATA)
    mt.to_hdf5(path, mt.tensor(OTHER, chunk_size=3), dataset="y").execute()  # the original's order
    np.testing.assert_array_equal(mt.from_hdf5(path, "y").to_numpy(), OTHER)


def test_special_functions_and_statistics() -> None:
    special, stats = pytest.importorskip("scipy.special"), pytest.importorskip("scipy.stats")
    one, two = mt.tensor(DATA, chunk_size=3), mt.tensor(OTHER, chunk_size=2)
    np.testing.assert_allclose(mt.special.erf(one).to_numpy(), special.erf(DATA))
    np.testing.assert_allclose(mt.special.beta(one, two).to_numpy(), special.beta(DATA, OTHER))
    got = mt.stats.ttest_ind(one, two).execute().fetch()
    np.testing.assert_allclose(got[0], stats.ttest_ind(DATA, OTHER)[0])


def test_facts_of_a_tensor_need_no_execution() -> None:
    lazy = mt.tensor(DATA, chunk_size=3)
    assert (mt.size(lazy), mt.size(lazy, 1)) == (DATA.size, DATA.shape[1])
    assert mt.isrealobj(lazy) and mt.iscomplexobj(lazy * 1j)
    assert lazy.objects is None


def test_each_name_of_the_table_is_there() -> None:
    missing = [name for name in find.public_names() if not hasattr(mt, name)]
    assert not missing
    assert len(find.public_names()) > 300


def test_names_that_are_not_there_say_what_to_use() -> None:
    for name in names.MISSING:
        with pytest.raises(NotImplementedError, match="is not there: "):
            getattr(mt, name)
    with pytest.raises(NotImplementedError, match="map_chunk"):
        _ = mt.busday_count
    with pytest.raises(AttributeError):
        _ = mt.nonsense
    with pytest.raises(NotImplementedError, match="GPU"):
        mt.ones(3, gpu=True)
