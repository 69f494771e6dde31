"""Calls in the wrong form: the error shows the right one, with the program's own arguments."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import pytest

import mars
import mars.remote as mr
from mars.calls.mistakes import OF_OTHERS


def fit(x: int, depth: int = 3) -> int:
    return x * depth


class Table:
    """Shown on several lines, as a frame is."""

    def __repr__(self) -> str:
        return "   u  v\n0  1  2\n1  3  4"


def anything(**given: object) -> object:
    return given


SPAWN: list[tuple[Callable[[], object], type[Exception], str]] = [
    (
        lambda: mr.spawn(fit, 1, 2),  # type: ignore[call-overload]
        TypeError,
        (
            "kwargs has to be a dict, got 2; arguments of fit go into one tuple: "
            "spawn(fit, args=(1, 2))"
        ),
    ),
    (
        lambda: mr.spawn(fit, "a", 2, 3, 4),  # type: ignore[call-overload]
        TypeError,
        (
            "kwargs has to be a dict, got 2; arguments of fit go into one tuple: "
            "spawn(fit, args=('a', 2, 3, 4))"
        ),
    ),
    (
        lambda: mr.spawn(fit, (1,), 2),  # type: ignore[call-overload]
        TypeError,
        (
            "kwargs has to be a dict, got 2; keyword arguments of fit go there by name: "
            "spawn(fit, args=(1,), kwargs={'name': value})"
        ),
    ),
    (
        lambda: mr.spawn(fit, x=1),
        ValueError,
        "Unexpected kw: x; keyword arguments of fit go into kwargs: spawn(fit, kwargs={'x': 1})",
    ),
    (
        lambda: mr.spawn(fit, 1, depth=2, name="f"),
        ValueError,
        (
            "Unexpected kw: depth; keyword arguments of fit go into kwargs: "
            "spawn(fit, args=(1,), kwargs={'depth': 2})"
        ),
    ),
    (
        lambda: mr.spawn(anything, kwargs={"a": 1}, b=2),
        ValueError,
        (
            "Unexpected kw: b; keyword arguments of anything go into kwargs: "
            "spawn(anything, kwargs={'a': 1, 'b': 2})"
        ),
    ),
    (lambda: mr.spawn(fit, (1,), cpu=2), ValueError, "Unexpected kw: cpu; did you mean cpus=2?"),
    (
        lambda: mr.spawn(abs, (1,), time_out=2.5),
        ValueError,
        "Unexpected kw: time_out; did you mean timeout=2.5?",
    ),
    (
        lambda: mr.map(fit, [1, 2], depth=[4]),
        ValueError,
        (
            "Unexpected kw: depth; arguments of fit that are the same for all items go into a "
            "partial: "
            "map(functools.partial(fit, depth=[4]), ...)"
        ),
    ),
    (
        lambda: mr.map(fit, [1, 2], chunksize=2),
        ValueError,
        "Unexpected kw: chunksize; leave it out: map puts small items into blocks by itself",
    ),
    (
        lambda: mr.spawn(fit, (1,), on_error="continue"),
        ValueError,
        "Unexpected kw: on_error; it belongs to execute: execute(on_error='continue')",
    ),
    (
        lambda: mr.map(fit, [1], kwargs={"depth": Table()}),
        ValueError,
        (
            "Unexpected kw: kwargs; arguments of fit that are the same for all items go into a "
            "partial: map(functools.partial(fit, depth=<Table>), ...)"
        ),
    ),
    (
        lambda: mr.map(fit, [1], retires=2),
        ValueError,
        "Unexpected kw: retires; did you mean retries=2?",
    ),
    (
        lambda: mr.map(fit, [1], kwargs={"depth": 2}),
        ValueError,
        (
            "Unexpected kw: kwargs; arguments of fit that are the same for all items go into a "
            "partial: map(functools.partial(fit, depth=2), ...)"
        ),
    ),
    (
        lambda: mr.map(fit, args=[1]),
        TypeError,
        (
            "map() must have at least one iterable; what map goes over follows the function: "
            "map(fit, items)"
        ),
    ),
    (
        lambda: mr.map(fit, 3),  # type: ignore[arg-type]
        TypeError,
        (
            "map takes iterables, got 3; map(fit, [1, 2, 3]) calls fit three times, and "
            "run(fit, 3) once"
        ),
    ),
]


@pytest.mark.parametrize(("mistake", "kind", "text"), SPAWN)
def test_a_call_in_the_wrong_form_shows_the_right_one(
    mistake: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        mistake()
    assert str(caught.value) == text


def test_the_form_that_is_shown_is_one_that_works() -> None:
    for text in (
        "spawn(fit, args=(1, 2))",
        "spawn(fit, args=(1,), kwargs={'depth': 2})",
        "spawn(anything, kwargs={'a': 1, 'b': 2})",
    ):
        made = eval(text, {"spawn": mr.spawn, "fit": fit, "anything": anything})
        assert isinstance(made, mr.Object)


def test_a_name_that_is_near_nothing_is_answered_with_all_options() -> None:
    with pytest.raises(ValueError, match="abs has no parameter zzz, and options are name, cpus, "):
        mr.spawn(abs, (1,), zzz=1)


def test_large_arguments_are_shown_short() -> None:
    with pytest.raises(TypeError) as caught:
        mr.spawn(fit, "x" * 10_000, list(range(10_000)))  # type: ignore[call-overload]
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (
            lambda: mars.new_session(ncpu=2),
            "new_session() got an unexpected keyword argument 'ncpu'; did you mean n_cpu?",
        ),
        (
            lambda: mars.new_session(zzz=2),
            "new_session() got an unexpected keyword argument 'zzz'",
        ),
        (
            lambda: mars.new_session(n_jobs=2),
            (
                "new_session() got an unexpected keyword argument 'n_jobs'; n_cpu=4 says how many "
                "cores calls share"
            ),
        ),
    ],
)
def test_a_session_with_an_unknown_argument_is_not_made(
    mistake: Callable[[], object], text: str
) -> None:
    with pytest.raises(TypeError) as caught:
        mistake()
    assert str(caught.value) == text
    assert mars.session.get_default_session() is None


def test_a_number_in_place_of_an_address_is_answered_with_cores() -> None:
    with pytest.raises(mars.errors.UnknownTarget, match=r"new_session\(n_cpu=2\) says how many"):
        mars.new_session(2)  # type: ignore[arg-type]
    assert mars.session.get_default_session() is None


@pytest.mark.parametrize(
    "name", ["n_cpu", "n_worker", "checkpoint", "object_memory", "web", "engine"]
)
def test_an_argument_of_a_session_is_no_option_of_the_process(name: str) -> None:
    assert name in inspect.signature(mars.new_session).parameters
    with pytest.raises(AttributeError, match=r"it is an argument of mars\.new_session"):
        setattr(mars.options, name, 2)


@pytest.mark.parametrize("name", ["cpus", "threads", "timeout", "retries", "memory", "gpus"])
def test_an_option_of_a_call_is_no_option_of_the_process(name: str) -> None:
    mr.spawn(fit, (1,), **{name: 1})  # type: ignore[call-overload]
    with pytest.raises(AttributeError, match=rf"option of a call: spawn\(\.\.\., {name}="):
        setattr(mars.options, name, 1)


def test_how_fetch_would_go_on_after_a_failure_is_said() -> None:
    with pytest.raises(TypeError, match=r"on_error; it belongs to execute"):
        mr.map(abs, [1]).fetch(on_error="continue")


def test_threads_of_a_session_are_refused_with_the_ways_there_are() -> None:
    with pytest.raises(TypeError, match=r"option of a call.*spawn\(\.\.\., threads=50\), map"):
        mars.new_session(threads=50)


def test_names_of_other_libraries_are_answered_with_ours() -> None:
    call = mr.spawn(abs, (-1,))
    several = mr.ExecutableTuple([call])
    for one in (call, several, mr.map(abs, [-1])):
        with pytest.raises(
            AttributeError, match=r"'result'; execute\(\)\.fetch\(\) gives its value"
        ):
            one.result()  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
            one.zzz  # type: ignore[attr-defined]
        assert not hasattr(one, "_zzz") and not hasattr(one, "__array__")
    for module in (mars, mr):
        with pytest.raises(
            AttributeError, match=r"'gather'; here it is execute\(\.\.\.\), then fetch"
        ):
            module.gather  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"module .* has no attribute 'zzz'$"):
            module.zzz  # type: ignore[attr-defined]


def test_each_name_of_others_that_mars_knows_has_an_answer() -> None:
    for name in OF_OTHERS:
        with pytest.raises(AttributeError, match=f"'{name}'; here it is "):
            getattr(mr, name)
        if name not in mars.__all__:
            with pytest.raises(AttributeError, match=f"'{name}'; here it is "):
                getattr(mars, name)


def test_what_cannot_be_returned_is_answered_with_what_can() -> None:
    async def later() -> int:
        return 1

    with mars.new_session(engine="inline", default=False) as session:
        for function, advice in (
            (later, r"a call is a plain function: let one return asyncio\.run"),
            (lambda: (i for i in range(3)), r"return list\(\.\.\.\) of it"),
            (threading.Lock, "return what it is made from, or plain data"),
        ):
            with pytest.raises(mars.errors.EncodeError, match=advice):
                mr.spawn(function).execute(session=session)
    with pytest.raises(mars.errors.EncodeError, match=r"pass list\(\.\.\.\) of it$"):
        mr.spawn(sum, args=((i for i in range(3)),))


def test_execute_and_fetch_take_iterators() -> None:
    with mars.new_session(engine="inline", default=False) as session:
        done = session.execute(mr.spawn(abs, -i) for i in range(3))
        assert session.fetch(iter(done)) == [0, 1, 2]


def test_unknown_arguments_of_execute_and_fetch_are_refused() -> None:
    with mars.new_session(engine="inline", default=False) as session:
        call = mr.spawn(abs, (-1,))
        with pytest.raises(TypeError, match="'show_progres'; did you mean show_progress"):
            call.execute(session=session, show_progres=True)
        with pytest.raises(TypeError, match="'on_eror'; did you mean on_error"):
            session.execute(call, on_eror="continue")
        call.execute(session=session)
        for fetch in (call.fetch, session.fetch, mars.fetch, mr.ExecutableTuple([call]).fetch):
            with pytest.raises(
                TypeError, match="`fetch` got unexpected arguments: timeout; fetch "
            ):
                fetch(*([call] if fetch in (session.fetch, mars.fetch) else []), timeout=3,
                      **({} if fetch == session.fetch else {"session": session}))  # fmt: skip
        assert call.fetch(session=session) == 1


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (lambda: mr.spawn(fit, (1,), retry=3), "Unexpected kw: retry; did you mean retries=3?"),
        (lambda: mr.spawn(fit, (1,), num_cpus=2), "Unexpected kw: num_cpus; did you mean cpus=2?"),
        (lambda: mars.Executor(retry=2), "Unexpected kw: retry; did you mean retries=2?"),
        (lambda: mars.Executor(max_worker=2),
         "Unexpected kw: max_worker; did you mean max_workers=2?"),
        (lambda: mars.Executor(workers=2), "Unexpected kw: workers; did you mean max_workers=2?"),
        (lambda: mars.Executor(zzz=2), "Unexpected kw: zzz"),
        (lambda: mr.RemoteFunction(fit, cpu=1), "Unexpected kw: cpu; did you mean cpus=1?"),
    ],
)  # fmt: skip
def test_options_by_the_names_of_others_are_answered_with_ours(
    mistake: Callable[[], object], text: str
) -> None:
    with pytest.raises(ValueError) as caught:
        mistake()
    assert str(caught.value) == text
    assert mars.session.get_default_session() is None


def test_what_a_future_a_run_and_a_function_do_not_have_is_answered() -> None:
    decorated = mr.RemoteFunction(fit)
    with pytest.raises(AttributeError, match=r"'remote'; spawn\(1, 2\) describes a call"):
        decorated.remote(1)  # type: ignore[attr-defined]
    with mars.new_session(engine="inline", default=False) as session:
        run = mr.spawn(abs, (-1,)).execute(wait=False, session=session)
        with pytest.raises(AttributeError, match=r"'fetch'; result\(\) waits for it"):
            run.fetch()  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="pass the objects, or write `for obj in run`"):
            mars.as_completed([run], session=session)
        assert run.result().fetch(session=session) == 1
        executor = mars.Executor(session=session)
        future = executor.submit(abs, -1)
        with pytest.raises(AttributeError, match=r"'fetch'; result\(\) waits for its value"):
            future.fetch()  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"'starmap'; map\(f, \[1, 2\], \[3, 4\]\)"):
            executor.starmap(fit, [(1, 2)])  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"concurrent\.futures\.as_completed$"):
            mars.as_completed([future], session=session)  # type: ignore[list-item]
        assert future.result() == 1
        assert not hasattr(future, "_zzz") and not hasattr(executor, "_zzz")
        executor.shutdown()
