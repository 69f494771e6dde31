"""`mars.get_context()` inside a call: where it runs, progress, and objects shared by name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mars
import mars.remote as mr


class Tally:
    def __init__(self, start: int = 0) -> None:
        self.total = start

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    def read(self) -> int:
        return self.total

    def fail(self) -> None:
        raise LookupError("from the shared object")


def test_there_is_no_context_outside_a_call() -> None:
    assert mars.get_context() is None


def test_there_is_no_context_left_after_a_call() -> None:
    mr.spawn(lambda: mars.get_context().session_id).execute()
    assert mars.get_context() is None


def test_the_context_knows_its_session(session: mars.session.Session) -> None:
    def look() -> tuple[str, str]:
        context = mars.get_context()
        return context.session_id, context.get_current_session().session_id

    assert mr.spawn(look).execute().fetch() == (session.session_id, session.session_id)


def test_the_context_knows_its_worker_and_all_of_them(session: mars.session.Session) -> None:
    def look() -> tuple[str, list[str]]:
        context = mars.get_context()
        return context.worker_address, list(context.get_worker_addresses())

    here, everywhere = mr.spawn(look).execute().fetch()
    assert isinstance(here, str) and here in everywhere
    assert everywhere == list(session.get_worker_addresses())


def test_the_context_counts_the_cpus_of_the_session() -> None:
    total = mr.spawn(lambda: mars.get_context().get_total_n_cpu()).execute().fetch()
    assert total == 2


def test_progress_can_be_set_by_any_call() -> None:
    def report() -> str:
        for step in range(5):
            mars.get_context().set_progress(step / 4)
        return "done"

    assert mr.spawn(report).execute().fetch() == "done"


def test_a_shared_object_made_by_one_call_is_used_by_others() -> None:
    def make() -> int:
        shared = mars.get_context().create_remote_object("tally", Tally, 10)
        value: int = shared.add(1)
        return value

    def use(amount: int) -> None:
        mars.get_context().get_remote_object("tally").add(amount)

    def read() -> int:
        value: int = mars.get_context().get_remote_object("tally").read()
        return value

    def destroy() -> None:
        mars.get_context().destroy_remote_object("tally")

    assert mr.spawn(make).execute().fetch() == 11
    mr.ExecutableTuple([mr.spawn(use, args=(i,)) for i in range(5)]).execute()
    assert mr.spawn(read).execute().fetch() == 21
    mr.spawn(destroy).execute()
    with pytest.raises(Exception):  # noqa: B017  the contract names no type
        mr.spawn(read).execute()


def test_a_shared_object_takes_keyword_arguments_and_raises_its_own_errors() -> None:
    def use() -> int:
        context = mars.get_context()
        shared = context.create_remote_object("keyed", Tally, start=3)
        try:
            value: int = shared.add(amount=4)
            with pytest.raises(LookupError, match="from the shared object"):
                shared.fail()
            return value
        finally:
            context.destroy_remote_object("keyed")

    assert mr.spawn(use).execute().fetch() == 7


def test_no_update_of_a_shared_object_is_lost() -> None:
    def make() -> None:
        mars.get_context().create_remote_object("counter", Tally)

    def use() -> None:
        shared = mars.get_context().get_remote_object("counter")
        for _ in range(25):
            shared.add(1)

    def read() -> int:
        context = mars.get_context()
        value: int = context.get_remote_object("counter").read()
        context.destroy_remote_object("counter")
        return value

    mr.spawn(make).execute()
    mr.ExecutableTuple([mr.spawn(use) for _ in range(4)]).execute()
    assert mr.spawn(read).execute().fetch() == 100


def test_shared_objects_end_with_their_session_and_not_with_another(
    session: mars.session.Session, engine: str
) -> None:
    def make() -> None:
        mars.get_context().create_remote_object("mine", Tally, 1)

    def read() -> int:
        value: int = mars.get_context().get_remote_object("mine").read()
        return value

    def again(session_id: str) -> mars.session.Session:
        return mars.new_session(session.address, session_id, default=False)

    one, other = again("one"), again("other")
    try:
        for opened in (one, other):
            mr.spawn(make).execute(session=opened)
        one.close()
        one = again("one")  # the same name of another life
        with pytest.raises(KeyError):
            mr.spawn(read).execute(session=one)
        assert mr.spawn(read).execute(session=other).fetch(session=other) == 1
    finally:
        one.close()
        other.close()


# -- methods that are coroutines ---------------------------------------------------------------


class Meeting:
    """Lets those that arrive go on once two are there; all in one event loop."""

    def __init__(self) -> None:
        self._both = asyncio.Event()
        self._lock = asyncio.Lock()
        self._count = 0

    async def arrive(self, name: str) -> str:
        async with self._lock:
            self._count += 1
            if self._count == 2:
                self._both.set()
        await self._both.wait()
        return f"{name} met"

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise LookupError("from the coroutine")

    async def forever(self) -> None:
        await asyncio.Event().wait()

    def plain(self) -> int:
        return self._count


@pytest.fixture
def meeting(session: mars.session.Session) -> Iterator[Any]:
    yield session.create_remote_object("meeting", Meeting)
    session.destroy_remote_object("meeting")


def test_a_method_that_is_a_coroutine_gives_its_value(meeting: Any) -> None:
    def use(name: str) -> str:
        return str(mars.get_context().get_remote_object("meeting").arrive(name))

    arrived: list[str] = []
    thread = threading.Thread(target=lambda: arrived.append(meeting.arrive("program")))
    thread.start()
    assert mr.spawn(use, "call").execute().fetch() == "call met"
    thread.join(20)
    assert arrived == ["program met"] and meeting.plain() == 2


def test_coroutines_of_two_calls_wait_for_each_other(local_only: None, meeting: Any) -> None:
    def use(name: str) -> str:
        return str(mars.get_context().get_remote_object("meeting").arrive(name))

    calls = mr.ExecutableTuple([mr.spawn(use, name) for name in ("one", "two")])
    assert calls.execute().fetch() == ["one met", "two met"]


def test_the_error_of_a_coroutine_is_the_calls(meeting: Any) -> None:
    def use() -> None:
        mars.get_context().get_remote_object("meeting").fail()

    with pytest.raises(LookupError, match="from the coroutine"):
        mr.spawn(use).execute()
    with pytest.raises(LookupError, match="from the coroutine"):
        meeting.fail()


def test_a_coroutine_that_never_ends_ends_with_the_engine(engine: str, keep_default: None) -> None:
    if engine in ("dask", "ray"):
        pytest.skip("each session of its own costs a cluster here")
    before = set(threading.enumerate())
    session = mars.new_session(engine=engine, n_cpu=1)
    shared = session.create_remote_object("meeting", Meeting)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            shared.forever()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert shared.plain() == 0
    session.stop_server()
    thread.join(20)
    assert not thread.is_alive() and len(ended) == 1
    left = set(threading.enumerate()) - before
    assert not [one for one in left if one.name == "mars-shared-objects"]
