"""What a review of the engine found, kept from coming back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading

import pytest

import mars
import mars.remote as mr


class OwnError(Exception):
    """Not of an installed package."""


def test_memory_is_not_used_again_while_a_second_fetch_reads_it() -> None:
    np = pytest.importorskip("numpy")

    def full(value: int) -> object:
        return np.full(200_000, value)

    for turn in range(8):
        call = mr.spawn(full, args=(turn,)).execute()
        first = call.fetch()
        del first
        second = call.fetch()
        del call
        mr.ExecutableTuple([mr.spawn(full, args=(-1,)) for _ in range(4)]).execute()
        assert (second == turn).all()


def test_values_can_be_fetched_in_many_threads() -> None:
    np = pytest.importorskip("numpy")
    call = mr.spawn(np.arange, args=(100_000,)).execute()
    sums = []

    def fetch() -> None:
        sums.extend(int(call.fetch().sum()) for _ in range(30))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [4_999_950_000] * 120


def test_retry_on_takes_an_exception_of_the_program() -> None:
    class LocalError(Exception):
        pass

    def fails(error: type[Exception]) -> None:
        raise error

    for error in (OwnError, LocalError):
        with pytest.raises(error):
            mr.spawn(fails, args=(error,), retries=1, retry_on=error).execute()
    assert mr.spawn(abs, args=(-1,)).execute().fetch() == 1


def test_futures_inside_a_call_end_by_themselves() -> None:
    def look() -> tuple[int, bool, int]:
        async def awaited() -> int:
            value: int = (await mr.spawn(abs, args=(-3,)).execute(wait=False)).fetch()
            return value

        called = threading.Event()
        future = mr.spawn(abs, args=(-4,)).execute(wait=False)
        future.add_done_callback(lambda _: called.set())
        done = concurrent.futures.wait(
            [mr.spawn(abs, args=(i,)).execute(wait=False) for i in range(2)], timeout=20
        ).done
        return asyncio.run(awaited()), called.wait(20), len(done)

    assert mr.spawn(look).execute().fetch() == (3, True, 2)


def test_waiting_with_a_limit_inside_a_call_gives_its_core_away(engine: str) -> None:
    narrow = mars.new_session(engine=engine, n_cpu=1, default=False)

    def look() -> int:
        value: int = mr.spawn(abs, args=(-5,)).execute(wait=False).result(timeout=20).fetch()
        return value

    try:
        assert mr.spawn(look).execute(session=narrow).fetch(session=narrow) == 5
    finally:
        narrow.stop_server()


def test_objects_in_a_partial_or_a_closure_arrive_as_values() -> None:
    two = mr.spawn(abs, args=(-2,))
    assert mr.spawn(functools.partial(pow, two), args=(5,)).execute().fetch() == 32
    assert mr.spawn(lambda: two + 1).execute().fetch() == 3  # type: ignore[operator]


def test_a_function_under_a_cache_travels() -> None:
    @functools.lru_cache(maxsize=2)
    def cached(x: int) -> int:
        return x + 1

    assert mr.spawn(cached, args=(1,)).execute().fetch() == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"show_progress": "maybe"}, {"wait": "no"}, {"seed": "x"}, {"seed": -1}, {"seed": 1.5},
        {"progress_update_interval": "a"}, {"progress_update_interval": -1}, {"on_error": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_argument_of_execute_is_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        mr.spawn(abs, args=(1,)).execute(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expect_band": "x"}, {"retry_when_fail": "yes"}, {"resolve_tileable_input": 3},
        {"output_types": "nonsense"}, {"output_types": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_hint_of_the_original_is_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        mr.spawn(abs, args=(1,), **wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    np = pytest.importorskip("numpy")
    options = {"cpus": np.float64(1), "timeout": np.int64(20), "retries": np.int64(1)}
    assert mr.spawn(abs, args=(-1,), **options).execute().fetch() == 1
    assert len(mr.spawn(divmod, args=(7, 2), n_output=np.int64(2))) == 2
