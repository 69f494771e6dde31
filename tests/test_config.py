"""Options: what they accept, and how far an assignment reaches."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Generator, Iterator
from contextvars import copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.config import INERT, INERT_SECTIONS, Options, option_context, options


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    with option_context():  # what a test assigns is gone after it
        yield


def test_defaults() -> None:
    assert options.show_progress == "auto"
    assert options.eager_mode is False
    assert options.seed is None
    assert options.silent_notice == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("show_progress", True),
        ("show_progress", False),
        ("show_progress", "auto"),
        ("eager_mode", True),
        ("seed", 0),
        ("seed", 2**128),
        ("seed", None),
        ("silent_notice", 0),
        ("silent_notice", 0.5),
        ("silent_notice", None),
    ],
)
def test_right_values_are_kept(name: str, value: object) -> None:
    setattr(options, name, value)
    assert getattr(options, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("show_progress", "yes"),
        ("show_progress", 1),
        ("show_progress", None),
        ("eager_mode", 1),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", True),
        ("seed", "7"),
        ("silent_notice", -1),
        ("silent_notice", True),
        ("silent_notice", float("nan")),
        ("silent_notice", "30"),
    ],
)
def test_wrong_values_are_refused_by_name_and_change_nothing(name: str, value: object) -> None:
    before = getattr(options, name)
    with pytest.raises(ValueError, match=f"Cannot set value .* for option {name}"):
        setattr(options, name, value)
    assert getattr(options, name) == before


def test_typing_error_is_answered_with_the_right_name() -> None:
    with pytest.raises(AttributeError, match=r"'show_progres'; did you mean show_progress\?"):
        options.show_progres
    with pytest.raises(AttributeError, match="did you mean eager_mode"):
        options.eager_mod = True
    with pytest.raises(AttributeError, match="there are show_progress, eager_mode, seed"):
        options.xyzzy = True


def test_options_of_the_original_are_kept_without_effect() -> None:
    for name, default in INERT.items():
        assert getattr(options, name) == default
    options.chunk_size = 1000
    options.rechunk.threshold = 8  # type: ignore[attr-defined]
    options.dataframe.mode.use_inf_as_na = True  # type: ignore[attr-defined]
    assert options.chunk_size == 1000
    assert options.rechunk.threshold == 8  # type: ignore[attr-defined]
    assert options.dataframe.mode.use_inf_as_na is True  # type: ignore[attr-defined]
    assert options.scheduler.retry_num is None  # type: ignore[attr-defined]


def test_section_is_not_a_value() -> None:
    with pytest.raises(AttributeError, match="section"):
        options.rechunk = 3


def test_dir_and_repr_show_what_there_is() -> None:
    assert {"show_progress", "eager_mode", "seed", "rechunk"} <= set(dir(options))
    options.rechunk.threshold = 8  # type: ignore[attr-defined]
    assert "threshold" in dir(options.rechunk)
    assert "show_progress='auto'" in repr(options)
    assert repr(options.rechunk) == "<mars.options rechunk.threshold=8>"


def test_context_restores_after_leaving_and_after_an_error() -> None:
    with option_context({"show_progress": False}, seed=3) as inner:
        assert (inner.show_progress, options.seed) == (False, 3)
    assert (options.show_progress, options.seed) == ("auto", None)

    def fail() -> None:
        with option_context({"show_progress": True}):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert options.show_progress == "auto"


def test_context_takes_dotted_names_and_drops_assignments_made_within() -> None:
    with option_context({"rechunk.threshold": 5, "show_progress": False}):
        options.eager_mode = True
        assert options.rechunk.threshold == 5  # type: ignore[attr-defined]
    assert options.eager_mode is False
    assert options.rechunk.threshold is None  # type: ignore[attr-defined]


def test_context_with_one_wrong_name_sets_nothing() -> None:
    with pytest.raises(AttributeError, match="show_progress"):
        option_context({"seed": 3, "showprogress": False})
    with pytest.raises(ValueError, match="seed"):
        option_context(show_progress=False, seed="x")
    assert options.seed is None


def test_one_context_object_may_be_entered_twice() -> None:
    seven, seen = option_context({"seed": 7}), []
    with seven:
        with seven:
            seen.append(options.seed)
        seen.append(options.seed)
    assert [*seen, options.seed] == [7, 7, None]


def test_context_holds_in_its_own_thread_only() -> None:
    seen: list[object] = []
    with option_context({"seed": 7}):
        thread = threading.Thread(target=lambda: seen.append(options.seed))
        thread.start()
        thread.join()
    # Since 3.14 a thread may inherit the block, as an interpreter option has it.
    assert seen[0] in (None, 7)
    assert options.seed is None


def test_assignment_outside_any_context_holds_in_every_thread() -> None:
    from contextvars import Context

    def outside() -> None:
        options.seed = 9

    def read() -> object:
        return options.seed

    try:
        Context().run(outside)
        assert Context().run(read) == 9
    finally:
        Context().run(lambda: setattr(options, "seed", None))


def test_generator_may_leave_its_context_elsewhere() -> None:
    def quiet() -> Generator[object, None, None]:
        with option_context({"show_progress": False}):
            yield options.show_progress

    steps = quiet()
    assert copy_context().run(next, steps) is False
    steps.close()
    assert options.show_progress == "auto"


@given(
    st.recursive(
        st.lists(st.tuples(st.sampled_from(["seed", "chunk_size"]), st.integers(0, 9)), max_size=3),
        lambda inner: st.tuples(inner, inner),
        max_leaves=6,
    )
)
def test_nested_contexts_always_come_back(tree: object) -> None:
    def walk(node: object) -> None:
        before = (options.seed, options.chunk_size)
        with option_context():
            if isinstance(node, tuple):
                for inner in node:
                    walk(inner)
            elif isinstance(node, list):
                for name, value in node:
                    setattr(options, name, value)
        assert (options.seed, options.chunk_size) == before

    walk(tree)


def test_options_travel_to_another_process_and_copy() -> None:
    # A function that reads `options` takes them with it when it is pickled by value.
    assert isinstance(pickle.loads(pickle.dumps(options)), Options)
    assert isinstance(copy.deepcopy(options), Options)


def test_no_name_is_both_an_option_and_a_section() -> None:
    assert not set(INERT) & set(INERT_SECTIONS)
