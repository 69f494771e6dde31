"""`mr.rng()`: the same digits on any number of workers and on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import mars
import mars.remote as mr

np = pytest.importorskip("numpy")


@contextmanager
def opened(**options: object) -> Iterator[mars.session.Session]:
    session = mars.new_session(default=False, **options)
    try:
        yield session
    finally:
        session.stop_server()


def draw(n: int = 3) -> list[int]:
    return [int(x) for x in mr.rng().integers(0, 2**62, n)]


def draw_after(*_: object) -> list[int]:
    return draw()


def program(session: mars.session.Session, **options: object) -> object:
    """A graph with siblings, a chain and a map, always the same."""
    first = [mr.spawn(draw) for _ in range(6)]
    second = mr.spawn(draw_after, args=(first[0],))
    calls = mr.ExecutableTuple([*first, second])
    return calls.execute(session=session, **options).fetch(session=session)


def mapped(session: mars.session.Session) -> object:
    items = mr.map(lambda _: draw(), range(8))
    return list(items.execute(session=session).fetch(session=session))


def test_rng_is_a_numpy_generator() -> None:
    kind = mr.spawn(lambda: type(mr.rng()).__name__).execute().fetch()
    assert kind == "Generator"


def test_each_call_draws_its_own_numbers() -> None:
    values = mr.ExecutableTuple([mr.spawn(draw) for _ in range(10)]).execute().fetch()
    assert len({tuple(v) for v in values}) == 10


def test_a_second_rng_of_one_call_does_not_repeat_the_first() -> None:
    a, b = mr.spawn(lambda: (draw(), draw())).execute().fetch()
    assert a != b


def test_digits_do_not_depend_on_engine_or_number_of_cpus(engine: str) -> None:
    with opened(engine="local", n_cpu=1, seed=7) as one:
        expected, expected_map = program(one), mapped(one)
    with opened(engine=engine, n_cpu=2, seed=7) as other:
        assert program(other) == expected
        assert mapped(other) == expected_map


def test_another_seed_of_the_session_draws_other_numbers(engine: str) -> None:
    with opened(engine=engine, n_cpu=2, seed=7) as seven:
        sevens = program(seven)
    with opened(engine=engine, n_cpu=2, seed=8) as eight:
        assert program(eight) != sevens


def test_the_seed_given_to_execute_decides() -> None:
    session = mars.session.get_default_session()
    five = program(session, seed=5)
    assert program(session, seed=5) == five
    assert program(session, seed=6) != five


def test_a_retried_call_draws_the_same_numbers_again(tmp_path: object) -> None:
    import pathlib

    kept = pathlib.Path(str(tmp_path)) / "first"

    def flaky() -> list[int]:
        drawn = draw()
        if not kept.exists():
            kept.write_text(repr(drawn))
            raise ValueError("again")
        return drawn

    drawn = mr.spawn(flaky, retries=1).execute().fetch()
    assert repr(drawn) == kept.read_text()


def test_nested_calls_draw_digits_of_their_own_that_are_the_same_each_time(engine: str) -> None:
    def parent() -> list[list[int]]:
        children = mr.ExecutableTuple([mr.spawn(draw) for _ in range(3)])
        return [draw(), *children.execute().fetch()]

    found = []
    for n_cpu in (1, 2):
        with opened(engine=engine, n_cpu=n_cpu, seed=3) as session:
            parents = mr.ExecutableTuple([mr.spawn(parent) for _ in range(2)])
            found.append(parents.execute(session=session).fetch(session=session))
    assert found[0] == found[1]
    flat = [tuple(v) for values in found[0] for v in values]
    assert len(set(flat)) == len(flat)


def test_rng_outside_a_call_is_seeded_by_the_option() -> None:
    from mars.config import option_context

    with option_context({"seed": 4}):
        first, second = draw(), draw()
    assert first == second
    assert draw() != draw()
