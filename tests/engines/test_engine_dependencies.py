"""Objects in arguments become values, wherever they are; everything else arrives as it was."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import mars.remote as mr

Point = namedtuple("Point", "x y")


class Typed(NamedTuple):
    a: object
    b: object = None


@dataclasses.dataclass
class Setup:
    model: object
    rest: list[object] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class FrozenSetup:
    model: object
    tag: str = "t"


@dataclasses.dataclass(slots=True)
class SlottedSetup:
    model: object


def value(x: object) -> object:
    return x


def identity(x: object) -> object:
    return x


def kinds(x: object) -> object:
    """Types of a nested value by name, which survives any way of shipping a class."""
    if isinstance(x, dict):
        return (type(x).__name__, [(kinds(k), kinds(v)) for k, v in x.items()])
    if isinstance(x, list | tuple | deque):
        return (type(x).__name__, [kinds(item) for item in x])
    return type(x).__name__


NESTED: dict[str, tuple[Callable[[Any], object], object]] = {
    "alone": (lambda o: o, 7),
    "list": (lambda o: [1, o], [1, 7]),
    "tuple": (lambda o: (1, o), (1, 7)),
    "dict value": (lambda o: {"a": o}, {"a": 7}),
    "dict key": (lambda o: {o: "a"}, {7: "a"}),
    "dict key and value": (lambda o: {o: [o]}, {7: [7]}),
    "set": (lambda o: {o, 1}, {1, 7}),
    "frozenset": (lambda o: frozenset([o, 1]), frozenset([1, 7])),
    "named tuple": (lambda o: Point(o, 2), Point(7, 2)),
    "typed named tuple": (lambda o: Typed(1, o), Typed(1, 7)),
    "ordered dict": (lambda o: OrderedDict(b=o, a=1), OrderedDict(b=7, a=1)),
    "counter": (lambda o: Counter({"a": o, "b": 2}), Counter({"a": 7, "b": 2})),
    "deep": (lambda o: [{"a": ({"b": [o]},)}], [{"a": ({"b": [7]},)}]),
    "twice": (lambda o: [o, [o]], [7, [7]]),
    "tuple of tuples": (lambda o: ((o,), ((o,),)), ((7,), ((7,),))),
}


@pytest.mark.parametrize("place", NESTED)
def test_an_object_is_replaced_by_its_value_in(place: str) -> None:
    build, expected = NESTED[place]
    source = mr.spawn(value, args=(7,))
    back = mr.spawn(identity, args=(build(source),)).execute().fetch()
    assert back == expected
    assert kinds(back) == kinds(expected)


@pytest.mark.parametrize("place", NESTED)
def test_an_object_is_replaced_in_keyword_arguments_in(place: str) -> None:
    build, expected = NESTED[place]
    source = mr.spawn(value, args=(7,))
    call = mr.spawn(lambda *, given: given, kwargs={"given": build(source)})
    assert call.execute().fetch() == expected


def test_a_default_dict_keeps_its_factory() -> None:
    given: defaultdict[str, list[object]] = defaultdict(list)
    given["a"] = [mr.spawn(value, args=(7,))]

    def use(received: defaultdict[str, list[object]]) -> object:
        received["new"].append(1)
        return type(received).__name__, received["a"], received["new"]

    assert mr.spawn(use, args=(given,)).execute().fetch() == ("defaultdict", [7], [1])


@pytest.mark.parametrize("kind", [Setup, FrozenSetup, SlottedSetup])
def test_an_object_is_replaced_in_a_dataclass(kind: Callable[[object], Any]) -> None:
    source = mr.spawn(value, args=(7,))
    call = mr.spawn(lambda s: (type(s).__name__, s.model), args=(kind(source),))
    assert call.execute().fetch() == (kind.__name__, 7)  # type: ignore[attr-defined]


def test_an_object_deep_in_a_dataclass_is_replaced_and_the_callers_instance_is_not() -> None:
    source = mr.spawn(value, args=(7,))
    setup = Setup(model={"m": source}, rest=[source])
    call = mr.spawn(lambda s: (s.model, s.rest), args=(setup,))
    assert call.execute().fetch() == ({"m": 7}, [7])
    assert setup.model == {"m": source} and setup.rest == [source]


def test_objects_in_a_numpy_object_array_are_replaced() -> None:
    np = pytest.importorskip("numpy")
    array = np.empty((2, 2), dtype=object)
    sources = [mr.spawn(value, args=(i,)) for i in range(3)]
    array[0, 0], array[0, 1], array[1, 0], array[1, 1] = *sources, "plain"
    back = mr.spawn(identity, args=(array,)).execute().fetch()
    assert back.shape == (2, 2) and back.dtype == object
    assert back.tolist() == [[0, 1], [2, "plain"]]


def test_a_shuffled_array_of_objects_is_one_argument() -> None:
    np = pytest.importorskip("numpy")
    sources = [mr.spawn(value, args=(i,)) for i in range(5)]
    shuffled = np.random.default_rng(0).permutation(sources)
    assert mr.spawn(lambda a: sorted(a), args=(shuffled,)).execute().fetch() == [0, 1, 2, 3, 4]


def test_an_executable_tuple_inside_arguments_keeps_its_type() -> None:
    inputs = mr.ExecutableTuple([mr.spawn(value, args=(i,)) for i in range(3)])
    call = mr.spawn(lambda t: (type(t).__name__, list(t)), args=([inputs][0],))
    name, values = mr.spawn(lambda box: (type(box[0]).__name__, list(box[0])), [inputs]).to_object()
    assert (name, values) == ("ExecutableTuple", [0, 1, 2])
    del call


def test_the_callers_containers_are_not_touched() -> None:
    source = mr.spawn(value, args=(7,))
    given = {"a": [source, (source,)]}
    mr.spawn(identity, args=(given,)).execute()
    assert given == {"a": [source, (source,)]}


def test_a_tree_of_calls_is_computed_from_its_leaves() -> None:
    level = [mr.spawn(value, args=(i,)) for i in range(16)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [mr.spawn(lambda p: p["l"] + p["r"], {"l": a, "r": b}) for a, b in pairs]
    assert level[0].execute().fetch() == sum(range(16))


def test_an_executed_object_as_argument_is_read_from_the_store() -> None:
    source = mr.spawn(lambda: object.__hash__(object())).execute()
    assert mr.spawn(identity, args=([source],)).execute().fetch() == [source.fetch()]


def test_none_as_the_value_of_an_input_is_a_value() -> None:
    nothing = mr.spawn(lambda: None)
    assert mr.spawn(lambda *a: a, args=(nothing, [nothing])).execute().fetch() == (None, [None])


# -- what holds no Object is not rebuilt -------------------------------------------------------


class Registry(dict):  # type: ignore[type-arg]
    """A dict that cannot be rebuilt from its items."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return _registry, (self.name, dict(self))


def _registry(name: str, items: dict[object, object]) -> Registry:
    made = Registry(name)
    made.update(items)
    return made


class Steps(list):  # type: ignore[type-arg]
    def __init__(self, *items: object) -> None:
        super().__init__(items)

    def __reduce__(self) -> tuple[object, ...]:
        return Steps, tuple(self)


@pytest.mark.parametrize(
    "given",
    [
        Point(1, 2),
        Typed([1]),
        Counter("hello"),
        OrderedDict(b=1, a=2),
        defaultdict(int, a=1),
        deque([1, 2], maxlen=3),
        Registry("r"),
        Steps(1, 2),
        frozenset({1}),
        SimpleNamespace(a=1),
        bytearray(b"x"),
        range(3),
        {1: {2: {3}}},
        Setup(1),
    ],
    ids=lambda g: type(g).__name__,
)
@pytest.mark.parametrize("beside_an_object", [False, True])
def test_containers_without_objects_arrive_with_their_own_type(
    given: object, beside_an_object: bool
) -> None:
    def look(x: object, *_: object) -> tuple[str, object]:
        return type(x).__name__, x

    others = (mr.spawn(value, args=(1,)),) if beside_an_object else ()
    name, back = mr.spawn(look, args=(given, *others)).execute().fetch()
    assert name == type(given).__name__ == type(back).__name__
    if isinstance(given, Setup):
        assert vars(back) == vars(given)
    else:
        assert back == given


def test_attributes_of_a_container_without_objects_survive_beside_an_object() -> None:
    registry = Registry("kept")
    registry["a"] = 1
    source = mr.spawn(value, args=(1,))
    call = mr.spawn(lambda r, o: (r.name, dict(r), o), args=(registry, source))
    assert call.execute().fetch() == ("kept", {"a": 1}, 1)


def test_one_list_given_twice_is_one_list_inside() -> None:
    shared = [1]
    assert mr.spawn(lambda a, b: a is b, args=(shared, shared)).execute().fetch() is True


def test_a_list_that_contains_itself_arrives() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    assert mr.spawn(lambda x: x[1] is x, args=(loop,)).execute().fetch() is True


def test_a_counter_as_result_is_the_same_counter() -> None:
    back = mr.spawn(lambda: Counter("hello")).execute().fetch()
    assert type(back) is Counter and back == Counter("hello")


@pytest.mark.parametrize("make", [lambda: Point(1, 2), lambda: OrderedDict(a=1), lambda: {1, 2}])
def test_containers_as_results_keep_their_type(make: Callable[[], object]) -> None:
    back = mr.spawn(make).execute().fetch()
    assert type(back).__name__ == type(make()).__name__
    assert back == make()


def test_a_default_dict_with_a_lambda_as_result_comes_back() -> None:
    def count() -> defaultdict[str, int]:
        counted: defaultdict[str, int] = defaultdict(lambda: 0)
        counted["a"] += 1
        return counted

    back = mr.spawn(count).execute().fetch()
    assert back["a"] == 1 and back["missing"] == 0
