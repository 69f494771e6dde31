"""Arrays, frames, bags, delayed calls and xarray: the values are those of Dask's own schedulers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.dask

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("pyarrow")
dd = pytest.importorskip("dask.dataframe")
db = pytest.importorskip("dask.bag")
pd = pytest.importorskip("pandas")

from dask.dataframe.utils import assert_eq as same_frames  # noqa: E402  # after the checks


@pytest.fixture(autouse=True)
def enabled(default: None) -> Any:
    with mars.dask.enable():
        yield


WHOLE = np.arange(40_000.0).reshape(200, 200)


def pid(block: Any) -> Any:
    return np.full((1,) * block.ndim, os.getpid())


def test_arrays_with_data_in_the_graph() -> None:
    x = da.from_array(WHOLE, chunks=(50, 200))
    assert np.array_equal(((x + 1) * 2).compute(), (WHOLE + 1) * 2)
    assert np.allclose((x.T @ x).sum().compute(), (WHOLE.T @ WHOLE).sum())
    assert np.allclose(x.rechunk((200, 40)).map_blocks(lambda b: b * 2).compute(), WHOLE * 2)
    turned = da.from_array(np.asfortranarray(WHOLE)[::2, ::-1], chunks=50)
    assert np.array_equal(turned.map_blocks(lambda b: b).compute(), WHOLE[::2, ::-1])


def test_functions_of_the_program_run_in_workers_and_cheap_numpy_stays_here() -> None:
    x = da.from_array(WHOLE, chunks=(50, 200))
    places = x.map_blocks(pid, chunks=(1, 1)).compute()
    assert os.getpid() not in places
    from mars.dask.plan import nodes_of
    from mars.dask.threads import stays_here

    seen = []

    def look(graph: Any, keys: Any, **_: Any) -> Any:
        seen.append(stays_here(nodes_of(graph), "local-1-1"))
        return mars.dask.get(graph, keys)

    (x + 1).sum().compute(scheduler=look)
    x.std(axis=0).compute(scheduler=look)
    (x @ x).compute(scheduler=look)
    x.map_blocks(lambda b: b + 1).compute(scheduler=look)
    da.ones((200, 200), chunks=50).sum().compute(scheduler=look)
    da.from_array(WHOLE.astype(object), chunks=50).sum().compute(scheduler=look)
    assert seen == [True, True, False, False, False, False]


def test_annotations_of_arrays_and_delayed_calls_reach_their_calls() -> None:
    from mars.dask.annotations import annotations_of
    from mars.dask.plan import Plan, nodes_of

    options: list[dict[str, object]] = []

    def look(graph: Any, keys: Any, **_: Any) -> Any:
        nodes = nodes_of(graph)
        said = annotations_of(graph, nodes)
        plan = Plan(dict(nodes), list(nodes), store=id, workers=2, annotations=said)
        options.extend(step.options for step in plan.steps if "finalize" not in step.name)
        return mars.dask.get(graph, keys)

    with dask.annotate(retries=2, resources={"memory": "1GiB"}):
        x = da.ones((20, 20), chunks=10).map_blocks(lambda b: b + 1)
    assert x.compute(scheduler=look).sum() == 800
    assert options == [{"retries": 2, "memory": "1GiB"}] * 4
    options.clear()
    with dask.annotate(priority=3):
        one = dask.delayed(abs)(-1)
    assert dask.delayed(abs)(one).compute(scheduler=look) == 1
    assert options == [{"priority": 3}, {}]


def test_an_array_is_stored_once_and_each_chunk_is_a_part_of_it() -> None:
    from mars.dask.plan import Plan, nodes_of

    stored: list[Any] = []

    def look(graph: Any, keys: Any, **_: Any) -> Any:
        nodes = nodes_of(graph)

        def store(value: Any) -> Any:
            stored.append(value)
            return value

        plan = Plan(dict(nodes), list(nodes), store=store, workers=2)
        assert all(("mars-data", 0) in step.reads for step in plan.steps if "array" in step.name)
        return mars.dask.get(graph, keys)

    x = da.from_array(WHOLE, chunks=(50, 100))
    assert np.allclose(x.map_blocks(np.sin).compute(scheduler=look), np.sin(WHOLE))
    assert [value.nbytes for value in stored] == [WHOLE.nbytes]


FRAME = pd.DataFrame(
    {"k": np.arange(20_000) % 50, "v": np.linspace(0, 1, 20_000), "s": ["x", "yy"] * 10_000}
)


def test_frames() -> None:
    d = dd.from_pandas(FRAME, npartitions=5)
    same_frames(
        d.assign(w=d.v * 2)[d.v > 0.5].compute(), FRAME.assign(w=FRAME.v * 2)[FRAME.v > 0.5]
    )
    same_frames(d.groupby("k").v.mean().compute(), FRAME.groupby("k").v.mean())
    ours = d.groupby("k").apply(lambda g: g.v.sum(), meta=(None, "f8")).compute().sort_index()
    assert np.allclose(ours, FRAME.groupby("k").v.sum())
    most = d.groupby("k").v.max().reset_index()
    merged = d.merge(most, on="k", suffixes=("", "_most")).compute()
    assert len(merged) == len(FRAME) and (merged.v_most >= merged.v).all()


@pytest.mark.parametrize("how", ["disk", "tasks"])
def test_shuffles_are_done_by_tasks_however_they_are_asked_for(how: str) -> None:
    d = dd.from_pandas(FRAME, npartitions=6)
    with dask.config.set({"dataframe.shuffle.method": how}):
        shuffled = d.shuffle("k").compute(scheduler="mars")
        by_v = d.set_index("v").compute(scheduler="mars")
    assert sorted(shuffled.v) == sorted(FRAME.v) and len(by_v) == len(FRAME)
    from mars.dask.fused_frames import renamed
    from mars.dask.plan import nodes_of
    from mars.dask.shuffles import by_tasks

    with dask.config.set({"dataframe.shuffle.method": how}):
        expr = d.shuffle("k").expr.optimize()
    graph = by_tasks(expr)
    names = {str(key) for key in nodes_of(graph)}
    assert not any("zpartd" in name for name in names)
    assert len(renamed(expr, graph, [(expr._name, 0)])) == (how == "disk")  # noqa: SLF001


def test_frames_that_are_asked_for_together_are_fused_as_one_alone_is(
    session: mars.Session,
) -> None:
    d = dd.from_pandas(FRAME, npartitions=2)
    chosen = d[(d.v > 0) & (d.v < 10) & (d.k != 3)]
    total, kept = (chosen.v * 2).sum(), chosen.persist(scheduler="mars")
    wanted = FRAME[(FRAME.v > 0) & (FRAME.v < 10) & (FRAME.k != 3)]
    same_frames(kept.compute(), wanted)
    before = len(session.attempts_frame())
    made, largest = dask.compute(total, chosen.v.max(), scheduler="mars")
    assert made == pytest.approx(2 * wanted.v.sum()) and largest == wanted.v.max()
    # For each chunk what both read is one call; then each sums up, and puts the sums together.
    assert len(session.attempts_frame()) - before <= 2 + 4 + 2


def test_bags_and_delayed() -> None:
    bag = db.from_sequence(range(100), npartitions=7)
    assert bag.map(lambda n: n * n).filter(lambda n: n % 2).sum().compute() == sum(
        n * n for n in range(100) if n % 2
    )
    assert sorted(bag.foldby(lambda n: n % 3, lambda a, n: a + n, 0).compute()) == sorted(
        (r, sum(range(r, 100, 3))) for r in range(3)
    )
    parts = [dask.delayed(pow)(n, 2) for n in range(10)]
    assert dask.compute(dask.delayed(sum)(parts), *parts[:2]) == (285, 0, 1)


def test_what_is_persisted_stays_in_the_session_and_any_scheduler_can_read_it(
    session: mars.Session,
) -> None:
    x = da.from_array(WHOLE, chunks=(50, 200)).map_blocks(lambda b: b + 1).persist()
    assert np.allclose(x.sum().compute(), (WHOLE + 1).sum())
    assert np.allclose((x * 2).compute(scheduler="sync"), (WHOLE + 1) * 2)
    d = dd.from_pandas(FRAME, npartitions=3).persist()
    assert np.isclose(d.v.sum().compute(), FRAME.v.sum())
    assert np.isclose(d.v.sum().compute(scheduler="threads"), FRAME.v.sum())
    bag = db.from_sequence(range(10), npartitions=3).map(lambda n: n + 1).persist()
    assert bag.sum().compute() == 55
    one, two = dask.persist(x, bag)
    assert np.allclose(one.max().compute(), WHOLE.max() + 1) and two.count().compute() == 10
    with mars.new_session(engine="inline") as other:  # values of another session are put into it
        assert np.allclose(x.sum().compute(session=other), (WHOLE + 1).sum())


def test_chunks_are_stored_into_memory_of_the_program() -> None:
    target = np.zeros((200, 200))
    made = da.ones((200, 200), chunks=50).map_blocks(lambda b: b + os.getpid() * 0 + 1)
    da.store(made, target)
    assert (target == 2).all()
    target = np.zeros((200, 200))
    da.store(made, target, lock=False)
    assert (target == 2).all()


def test_what_was_stored_can_be_read_back() -> None:
    target = np.zeros((200, 200))
    made = da.ones((200, 200), chunks=50).map_blocks(lambda b: b + 1)
    back = da.store(made, target, return_stored=True)
    assert (target == 2).all() and (back.compute() == 2).all()


def test_files_of_hdf5_are_written_and_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    x = da.from_array(WHOLE, chunks=(20, 200)).map_blocks(lambda b: b + 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        da.store(x, file.create_dataset("x", shape=x.shape, dtype="f8"), lock=True)
        assert np.array_equal(file["x"][:], WHOLE + 1)
        with pytest.raises(TypeError, match=r"open it with h5py\.File"):
            da.from_array(file["x"], chunks=50).map_blocks(lambda b: b).compute()
    with h5py.File(tmp_path / "a.h5", "r") as file:
        read = da.from_array(file["x"], chunks=(50, 200), lock=True)
        assert np.array_equal(read.map_blocks(lambda b: b - 1).compute(), WHOLE)


def test_netcdf_through_xarray_is_right(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    data = xr.Dataset({"a": (("x", "y"), WHOLE), "b": ("x", WHOLE[0])}).chunk(x=20)
    path = tmp_path / "a.nc"
    (data + 1).to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf", chunks={"x": 50}) as back:
        assert float(abs(back.a - data.a - 1).max()) == 0
        assert float(back.b.mean()) == WHOLE[0].mean() + 1


class Files:
    """A target that may have one writer at a time, and says so when it had two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setitem__(self, place: Any, value: Any) -> None:
        (self.folder / "writing").mkdir()  # fails if it is there
        (self.folder / "writing").rmdir()


@pytest.mark.parametrize("kind", [threading.Lock, dask.utils.SerializableLock])
def test_a_lock_in_a_graph_holds_between_processes(kind: Any, tmp_path: Path) -> None:
    lock, target = kind(), Files(tmp_path)

    def write(n: int, lock: Any) -> int:
        with lock:
            for _ in range(20):
                target[n] = n
        assert not lock.locked() or os.getpid()
        return os.getpid()

    calls = [dask.delayed(write)(n, lock) for n in range(30)]
    assert os.getpid() not in dask.compute(*calls)


def test_a_lock_of_a_killed_worker_is_free_again(tmp_path: Path) -> None:
    lock, flag = threading.Lock(), tmp_path / "killed"

    def once(lock: Any) -> int:
        with lock:
            if not flag.exists():
                flag.touch()
                os.kill(os.getpid(), 9)
            return 1

    assert sum(dask.compute(*[dask.delayed(once)(lock) for _ in range(4)])) == 4


def test_locks_pickle_as_before_where_no_graph_is_spawned() -> None:
    import copyreg
    import pickle

    dask.delayed(abs)(1).compute()
    assert type(threading.Lock()) not in copyreg.dispatch_table
    with pytest.raises(TypeError, match="lock"):
        pickle.dumps(threading.Lock())
    named = dask.utils.SerializableLock("name")
    assert type(pickle.loads(pickle.dumps(named))) is dask.utils.SerializableLock


def test_a_worker_that_dies_in_a_shuffle_costs_no_row(tmp_path: Path) -> None:
    flag = str(tmp_path / "killed")

    def die_once(part: Any) -> Any:
        if not os.path.exists(flag):
            with open(flag, "w"):
                pass
            os.kill(os.getpid(), 9)
        return part

    d = dd.from_pandas(FRAME, npartitions=6).map_partitions(die_once, meta=FRAME.iloc[:0])
    assert sorted(d.shuffle("k").compute().v) == sorted(FRAME.v)
    assert os.path.exists(flag)


def test_programs_of_the_original_find_their_names() -> None:
    from mars.contrib.dask import convert_dask_collection, mars_scheduler

    x = da.from_array(WHOLE, chunks=(50, 200))
    z = (x + x.T)[::2, 100:].mean(axis=1)
    expected = (WHOLE + WHOLE.T)[::2, 100:].mean(axis=1)
    assert np.allclose(z.compute(scheduler=mars_scheduler), expected)
    assert np.allclose(convert_dask_collection(z).execute().fetch(), expected)
    d = dd.from_pandas(FRAME, npartitions=4)
    d = d[d.v > d.v.mean()]
    same_frames(convert_dask_collection(d).execute().fetch(), FRAME[FRAME.v > FRAME.v.mean()])
    bag = db.from_sequence(range(10), npartitions=3).map(lambda n: n + 1)
    assert list(convert_dask_collection(bag).execute().fetch()) == list(range(1, 11))
    assert convert_dask_collection(dask.delayed(sum)([1, 2])).execute().fetch() == 3
    with pytest.raises(TypeError, match="'int' object is not a valid dask collection"):
        convert_dask_collection(1)
