"""Sessions: the default one, several on one engine, closed ones, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mars
import mars.remote as mr
import mars.session

Session = mars.session.Session


@pytest.fixture
def other(engine: str, keep_default: None) -> Iterator[Session]:
    """A second session with an engine of its own."""
    opened = mars.new_session(engine=engine, n_cpu=1, default=False)
    yield opened
    opened.stop_server()


def test_the_session_tells_its_size_and_its_names(session: Session) -> None:
    assert session.get_total_n_cpu() == 2
    assert isinstance(session.session_id, str) and session.session_id
    assert isinstance(session.address, str) and session.address
    assert len(session.get_worker_addresses()) == 1
    assert mars.__version__ in list(session.get_cluster_versions())
    assert session.get_web_endpoint() is None


def test_the_session_made_last_with_default_is_the_default(session: Session) -> None:
    assert mars.session.get_default_session() is session


def test_a_session_made_without_default_is_not_the_default(
    session: Session, other: Session
) -> None:
    assert mars.session.get_default_session() is session
    assert other.session_id != session.session_id


def test_as_default_changes_the_default(session: Session, other: Session) -> None:
    other.as_default()
    assert mars.session.get_default_session() is other
    call = mr.spawn(lambda: mars.get_context().session_id).execute()
    assert call.fetch() == other.session_id
    session.as_default()
    assert mars.session.get_default_session() is session


def test_clearing_the_default_leaves_none(session: Session, keep_default: None) -> None:
    mars.session.clear_default_session()
    assert mars.session.get_default_session() is None
    assert mr.spawn(int).execute(session=session).fetch(session=session) == 0


def test_get_default_or_create_gives_the_default(session: Session) -> None:
    assert mars.session.get_default_or_create() is session


def test_a_call_executed_in_one_session_is_unexecuted_in_another(
    session: Session, other: Session
) -> None:
    call = mr.spawn(pow, args=(2, 5)).execute(session=other)
    assert call.fetch(session=other) == 32
    never = mr.spawn(int).execute(session=session)
    with pytest.raises(ValueError, match="was executed in another session"):
        never.fetch(session=other)


def test_one_call_can_be_executed_in_two_sessions(session: Session, other: Session) -> None:
    call = mr.spawn(lambda: mars.get_context().session_id)
    call.execute(session=session)
    assert call.fetch(session=session) == session.session_id
    call.execute(session=other)
    assert call.fetch(session=other) == other.session_id


def test_session_execute_fetch_and_fetch_log_take_objects(session: Session) -> None:
    calls = [mr.spawn(print, args=(i,)) for i in range(2)]
    session.execute(*calls)
    assert list(session.fetch(*calls)) == [None, None]
    assert [str(log) for log in session.fetch_log(calls)] == ["0\n", "1\n"]


def test_several_sessions_share_one_engine_through_its_address(session: Session) -> None:
    second = mars.new_session(session.address, default=False)
    assert second.session_id != session.session_id
    assert second.address == session.address
    call = mr.spawn(lambda: mars.get_context().session_id).execute(session=second)
    assert call.fetch(session=second) == second.session_id
    second.close()
    assert mr.spawn(int).execute(session=session).fetch(session=session) == 0


def test_a_session_keeps_the_id_it_is_given(session: Session) -> None:
    named = mars.new_session(session.address, session_id="my-session", default=False)
    try:
        assert named.session_id == "my-session"
    finally:
        named.close()


def test_an_address_where_nothing_is_says_so_at_once() -> None:
    with pytest.raises((ValueError, OSError, mars.errors.MarsError)):
        mars.new_session("mars://nothing-here", default=False)


def test_a_closed_session_refuses_to_execute(session: Session) -> None:
    closed = mars.new_session(session.address, default=False)
    closed.close()
    with pytest.raises(RuntimeError, match="Session closed already"):
        mr.spawn(int).execute(session=closed)
    with pytest.raises(RuntimeError, match="Session closed already"):
        closed.execute(mr.spawn(int))


def test_closing_twice_is_harmless(session: Session) -> None:
    closed = mars.new_session(session.address, default=False)
    closed.close()
    closed.close()
    closed.destroy()


def test_closing_the_default_session_leaves_no_default(
    session: Session, keep_default: None
) -> None:
    second = mars.new_session(session.address, default=True)
    assert mars.session.get_default_session() is second
    second.close()
    assert mars.session.get_default_session() is None


def test_a_with_block_closes_the_session_and_not_the_engine(
    session: Session, keep_default: None
) -> None:
    with mars.new_session(session.address, default=False) as inner:
        assert isinstance(inner, Session)
        call = mr.spawn(int).execute(session=inner)
        assert call.fetch(session=inner) == 0
    with pytest.raises(RuntimeError, match="Session closed already"):
        mr.spawn(int).execute(session=inner)
    assert mr.spawn(int).execute(session=session).fetch(session=session) == 0


def test_stop_server_ends_every_session_of_the_engine(engine: str, keep_default: None) -> None:
    first = mars.new_session(engine=engine, n_cpu=1, default=False)
    second = mars.new_session(first.address, default=False)
    first.stop_server()
    for ended in (first, second):
        with pytest.raises(RuntimeError):
            mr.spawn(int).execute(session=ended)
    first.stop_server()
    second.close()


def test_without_a_session_one_is_made_with_a_warning(
    engine: str, keep_default: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "inline":
        pytest.skip("the session that is made for you is always on the local engine")
    mars.session.clear_default_session()
    with pytest.warns(Warning, match="No session found, local session will be created"):
        call = mr.spawn(pow, args=(2, 5)).execute()
    made = mars.session.get_default_session()
    assert made is not None
    try:
        assert call.fetch() == 32
    finally:
        mars.stop_server()
    assert mars.session.get_default_session() is None


def test_two_sessions_run_side_by_side(session: Session, other: Session) -> None:
    here = [mr.spawn(pow, args=(i, 2)) for i in range(5)]
    there = [mr.spawn(pow, args=(i, 3)) for i in range(5)]
    first = mr.ExecutableTuple(here).execute(session=session, wait=False)
    second = mr.ExecutableTuple(there).execute(session=other, wait=False)
    first.result(20), second.result(20)
    assert mr.ExecutableTuple(here).fetch(session=session) == [0, 1, 4, 9, 16]
    assert mr.ExecutableTuple(there).fetch(session=other) == [0, 1, 8, 27, 64]


def test_an_object_executed_in_one_session_can_be_an_input_in_another(
    session: Session, other: Session
) -> None:
    source = mr.spawn(pow, args=(2, 5)).execute(session=session)
    call = mr.spawn(lambda x: x + 1, args=(source,)).execute(session=other)
    assert call.fetch(session=other) == 33


def test_worker_groups_on_one_machine_have_addresses_and_can_be_chosen(
    engine: str, keep_default: None
) -> None:
    if engine == "inline":
        pytest.skip("inline has the calling thread and no groups of workers")
    wide = mars.new_session(engine=engine, n_worker=2, n_cpu=2, default=True)
    try:
        addresses = list(wide.get_worker_addresses())
        assert len(set(addresses)) == 2
        for address in addresses * 2:
            call = mr.spawn(lambda: mars.get_context().worker_address, expect_worker=address)
            assert call.execute().fetch() == address
        banded = mr.spawn(
            lambda: mars.get_context().worker_address, expect_band=(addresses[1], "numa-0")
        )
        assert banded.execute().fetch() == addresses[1]
        with pytest.raises(mars.errors.NoAvailableBand):
            mr.spawn(int, expect_worker="127.0.0.1:1").execute()
        assert mr.spawn(int).execute().fetch() == 0
    finally:
        wide.stop_server()


def test_an_expected_worker_that_does_not_exist_is_refused(engine: str) -> None:
    with pytest.raises(mars.errors.NoAvailableBand):
        mr.spawn(int, expect_worker="127.0.0.1:1").execute()


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "warp"},
        {"backend": "warp"},
        {"n_cpu": 0},
        {"n_cpu": "many"},
        {"n_worker": 0},
        {"no_such_option": 1},
    ],
    ids=str,
)
def test_a_session_that_cannot_be_is_refused_at_once(
    session: Session, keep_default: None, wrong: dict[str, object]
) -> None:
    with pytest.raises((TypeError, ValueError, mars.errors.UsageError)):
        mars.new_session(**{"default": False, **wrong})
    assert mr.spawn(int).execute().fetch() == 0


def test_the_time_limit_of_a_session_ends_a_run(local_only: None, engine: str) -> None:
    import time

    limited = mars.new_session(engine=engine, n_cpu=1, default=False, timeout=3)
    try:
        with pytest.raises(TimeoutError):
            mr.spawn(time.sleep, args=(100,)).execute(session=limited)
        assert mr.spawn(int).execute(session=limited).fetch(session=limited) == 0
    finally:
        limited.stop_server()
