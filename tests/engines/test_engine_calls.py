"""What can be called, with which arguments, and what comes back."""

from __future__ import annotations

import enum
import functools
import math
import operator
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars.remote as mr

FACTOR = 10


def scaled(value: int, by: int = FACTOR) -> int:
    return value * by


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by

    def method(self, value: int) -> int:
        return value * self.by

    def __call__(self, value: int) -> int:
        return value * self.by

    @staticmethod
    def plain(value: int) -> int:
        return value + 1

    @classmethod
    def named(cls, value: int) -> str:
        return f"{cls.__name__}{value}"

    def __eq__(self, other: object) -> bool:
        return type(other).__name__ == "Scale" and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


def closure(by: int) -> Callable[[int], int]:
    return lambda value: value * by


CALLABLES = {
    "function of a module": (scaled, (3,), 30),
    "lambda": (lambda x: x + 1, (3,), 4),
    "closure": (closure(7), (3,), 21),
    "partial": (functools.partial(scaled, by=2), (3,), 6),
    "partial of a lambda": (functools.partial(lambda a, b: a - b, 10), (3,), 7),
    "bound method": (Scale(5).method, (3,), 15),
    "callable instance": (Scale(6), (3,), 18),
    "static method": (Scale.plain, (3,), 4),
    "class method": (Scale.named, (3,), "Scale3"),
    "builtin": (len, ([1, 2, 3],), 3),
    "builtin method": ("a,b".split, (",",), ["a", "b"]),
    "function in C": (math.gcd, (12, 18), 6),
    "operator": (operator.itemgetter(1), ([4, 5],), 5),
    "builtin class": (dict, ([("a", 1)],), {"a": 1}),
    "exception class": (lambda x: ValueError(x).args, ("a",), ("a",)),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_any_callable_can_be_spawned(kind: str) -> None:
    func, args, expected = CALLABLES[kind]
    assert mr.spawn(func, args=args).execute().fetch() == expected


def test_a_class_of_a_module_can_be_spawned() -> None:
    made = mr.spawn(Scale, args=(4,)).execute().fetch()
    assert made == Scale(4)


def test_a_local_class_can_be_spawned_and_its_instance_comes_back() -> None:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self) -> int:
            return self.value * 2

    made = mr.spawn(Local, args=(21,)).execute().fetch()
    assert type(made).__name__ == "Local"
    assert made.doubled() == 42


def test_a_recursive_local_function_can_be_spawned() -> None:
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert mr.spawn(fibonacci, args=(10,)).execute().fetch() == 55


def test_a_spawned_call_does_not_run_before_execute(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    call = mr.spawn(note, args=(ledger,))
    mr.spawn(int).execute()
    assert lines(ledger) == []
    call.execute()
    assert lines(ledger) == ["run"]


@pytest.mark.parametrize("single", [2, [1, 2], "abc", None, {"a": 1}, {1, 2}, range(3)])
def test_args_that_is_not_a_tuple_is_one_argument(single: object) -> None:
    assert mr.spawn(lambda *args: args, args=single).execute().fetch() == (single,)


def test_args_that_is_a_tuple_is_unpacked() -> None:
    assert mr.spawn(lambda *args: args, args=(1, [2], (3,))).execute().fetch() == (1, [2], (3,))


def test_an_executable_tuple_as_args_is_unpacked() -> None:
    inputs = mr.ExecutableTuple([mr.spawn(scaled, args=(i,)) for i in range(3)])
    assert mr.spawn(lambda *args: args, args=inputs).execute().fetch() == (0, 10, 20)


def test_a_named_tuple_as_args_is_unpacked() -> None:
    from collections import namedtuple

    pair = namedtuple("pair", "a b")
    assert mr.spawn(lambda a, b: a - b, args=pair(5, 3)).execute().fetch() == 2


def test_args_default_to_no_argument() -> None:
    assert mr.spawn(lambda *args, **kwargs: (args, kwargs)).execute().fetch() == ((), {})


def test_kwargs_arrive_by_name() -> None:
    call = mr.spawn(lambda a, *, b, c=3: (a, b, c), args=(1,), kwargs={"b": 2})
    assert call.execute().fetch() == (1, 2, 3)


def test_kwargs_may_have_the_names_of_our_own_parameters() -> None:
    names = {"func": 1, "args": 2, "kwargs": 3, "self": 4, "session": 5, "n_output": 6, "name": 7}
    assert mr.spawn(lambda **given: given, kwargs=dict(names)).execute().fetch() == names


@pytest.mark.parametrize("wrong", [(), [("a", 1)], 3, "abc"])
def test_kwargs_that_is_not_a_dict_is_refused_at_spawn(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^kwargs has to be a dict, got "):
        mr.spawn(scaled, args=(1,), kwargs=wrong)


@pytest.mark.parametrize("value", [None, 0, "", b"\0\xff", (), [], {}, float("inf"), 10**100, ...])
def test_values_come_back_as_they_were(value: object) -> None:
    back = mr.spawn(lambda x: x, args=(value,)).execute().fetch()
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("size", [1, 400])
def test_a_memoryview_arrives_as_a_view_of_a_copy(size: int) -> None:
    """What it looks at is memory of another process, so its bytes travel."""
    content = bytes(range(256)) * size
    back = mr.spawn(memoryview, args=(content,)).to_object()
    assert type(back) is memoryview
    assert (back, back.format, back.shape) == (content, "B", (len(content),))
    numbers = memoryview(content).cast("I")
    given = mr.spawn(lambda view: (type(view), view.format, view.tolist()), args=(numbers,))
    assert given.to_object() == (memoryview, "I", numbers.tolist())


def test_an_argument_changed_after_spawn_and_before_execute_runs_without_error() -> None:
    given = [1]
    call = mr.spawn(sum, args=(given,))
    assert call.execute().fetch() in (1, 3)


def test_a_call_that_changes_its_argument_does_not_change_the_callers(engine: str) -> None:
    given = [1, 2]
    mr.spawn(lambda x: x.append(3), args=(given,)).execute()
    assert given == [1, 2]


def test_a_result_changed_by_its_reader_is_fresh_at_the_next_fetch() -> None:
    call = mr.spawn(lambda: [1, 2]).execute()
    call.fetch().append(3)
    assert call.fetch() == [1, 2]


def test_an_input_changed_by_one_consumer_is_whole_for_the_next() -> None:
    def spoil(given: list[int]) -> int:
        given.append(100)
        return sum(given)

    source = mr.spawn(lambda: [1, 2])
    calls = mr.ExecutableTuple([mr.spawn(spoil, args=(source,)) for _ in range(4)])
    assert calls.execute().fetch() == [103] * 4


def test_two_spawns_of_an_impure_function_are_two_calls() -> None:
    def unique() -> str:
        import uuid

        return uuid.uuid4().hex

    calls = mr.ExecutableTuple([mr.spawn(unique) for _ in range(5)])
    assert len(set(calls.execute().fetch())) == 5


# -- n_output ----------------------------------------------------------------------------------


def test_n_output_gives_a_plain_list_of_objects() -> None:
    outputs = mr.spawn(lambda: (1, 2), n_output=2)
    assert type(outputs) is list
    assert [type(o).__name__ for o in outputs] == ["Object", "Object"]
    assert mr.ExecutableTuple(outputs).execute().fetch() == [1, 2]


def test_n_output_one_gives_a_list_of_one() -> None:
    outputs = mr.spawn(lambda: [5], n_output=1)
    assert type(outputs) is list and len(outputs) == 1
    assert outputs[0].execute().fetch() == 5


def generate() -> Iterator[int]:
    yield 1
    yield 2


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: (1, 2), [1, 2]),
        (lambda: [1, 2], [1, 2]),
        (generate, [1, 2]),
        (lambda: {"a": 1, "b": 2}, ["a", "b"]),
        (lambda: "xy", ["x", "y"]),
        (lambda: range(2), [0, 1]),
        (lambda: map(str, (1, 2)), ["1", "2"]),
    ],
)
def test_n_output_takes_any_iterable(make: Callable[[], object], expected: list[object]) -> None:
    assert mr.ExecutableTuple(mr.spawn(make, n_output=2)).execute().fetch() == expected


def test_n_output_of_an_array_gives_its_rows() -> None:
    np = pytest.importorskip("numpy")
    outputs = mr.spawn(lambda: np.arange(4).reshape(2, 2), n_output=2)
    first, second = mr.ExecutableTuple(outputs).execute().fetch()
    assert first.tolist() == [0, 1] and second.tolist() == [2, 3]


def test_n_output_of_a_result_that_is_not_iterable_says_what_came() -> None:
    outputs = mr.spawn(lambda: 5, n_output=2)
    with pytest.raises(TypeError) as caught:
        mr.ExecutableTuple(outputs).execute()
    assert "Specifying n_output=2, but result is not iterable, got 5" in str(caught.value)


@pytest.mark.parametrize(("count", "length"), [(2, 3), (3, 2), (2, 0)])
def test_n_output_of_the_wrong_length_says_both(count: int, length: int) -> None:
    outputs = mr.spawn(lambda n: list(range(n)), args=(length,), n_output=count)
    with pytest.raises(ValueError) as caught:
        outputs[0].execute()
    assert f"Length of return value should be {count}, got {length}" in str(caught.value)


def test_executing_one_output_makes_its_siblings_fetchable_with_one_run(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def both() -> tuple[int, int]:
        note(ledger)
        return 1, 2

    first, second = mr.spawn(both, n_output=2)
    assert first.execute().fetch() == 1
    assert second.fetch() == 2
    second.execute()
    assert lines(ledger) == ["run"]


def test_one_output_can_be_an_input_while_its_sibling_is_not() -> None:
    _, second = mr.spawn(lambda: (1, 2), n_output=2)
    assert mr.spawn(scaled, args=(second,)).execute().fetch() == 20


def test_a_list_of_outputs_is_one_argument() -> None:
    outputs = mr.spawn(lambda: (1, 2, 3), n_output=3)
    assert mr.spawn(sum, outputs).execute().fetch() == 6


def test_outputs_extend_a_list_of_calls() -> None:
    calls = []
    for start in (0, 10):
        calls.extend(mr.spawn(lambda s: (s, s + 1), args=(start,), n_output=2))
    assert mr.ExecutableTuple(calls).execute().fetch() == [0, 1, 10, 11]


@pytest.mark.parametrize("wrong", [-1, 1.5, "two"])
def test_an_impossible_n_output_is_refused_at_spawn(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="n_output"):
        mr.spawn(lambda: (1, 2), n_output=wrong)


# -- executing ---------------------------------------------------------------------------------


def test_execute_returns_a_handle_that_chains() -> None:
    call = mr.spawn(scaled, args=(1,))
    executed = call.execute()
    assert repr(executed) == repr(call)
    assert executed.fetch() == call.fetch() == 10


def test_an_executed_call_is_not_run_again(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    call = mr.spawn(note, args=(ledger,))
    call.execute()
    call.execute()
    mr.ExecutableTuple([call, mr.spawn(int)]).execute()
    mr.spawn(lambda _: None, args=(call,)).execute()
    assert lines(ledger) == ["run"]


def test_a_dependency_shared_by_several_consumers_runs_once(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def source() -> int:
        note(ledger)
        return 1

    shared = mr.spawn(source)
    consumers = mr.ExecutableTuple([mr.spawn(scaled, args=(shared, i)) for i in range(5)])
    assert consumers.execute().fetch() == [0, 1, 2, 3, 4]
    assert lines(ledger) == ["run"]


def test_the_same_object_twice_in_a_tuple_runs_once_and_is_fetched_twice(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"
    call = mr.spawn(note, args=(ledger,))
    assert mr.ExecutableTuple([call, call]).execute().fetch() == [None, None]
    assert lines(ledger) == ["run"]


def test_to_object_executes_what_is_not_executed_and_fetches(
    tmp_path: Path, note: Callable[..., None], lines: Callable[[object], list[str]]
) -> None:
    ledger = tmp_path / "runs"

    def run() -> int:
        note(ledger)
        return 5

    call = mr.spawn(run)
    assert call.to_object() == 5
    assert call.to_object() == 5
    assert lines(ledger) == ["run"]


def test_fetch_before_execute_is_the_originals_error_in_plain_words() -> None:
    with pytest.raises(ValueError, match=r"^first is not started\. Call execute\(\) on it first$"):
        mr.spawn(scaled, args=(1,), name="first").fetch()


def test_an_intermediate_whose_value_is_kept_is_fetched_without_another_execute() -> None:
    inner = mr.spawn(scaled, args=(1,))
    outer = mr.spawn(scaled, args=(inner,)).execute()
    assert outer.fetch() == 100
    assert inner.fetch() == 10
    assert len(inner.attempts()) == 1


def test_a_thousand_calls_come_back_in_order() -> None:
    calls = mr.ExecutableTuple([mr.spawn(scaled, args=(i,)) for i in range(1000)])
    assert calls.execute().fetch() == [i * 10 for i in range(1000)]


def test_a_chain_of_two_thousand_calls_needs_no_deep_stack() -> None:
    call = mr.spawn(lambda: 0)
    for _ in range(2000):
        call = mr.spawn(operator.add, args=(call, 1))
    assert call.execute().fetch() == 2000


def test_a_wide_fan_in_arrives_in_order() -> None:
    parts = [mr.spawn(scaled, args=(i,)) for i in range(500)]
    assert mr.spawn(list, args=(parts,)).execute().fetch() == [i * 10 for i in range(500)]


def test_a_diamond_gives_the_right_value() -> None:
    #      top
    #     /   \
    #   left  right
    #     \   /
    #     bottom
    top = mr.spawn(lambda: 3)
    left = mr.spawn(operator.mul, args=(top, 2))
    right = mr.spawn(operator.add, args=(top, 1))
    assert mr.spawn(operator.sub, args=(left, right)).execute().fetch() == 2


# -- ExecutableTuple ---------------------------------------------------------------------------


def test_a_tuple_of_several_fetches_a_list_in_order() -> None:
    fetched = mr.ExecutableTuple([mr.spawn(scaled, args=(i,)) for i in (3, 1, 2)]).execute().fetch()
    assert type(fetched) is list
    assert fetched == [30, 10, 20]


def test_a_tuple_of_one_fetches_a_tuple_of_one() -> None:
    fetched = mr.ExecutableTuple([mr.spawn(scaled, args=(3,))]).execute().fetch()
    assert type(fetched) is tuple
    assert fetched == (30,)


def test_an_empty_tuple_executes_to_itself_and_fetches_an_empty_tuple() -> None:
    empty = mr.ExecutableTuple([])
    assert empty.execute() is empty
    assert empty.fetch() == ()
    assert empty.fetch_log() == []


def test_execute_of_a_tuple_returns_the_tuple_itself() -> None:
    calls = mr.ExecutableTuple([mr.spawn(int), mr.spawn(str)])
    assert calls.execute() is calls


def test_a_named_tuple_keeps_its_fields_and_fetches_its_own_type() -> None:
    from collections import namedtuple

    pair = namedtuple("pair", "left right")
    calls = mr.ExecutableTuple(pair(mr.spawn(scaled, args=(1,)), mr.spawn(scaled, args=(2,))))
    assert {"left", "right"} <= set(dir(calls))
    assert calls.right is calls[1]
    fetched = calls.execute().fetch()
    assert type(fetched) is pair
    assert fetched == pair(10, 20)
    assert "left" in repr(calls)
    with pytest.raises(AttributeError):
        _ = calls.middle


def test_a_plain_tuple_refuses_unknown_attributes() -> None:
    with pytest.raises(AttributeError, match="unknown"):
        _ = mr.ExecutableTuple([mr.spawn(int)]).unknown


def test_an_executable_tuple_is_a_tuple_of_the_objects_and_slices_to_a_plain_tuple() -> None:
    objects = [mr.spawn(int) for _ in range(3)]
    calls = mr.ExecutableTuple(objects)
    assert isinstance(calls, tuple)
    assert list(calls) == objects
    first, *rest = calls
    assert first is objects[0] and rest == objects[1:]
    assert type(calls[:2]) is tuple


def test_to_object_of_a_tuple_gives_its_values() -> None:
    calls = mr.ExecutableTuple([mr.spawn(scaled, args=(i,)) for i in range(3)])
    assert list(calls.to_object()) == [0, 10, 20]


def test_a_tuple_from_a_permutation_of_objects_runs_in_that_order() -> None:
    np = pytest.importorskip("numpy")
    objects = [mr.spawn(scaled, args=(i,)) for i in range(6)]
    shuffled = np.random.default_rng(1).permutation(objects)
    assert shuffled.shape == (6,)
    values = mr.ExecutableTuple(shuffled).execute().fetch()
    assert sorted(values) == [0, 10, 20, 30, 40, 50]
    assert values == [o.fetch() for o in shuffled]


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"name": "fancy"},
        {"cpus": 1},
        {"cpus": 0.5},
        {"cpus": 2},
        {"memory": 1 << 30},
        {"memory": "1GiB"},
        {"memory": "512 MiB"},
        {"gpus": 0},
        {"timeout": 30},
        {"timeout": 30.5},
        {"retries": 0},
        {"retries": 2, "retry_on": ValueError},
        {"retries": 2, "retry_on": (ValueError, OSError)},
        {"idempotent": False},
        {"priority": 5},
        {"priority": -5},
        {"retry_when_fail": True},
        {"resolve_tileable_input": True},
        {"gpu": False},
        {"reassign_worker": True},
        {"fuseable": False},
        {"memory_scale": 2.0},
        {"output_types": "object"},
        {"output_types": ["object"]},
    ],
    ids=str,
)
def test_every_option_is_accepted_and_the_call_runs(options: dict[str, object]) -> None:
    assert mr.spawn(scaled, args=(2,), **options).execute().fetch() == 20


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("name", 3),
        ("cpus", 0),
        ("cpus", -1),
        ("cpus", "two"),
        ("cpus", float("nan")),
        ("memory", -1),
        ("memory", "lots"),
        ("gpus", -1),
        ("gpus", "one"),
        ("timeout", 0),
        ("timeout", -3),
        ("timeout", "soon"),
        ("retries", -1),
        ("retries", 1.5),
        ("retries", "many"),
        ("retry_on", "ValueError"),
        ("retry_on", 3),
        ("retry_on", (ValueError, 3)),
        ("idempotent", "no"),
        ("priority", "high"),
    ],
)
def test_a_bad_value_is_refused_at_spawn_and_names_the_option(option: str, wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match=option):
        mr.spawn(scaled, args=(2,), **{option: wrong})


class Stage(enum.StrEnum):
    FIT = "fit"


def test_a_name_may_be_a_member_of_an_enum() -> None:
    call = mr.spawn(scaled, args=(2,), name=Stage.FIT).execute()
    items = mr.map(scaled, [2], name=Stage.FIT).execute()
    assert [call.fetch(), *items.fetch()] == [scaled(2)] * 2


@pytest.mark.parametrize("unknown", ["num_cpus", "n_outputs", "retry"])
def test_an_unknown_option_is_refused_with_the_originals_words(unknown: str) -> None:
    with pytest.raises(ValueError, match=f"^Unexpected kw: {unknown}; "):
        mr.spawn(scaled, args=(2,), **{unknown: 1})


@pytest.mark.parametrize("wrong", [3, None, "scaled", [scaled]])
def test_a_func_that_cannot_be_called_is_refused_at_once(wrong: object) -> None:
    with pytest.raises(TypeError):
        mr.spawn(wrong).execute()


def test_higher_priority_starts_first_among_ready_calls(
    engine: str,
    keep_default: None,
    tmp_path: Path,
    note: Callable[..., None],
    lines: Callable[[object], list[str]],
) -> None:
    import mars

    ledger = tmp_path / "order"
    narrow = mars.new_session(engine=engine, n_cpu=1, default=False)
    try:
        order = [2, 0, 4, 1, 3]
        calls = [mr.spawn(note, args=(ledger, p), priority=p) for p in order]
        mr.ExecutableTuple(calls).execute(session=narrow)
    finally:
        narrow.stop_server()
    assert lines(ledger) == ["4", "3", "2", "1", "0"]


def test_calls_that_own_all_cpus_never_overlap(
    local_only: None,
    tmp_path: Path,
    note: Callable[..., None],
    lines: Callable[[object], list[str]],
) -> None:
    ledger = tmp_path / "overlap"

    def alone(i: int) -> None:
        import time

        note(ledger, f"begin {i}")
        time.sleep(0.03)
        note(ledger, f"end {i}")

    mr.ExecutableTuple([mr.spawn(alone, args=(i,), cpus=2) for i in range(4)]).execute()
    found = lines(ledger)
    assert len(found) == 8
    for begin, end in zip(found[::2], found[1::2], strict=True):
        assert begin.split() == ["begin", end.split()[1]]


def test_two_calls_of_one_cpu_run_at_the_same_time_on_two(
    local_only: None, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    def meet(mine: Path, other: Path) -> bool:
        mine.touch()
        pass_gate(other)
        return True

    a, b = tmp_path / "a", tmp_path / "b"
    calls = [mr.spawn(meet, args=(a, b)), mr.spawn(meet, args=(b, a))]
    assert mr.ExecutableTuple(calls).execute().fetch() == [True, True]


def test_a_call_that_asks_for_more_cpus_than_there_are_is_refused(local_only: None) -> None:
    import mars

    with pytest.raises(mars.errors.NoAvailableBand):
        mr.spawn(scaled, args=(2,), cpus=64).execute()
    assert mr.spawn(scaled, args=(2,)).execute().fetch() == 20


def test_the_times_of_a_call_are_in_order(engine: str) -> None:
    import time

    before = time.monotonic()
    source = mr.spawn(abs, args=(3,))
    call = mr.spawn(abs, args=(source,)).execute()
    after = time.monotonic()
    times = call.times()
    worker = times[3:]
    assert len(times) == 8
    assert list(worker) == sorted(worker)
    assert before <= times.queued <= times.sent <= times.received
    assert times.stored <= after
    assert 0 <= times.running_s <= after - before
    assert mr.spawn(abs, args=(1,)).times() is None


def test_the_items_of_a_map_have_times() -> None:
    values = mr.map(abs, range(5)).execute()
    assert values[2].times().stored >= values[2].times().queued


def test_module_functions_take_a_map() -> None:
    import mars

    assert mars.fetch(mars.execute(mr.map(abs, range(4)))) == [0, 1, 2, 3]
