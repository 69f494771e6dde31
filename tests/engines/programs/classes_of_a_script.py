"""Classes and functions of a script keep all that they have, in a call and back again."""

import abc
import collections
import dataclasses
import datetime
import enum
import functools
import multiprocessing
import pickle
import typing
import weakref

from checks import check, check_call, start

import mars.remote as mr

start()

# -- slots -------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Point:
    x: int


class OneSlot:
    __slots__ = "a"

    def __init__(self):
        self.a = 3


class Private:
    __slots__ = ("__private", "__weakref__", "b")

    def __init__(self):
        self.__private, self.b = 5, 1

    def get(self):
        return self.__private


class Used:
    __slots__ = iter(["a", "b"])


def refuses(value):
    try:
        value.typo = 1
    except AttributeError:
        return True
    return False


check("a data class with slots", mr.spawn(Point, args=(1,)).to_object(), Point(1))
check_call(
    "slots refuse other names",
    lambda *all: [*map(refuses, (*all, Used()))],
    Point(1),
    OneSlot(),
    Private(),
    want=[True] * 4,
)
check("one slot, given as a text", mr.spawn(OneSlot).to_object().a, 3)
check_call("private slots", lambda p: (p.get(), weakref.ref(p)() is p), Private(), want=(5, True))

# -- enums -------------------------------------------------------------------------------------------


class Planet(enum.Enum):
    EARTH = (5.976e24, 6.37814e6)
    MARS = (6.4e23, 3.4e6)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius

    @property
    def gravity(self):
        return self.mass / self.radius**2


class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label, unit):
        made = bytes.__new__(cls, [value])
        made._value_, made.label, made.unit = value, label, unit
        return made

    PX = (0, "P.X", "km")
    PY = (1, "P.Y", "km")


class Rank(enum.IntFlag):
    A = 11
    B = 37


class Permission(enum.Flag):
    R = enum.auto()
    W = enum.auto()
    X = enum.auto()
    RW = R | W


class Strict(enum.Flag, boundary=enum.KEEP):
    A = 1


class Text(str, enum.Enum):
    A = "a"
    B = "b"
    ALIAS = "a"

    @classmethod
    def _missing_(cls, value):
        return cls.A

    @classmethod
    def default(cls):
        return cls.B


class Doubled(enum.StrEnum):
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return name * 2

    X = enum.auto()


class Day(datetime.date, enum.Enum):
    FIRST = 2020, 1, 1


class Hello(enum.Enum):
    def hello(self):
        return self.value


class Members(Hello):
    A = 1


@enum.unique
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


check_call(
    "what __init__ gave to members",
    lambda p: (
        p.mass,
        p.radius,
        p.name,
        p.value,
        p.gravity,
        Planet(p.value) is p is Planet.EARTH,
        len(Planet),
    ),
    Planet.EARTH,
    want=(5.976e24, 6.37814e6, "EARTH", (5.976e24, 6.37814e6), Planet.EARTH.gravity, True, 2),
)
check_call(
    "what __new__ gave to members",
    lambda c: (c.label, c.unit, c.value, bytes(c), Coordinate(1) is c is Coordinate.PY),
    Coordinate.PY,
    want=("P.Y", "km", 1, b"\x01", True),
)
check_call(
    "flags of many bits",
    lambda r: (int(r), r.name, r is Rank.B, Rank.A | Rank.B == Rank(47)),
    Rank.B,
    want=(37, "B", True, True),
)
check_call(
    "flags of flags",
    lambda p: (
        (p | Permission.X).value,
        (Permission.R | Permission.W) is Permission.RW is p,
        list(Permission),
        ~p,
    ),
    Permission.RW,
    want=(7, True, [Permission.R, Permission.W, Permission.X], Permission.X),
)
check_call("boundaries of flags", lambda: Strict(8).value, want=8)
check_call(
    "members that are text",
    lambda t: (
        t == "a",
        t.upper(),
        Text("?") is t is Text.ALIAS,
        Text.default() is Text.B,
        repr(t),
    ),
    Text.A,
    want=(True, "A", True, True, repr(Text.A)),
)
check_call(
    "values that are made", lambda d: (d.value, d is Doubled.X), Doubled.X, want=("XX", True)
)
check_call(
    "members that are dates", lambda d: (d.year, d is Day.FIRST), Day.FIRST, want=(2020, True)
)
check_call("methods of a base without members", lambda m: m.hello(), Members.A, want=1)
check_call("numbers", lambda level: (level + 1, Level(2) is Level.HIGH), Level.LOW, want=(2, True))
for member in (Planet.MARS, Coordinate.PX, Rank.A, Permission.R | Permission.X, Text.B, Day.FIRST):
    back = mr.spawn(lambda m: m, args=(member,)).to_object()
    check(f"{type(member).__name__}.{member.name} comes back as itself", back is member)

# -- what makes classes --------------------------------------------------------------------------------


class Base:
    registry = {}

    def __init_subclass__(cls, key):
        cls.key = key
        Base.registry[key] = cls


class Child(Base, key="k"):
    pass


class Meta(type):
    def __new__(meta, name, bases, body, **keywords):
        made = super().__new__(meta, name, bases, body)
        made.keywords = keywords
        return made

    def __init__(cls, name, bases, body, **keywords):
        super().__init__(name, bases, body)
        cls.times = getattr(cls, "times", 0) + 1

    def __call__(cls, *args):
        made = super().__call__(*args)
        made.called = True
        return made


class Made(metaclass=Meta, option=3):
    pass


class AbstractMeta(abc.ABCMeta):
    pass


class Shape(metaclass=AbstractMeta):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def area(self):
        return 4


Shape.register(int)


class Described:
    names = []

    def __set_name__(self, owner, name):
        self.name = name
        Described.names.append(name)

    def __get__(self, instance, owner):
        return self.name


class Describing:
    field = Described()


class Above:
    same = 1

    def get(self):
        return 1


class Below(Above):
    same = 1

    def __init__(self):
        super().__init__()

    def get(self):
        return super().get() + 1


def without_above():
    del Above.same
    return Below.same


def abstract():
    try:
        Shape()
    except TypeError:
        return isinstance(3, Shape), Square().area()


check_call(
    "keywords of a class statement",
    lambda c: (c.key, Base.registry["k"] is Child is type(c), len(Base.registry)),
    Child(),
    want=("k", True, 1),
)
check_call(
    "keywords of a metaclass",
    lambda m: (type(m).keywords, m.called, Made().called, Made.times, isinstance(Made, Meta)),
    Made(),
    want=({"option": 3}, True, True, 1, True),
)
check_call("abstract classes", abstract, want=(True, 4))
check_call(
    "descriptors are told their name once",
    lambda: (Describing().field, Described.names),
    want=("field", ["field"]),
)
check_call("an attribute equal to the base's is its own", without_above, want=1)
check_call("super()", lambda b: b.get(), Below(), want=2)

# -- what decorates ------------------------------------------------------------------------------------


class Circle:
    @functools.cached_property
    def area(self):
        return 3

    @functools.singledispatchmethod
    def of(self, x):
        return "object"

    @of.register
    def _(self, x: int):
        return "int"

    @functools.lru_cache
    def cached(self):
        return 7

    plus = functools.partialmethod(int.__add__, 1)


@functools.singledispatch
def show(x):
    """Say what it is."""
    return "object"


@show.register
def _(x: int):
    return "int"


@show.register(Circle)
def _(x):
    return "circle"


@functools.total_ordering
class Ordered:
    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return self.n == other.n

    def __lt__(self, other):
        return self.n < other.n

    __hash__ = None


def counter():
    n = 0

    def up():
        nonlocal n
        n += 1
        return n

    return up, lambda: n


up, value = counter()
check_call("cached properties", lambda c: (c.area, c.area, c.cached()), Circle(), want=(3, 3, 7))
check_call(
    "functions by type",
    lambda: (show(1), show("a"), show(Circle()), show.__doc__),
    want=("int", "object", "circle", "Say what it is."),
)
check_call("such a function itself", show, 1, want="int")
check_call("methods by type", lambda c: (c.of(1), c.of("")), Circle(), want=("int", "object"))
check_call(
    "orders",
    lambda a, b: (a < b, a >= b, Ordered.__hash__),
    Ordered(1),
    Ordered(2),
    want=(True, False, None),
)
check_call("closures share their variables", lambda: (up(), up(), value()), want=(1, 2, 2))
up_back, value_back = mr.spawn(counter).to_object()
up_back()
check("also when they come back", value_back(), 1)

# -- data classes, tuples, types -------------------------------------------------------------------------


@dataclasses.dataclass
class Data:
    a: int
    b: list = dataclasses.field(default_factory=list)
    c: "typing.Optional[int]" = None


@dataclasses.dataclass(kw_only=True, frozen=True)
class Keyword:
    a: int


class Pair(typing.NamedTuple):
    a: int
    b: str = "x"


Plain = collections.namedtuple("Plain", "x y")  # noqa: PYI024
T = typing.TypeVar("T")
P = typing.ParamSpec("P")
UserId = typing.NewType("UserId", int)


class Generic(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value


class Typed(typing.TypedDict, total=False):
    a: int


@typing.runtime_checkable
class Runs(typing.Protocol):
    def run(self): ...


class Runner:
    def run(self):
        pass


def typed(x: UserId) -> "typing.Annotated[int, 'a note']":
    return x


def decorate(func: "typing.Callable[P, T]") -> "typing.Callable[P, T]":
    return func


def without_argument():
    @dataclasses.dataclass
    class More(Keyword.__mro__[1]):
        _: dataclasses.KW_ONLY
        z: int

    try:
        More()
    except TypeError:
        return True


check_call(
    "data classes",
    lambda d: (
        dataclasses.fields(Data)[0].default is dataclasses.MISSING, dataclasses.replace(d, a=2).a,
        d == Data(1), dataclasses.asdict(d),
    ),
    Data(1),
    want=(True, 2, True, {"a": 1, "b": [], "c": None}),
)  # fmt: skip
check("data classes stay what they are", dataclasses.fields(Data)[0].default is dataclasses.MISSING)
check_call("keywords of data classes", without_argument)
check_call("frozen ones", lambda k: hash(k) == hash(Keyword(a=1)), Keyword(a=1))
check_call(
    "named tuples",
    lambda p: (p.a, p._replace(a=5), type(p) is Pair),
    Pair(1),
    want=(1, Pair(5), True),
)
check("named tuples come back", type(mr.spawn(Pair, args=(3,)).to_object()) is Pair)
check_call("the older ones", lambda p: (p.x, type(p) is Plain), Plain(1, 2), want=(1, True))
check_call(
    "generics",
    lambda g: (g.value, Generic[int](3).value, Generic.__parameters__ == (T,), type(g) is Generic),
    Generic(2),
    want=(2, 3, True, True),
)
check(
    "type variables come back as themselves",
    mr.spawn(lambda: (T, P, UserId)).to_object(),
    (T, P, UserId),
)
check_call(
    "typed dictionaries",
    lambda: (Typed(a=1), Typed.__annotations__, Typed.__total__),
    want=({"a": 1}, {"a": int}, False),
)
check_call("protocols", lambda: isinstance(Runner(), Runs))
check_call("new types", typed, 5, want=5)
check_call(
    "hints of functions",
    lambda: typing.get_type_hints(typed, include_extras=True),
    want=typing.get_type_hints(typed, include_extras=True),
)
check_call(
    "hints of classes", lambda: typing.get_type_hints(Data), want=typing.get_type_hints(Data)
)
check_call(
    "hints with parameters",
    lambda: typing.get_type_hints(decorate)["func"] == typing.Callable[P, T],
)

# -- things known by their name ----------------------------------------------------------------------------


class Sentinel:
    def __reduce__(self):
        return "NOTHING"


class Bare:
    pass


NOTHING, BARE, OBJECT = Sentinel(), Bare(), object()


def default(x=NOTHING, y=BARE, z=OBJECT):
    return x is NOTHING, y is BARE, z is OBJECT


check_call("sentinels", default, want=(True, True, True))
check_call("sentinels as arguments", default, NOTHING, BARE, OBJECT, want=(True, True, True))
check("sentinels come back", mr.spawn(lambda: NOTHING).to_object() is NOTHING)

# -- a real __main__ ------------------------------------------------------------------------------------


def square(x):
    return x * x


class Failed(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b


def pool():
    with multiprocessing.get_context("fork").Pool(1) as one:
        return one.map(square, [1, 2])


def pickled(value):
    import __main__

    copy = pickle.loads(pickle.dumps(value))
    return type(copy) is type(value) is getattr(__main__, type(value).__name__)


def fails():
    raise Failed(1, 2)


check_call("a pool inside a call", pool, want=[1, 4])
check_call("pickle inside a call", pickled, Data(1))
check(
    "what a call pickles, the program reads",
    type(pickle.loads(mr.spawn(pickle.dumps, args=(Data(1),)).to_object())) is Data,
)
check("functions come back as themselves", mr.spawn(lambda: square).to_object() is square)
try:
    mr.spawn(fails, retries=1, retry_on=Failed).execute()
except Failed as error:
    check(
        "errors of the script",
        (error.b, error.args, "attempt 2" in str(error.__notes__)),
        (2, (1,), True),
    )


# -- what is made while a pickle is read ------------------------------------------------------


class Spot(typing.NamedTuple):
    x: int = 0
    y: int = 0


@dataclasses.dataclass
class Outline:
    origin: Spot = Spot(1, 2)  # noqa: RUF009


class Corner(enum.Enum):
    FIRST = Spot(0, 0)
    SECOND = Spot(1, 0)


class Pair(tuple, enum.Enum):
    ONE = (1, 2)
    TWO = (3, 4)


def folded(text):
    return text.lower()


class Key:
    def __init__(self, text):
        self.text = text

    def __hash__(self):
        return hash(folded(self.text))

    def __eq__(self, other):
        return folded(self.text) == folded(other.text)


def looking_up():
    table = {Key("A"): 1}
    return lambda text: table[Key(text)]


class once(property):  # noqa: N801
    pass


class tagged(staticmethod):  # noqa: N801
    def __init__(self, func):
        super().__init__(func)
        self.tag = func.__name__


class Accessors:
    @once
    def value(self):
        return self.kept

    @value.setter
    def value(self, kept):
        self.kept = kept

    @tagged
    def static():
        return 5


def accessed(one):
    one.value = 3
    tags = type(vars(Accessors)["value"]).__name__, vars(Accessors)["static"].tag
    return one.value, one.static(), tags


def several(depth):
    return depth if depth > 30 else CHAIN[depth + 1](depth + 1)


CHAIN = [lambda depth: several(depth) for _ in range(40)]

check_call("a named tuple as a default", lambda: Outline().origin, want=Spot(1, 2))
check_call(
    "members that are named tuples",
    lambda c: (c is Corner.SECOND, c.value.x),
    Corner.SECOND,
    want=(True, 1),
)
check_call(
    "members of an enum of tuples",
    lambda p: (p is Pair.TWO, p[0], Pair((1, 2)) is Pair.ONE),
    Pair.TWO,
    want=(True, 3, True),
)
check_call("keys whose hash calls a function", looking_up(), "a", want=1)
check_call(
    "classes below property and staticmethod",
    accessed,
    Accessors(),
    want=(3, 5, ("once", "static")),
)
check_call("functions that call each other", several, 0, want=31)


def of_itself():
    def descend(depth=3):
        return descend(depth - 1) if depth else datetime.date.today().year > 0

    return descend


check_call("a closure over itself that needs a global name", of_itself())

# -- made by a call ----------------------------------------------------------------------------------


def classes_of_a_call():
    class Below(Point):
        def doubled(self):
            return Point(self.x * 2)

    return Below, Below(4)


below, point = mr.spawn(classes_of_a_call).to_object()
check("a class that a call made has the program's class above it", below.__mro__[1] is Point)
check(
    "and so have its objects", (type(point) is below, type(point.doubled()) is Point), (True, True)
)


# -- of an installed package, which names another module as its own -----------------------------------


def skips():
    import pytest

    pytest.skip("why")


def is_skipped(error):
    import pytest

    return type(error) is pytest.skip.Exception


try:
    mr.spawn(skips).execute()
except BaseException as error:
    check("an exception of pytest comes out as its own", is_skipped(error))
    check_call("and is that in a call", is_skipped, error)
