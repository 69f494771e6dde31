"""The names, shapes and words that a program written for the original relies on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

import mars
import mars.config
import mars.remote as mr
import mars.session


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    opened = mars.new_session(n_cpu=2, web=False)
    yield opened
    opened.stop_server()


@pytest.mark.parametrize("name", ["spawn", "ExecutableTuple", "run_script", "map", "rng"])
def test_mars_remote_has(name: str) -> None:
    assert callable(getattr(mr, name))


@pytest.mark.parametrize(
    "name",
    ["new_session", "execute", "fetch", "fetch_log", "stop_server", "get_context", "options"],
)
def test_mars_has(name: str) -> None:
    assert hasattr(mars, name)


@pytest.mark.parametrize(
    "name",
    ["new_session", "get_default_session", "clear_default_session", "get_default_or_create"],
)
def test_mars_session_has(name: str) -> None:
    assert callable(getattr(mars.session, name))


def test_the_version_is_a_string() -> None:
    assert re.match(r"^\d+\.\d+", mars.__version__)


def test_import_mars_loads_neither_numpy_nor_an_engine(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_python(
        "import sys, mars, mars.remote\n"
        "print([m for m in ('numpy', 'ray', 'dask', 'distributed', 'pandas') if m in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


# -- Object ------------------------------------------------------------------------------------


def test_an_object_as_text_is_its_operand_and_a_key() -> None:
    call = mr.spawn(int)
    pattern = r"^Object <op=RemoteFunction, key=[0-9a-f]{32}(_\d+)?>$"
    assert re.match(pattern, str(call))  # its repr tells the state, see test_engine_shown
    assert re.match(r"^[0-9a-f]{32}$", call.key)


def test_each_call_has_a_key_of_its_own_even_with_equal_content() -> None:
    assert len({mr.spawn(int, args=(1,)).key for _ in range(5)}) == 5


def test_the_original_attributes_of_an_object_are_there() -> None:
    source = mr.spawn(int)
    call = mr.spawn(abs, args=(source,))
    assert type(call.op).__name__ == "RemoteFunction" or "RemoteFunction" in str(call)
    assert [given.key for given in call.inputs] == [source.key]


def test_an_object_is_opaque() -> None:
    call = mr.spawn(list, args=([1, 2],)).execute()
    for name in ("__len__", "__iter__", "__getitem__", "__array__", "__contains__"):
        assert not hasattr(type(call), name), name
    with pytest.raises(TypeError):
        len(call)
    with pytest.raises(TypeError):
        iter(call)
    with pytest.raises(TypeError):
        call[0]


def test_an_object_is_true_and_equal_to_itself_only() -> None:
    one, two = mr.spawn(int), mr.spawn(int)
    assert one and two
    assert one == one and one != two
    assert len({one, two, one}) == 2
    assert {one: "a"}[one] == "a"


def test_a_property_that_does_not_exist_is_an_attribute_error() -> None:
    call = mr.spawn(int)
    for name in ("to_pandas", "to_numpy", "no_such_thing"):
        assert not hasattr(call, name)


def test_a_copy_of_an_object_fetches_the_same_value() -> None:
    call = mr.spawn(pow, args=(2, 5)).execute()
    assert call.copy().fetch() == 32


def test_objects_survive_a_numpy_permutation() -> None:
    np = pytest.importorskip("numpy")
    objects = [mr.spawn(pow, args=(i, 2)) for i in range(8)]
    shuffled = np.random.permutation(objects)
    assert shuffled.dtype == object and shuffled.shape == (8,)
    assert set(shuffled) == set(objects)


def test_executing_takes_the_originals_keywords() -> None:
    call = mr.spawn(pow, args=(2, 5))
    executed = call.execute(
        session=mars.session.get_default_session(),
        wait=True,
        show_progress=False,
        progress_update_interval=0.1,
        fuse_enabled=True,
        extra_config={"subtask_max_retries": 2},
        warn_duplicated_execution=False,
        new_session_kwargs={},
    )
    assert executed.fetch() == 32


def test_an_unknown_keyword_of_execute_is_refused() -> None:
    with pytest.raises(TypeError):
        mr.spawn(int).execute(wiat=False)


def test_fetch_and_fetch_log_take_a_session(session: mars.session.Session) -> None:
    call = mr.spawn(print, args=("x",)).execute(session=session)
    assert call.fetch(session=session) is None
    assert str(call.fetch_log(session=session)) == "x\n"


def test_an_executed_object_cannot_travel_by_pickle_unnoticed() -> None:
    call = mr.spawn(pow, args=(2, 5)).execute()
    try:
        back = pickle.loads(pickle.dumps(call))  # noqa: S301  our own bytes
    except TypeError:
        return
    assert back.fetch() == 32


# -- mars.execute, mars.fetch ------------------------------------------------------------------


def test_execute_of_one_gives_it_and_of_several_gives_a_list() -> None:
    one, two, three = (mr.spawn(pow, args=(i, 2)) for i in range(3))
    assert repr(mars.execute(one)) == repr(one)
    several = mars.execute(two, three)
    assert [repr(o) for o in several] == [repr(two), repr(three)]
    assert mars.fetch(one, two, three) == [0, 1, 4]


def test_execute_takes_a_list_or_an_executable_tuple() -> None:
    calls = [mr.spawn(pow, args=(i, 2)) for i in range(3)]
    mars.execute(calls)
    assert mars.fetch(calls) == [0, 1, 4]
    more = mr.ExecutableTuple([mr.spawn(pow, args=(i, 3)) for i in range(3)])
    mars.execute(more)
    assert mars.fetch(more) == [0, 1, 8]


def test_fetch_of_one_or_of_a_list_of_one_gives_the_value() -> None:
    call = mr.spawn(pow, args=(2, 5)).execute()
    assert mars.fetch(call) == 32
    assert mars.fetch([call]) == 32


def test_module_level_calls_take_a_session(session: mars.session.Session) -> None:
    call = mr.spawn(print, args=("x",))
    mars.execute(call, session=session, show_progress=False)
    assert mars.fetch(call, session=session) is None
    assert [str(log) for log in mars.fetch_log(call, session=session)] == ["x\n"]


@pytest.mark.parametrize("wrong", [3, "abc", [3], None])
def test_executing_or_fetching_what_is_no_object_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError):
        mars.execute(wrong)
    with pytest.raises(TypeError):
        mars.fetch(wrong)


def test_executing_nothing_is_harmless_or_refused_at_once() -> None:
    try:
        assert list(mars.execute([])) == []
    except TypeError:
        pass


# -- options -----------------------------------------------------------------------------------


def test_option_context_sets_options_for_a_block() -> None:
    before = mars.options.show_progress
    with mars.config.option_context({"show_progress": False}):
        assert mars.options.show_progress is False
    assert mars.options.show_progress == before


def test_options_can_be_assigned() -> None:
    before = mars.options.show_progress
    try:
        mars.options.show_progress = False
        assert mars.options.show_progress is False
        assert mr.spawn(int).execute().fetch() == 0
    finally:
        mars.options.show_progress = before


def test_eager_mode_executes_at_spawn() -> None:
    with mars.config.option_context({"eager_mode": True}):
        call = mr.spawn(pow, args=(2, 5))
        assert call.fetch() == 32
        first, second = mr.spawn(lambda: (1, 2), n_output=2)
        assert (first.fetch(), second.fetch()) == (1, 2)
    with pytest.raises(ValueError):
        mr.spawn(pow, args=(2, 5)).fetch()


def test_progress_is_silent_when_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    mr.ExecutableTuple([mr.spawn(pow, args=(i, 2)) for i in range(10)]).execute()
    assert capfd.readouterr() == ("", "")


def test_progress_that_is_asked_for_is_shown_and_leaves_stdout_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import time

    calls = mr.ExecutableTuple([mr.spawn(time.sleep, args=(0.05,)) for _ in range(10)])
    calls.execute(show_progress=True, progress_update_interval=0.05)
    out, err = capfd.readouterr()
    assert out == ""
    assert err != ""


def test_a_failure_is_told_once_and_nothing_else_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError):
        mr.spawn(lambda: 1 / 0).execute()
    assert capfd.readouterr() == ("", "")


# -- sessions ----------------------------------------------------------------------------------


def test_new_session_takes_the_originals_keywords(session: mars.session.Session) -> None:
    opened = mars.new_session(
        address=None,
        session_id=None,
        backend="mars",
        default=False,
        new=True,
        n_worker=1,
        n_cpu=1,
        mem_bytes="auto",
        cuda_devices="auto",
        subprocess_start_method=None,
        config={"session.custom_log_dir": "auto"},
        web=False,
        timeout=None,
        n_supervisor_process=0,
        loop=None,
        use_uvloop="auto",
    )
    try:
        assert opened.get_web_endpoint() is None
        assert opened.get_total_n_cpu() == 1
        assert mr.spawn(int).execute(session=opened).fetch(session=opened) == 0
    finally:
        opened.stop_server()
    assert mars.session.get_default_session() is session


def test_n_cpu_counts_for_each_of_n_worker_workers() -> None:
    opened = mars.new_session(n_worker=2, n_cpu=4, default=False)
    try:
        assert len(opened.get_worker_addresses()) == 2
        assert opened.get_total_n_cpu() in (4, 8)
    finally:
        opened.stop_server()


def test_n_cpu_auto_is_what_this_process_may_use() -> None:
    import os

    opened = mars.new_session(n_cpu="auto", default=False)
    try:
        has_affinity = hasattr(os, "sched_getaffinity")
        usable = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        assert 1 <= opened.get_total_n_cpu() <= usable
    finally:
        opened.stop_server()


def test_new_false_gives_a_working_session_of_that_id(session: mars.session.Session) -> None:
    again = mars.new_session(
        session.address, session_id=session.session_id, new=False, default=False
    )
    assert again.session_id == session.session_id
    call = mr.spawn(lambda: mars.get_context().session_id).execute(session=again)
    assert call.fetch(session=again) == session.session_id


def test_fetch_infos_tells_the_size_of_a_value(session: mars.session.Session) -> None:
    call = mr.spawn(bytes, args=(100_000,)).execute()
    (infos,) = session.fetch_infos(call, fields=["memory_size"])
    assert sum(infos["memory_size"]) >= 100_000


# -- names of the original's modules -----------------------------------------------------------


def test_names_are_where_programs_of_the_original_import_them_from() -> None:
    import mars.core
    import mars.core.context
    import mars.core.session
    from mars.session import AsyncSession, ExecutionInfo, SyncSession, fetch_infos

    assert mars.core.ExecutableTuple is mr.ExecutableTuple and mars.core.Object is mr.Object
    assert mars.core.context.get_context is mars.get_context
    assert mars.core.session.new_session is mars.new_session
    assert mars.core.session.AsyncSession is AsyncSession
    assert SyncSession is mars.Session
    run = mr.spawn(int).execute(wait=False)
    assert isinstance(run, ExecutionInfo)
    run.result(20)
    call, mapped = mr.spawn(bytes, 1000).execute(), mr.map(bytes, [1000]).execute()
    assert fetch_infos(call, fields=["memory_size"])["memory_size"][0] >= 1000
    one, items = fetch_infos(call, mapped, fields=["level"])
    assert one == {"level": ["MEMORY"]} and items == [one]


def test_new_session_takes_init_local(session: mars.session.Session) -> None:
    opened = mars.new_session(n_cpu=1, init_local=True, default=False)
    opened.stop_server()


# -- AsyncSession ------------------------------------------------------------------------------


class Tally:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, n: int) -> int:
        self.count += n
        return self.count

    async def later(self, n: int) -> int:
        return self.add(n)


def test_an_async_session_is_used_as_the_original_s(session: mars.session.Session) -> None:
    async def main() -> None:
        opened = mars.session.get_default_async_session()
        assert opened is not None
        assert opened.session_id == session.session_id and opened.address == session.address
        call, other = mr.spawn(pow, (2, 5)), mr.spawn(abs, -1)
        info = await opened.execute(call, other)
        await info
        assert info.done() and info.progress() == 1.0
        assert await opened.fetch(call) == 32
        assert await opened.fetch(call, other) == await opened.fetch((call, other)) == [32, 1]
        assert await opened.get_total_n_cpu() == 2
        assert await opened.get_cluster_versions() == [mars.__version__]
        assert await opened.get_web_endpoint() is None
        assert opened.as_default() is opened

    asyncio.run(main())


def test_an_async_session_has_shared_objects_whose_methods_are_awaited(
    session: mars.session.Session,
) -> None:
    async def main() -> None:
        opened = mars.session.AsyncSession(session)
        tally = await opened.create_remote_object(session.session_id, "tally", Tally, 5)
        assert await tally.add(1) == 6 and await tally.later(1) == 7
        again = await opened.get_remote_object(session.session_id, "tally")
        assert await asyncio.gather(*(again.add(0) for _ in range(5))) == [7] * 5
        await opened.destroy_remote_object(session.session_id, "tally")
        with pytest.raises(KeyError):
            await opened.get_remote_object(session.session_id, "tally")

    asyncio.run(main())


def test_an_async_session_can_be_made_cancelled_and_ended(session: mars.session.Session) -> None:
    async def main() -> None:
        opened = await mars.session.AsyncSession.init(session.address, "its-own", n_cpu=1)
        assert opened.session_id == "its-own"
        assert mars.session.get_default_session() is session
        cancelled = asyncio.Event()
        call = mr.spawn(time.sleep, 60)
        info = await opened.execute(call, cancelled=cancelled)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await info
        with pytest.raises(concurrent.futures.CancelledError):
            info.result(0)
        with pytest.raises(mars.errors.TaskCancelled):
            await opened.fetch(call)
        await opened.destroy()
        with pytest.raises(mars.errors.SessionClosed):
            await opened.execute(mr.spawn(int))

    asyncio.run(main())
