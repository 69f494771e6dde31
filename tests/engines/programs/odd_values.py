"""Values that plain pickle refuses or loses, and names that stand in texts."""

from __future__ import annotations

import copyreg
import enum
import gc
import importlib
import re
import sys
import threading
import types
import typing
import weakref

import connections
from checks import check, check_call, start

import mars.remote as mr

start()

# -- nested deeper than Python's recursion limit ------------------------------------------------------


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value):
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    return depth


class Link:
    def __init__(self, rest):
        self.rest = rest


def linked(count):
    rest = None
    for _ in range(count):
        rest = Link(rest)
    return rest


def count_of(link):
    count = 0
    while link is not None:
        link, count = link.rest, count + 1
    return count


DEEP = nested(4_000)

check_call("lists inside lists", depth_of, nested(3_000), want=3_000)
check("such a result", depth_of(mr.spawn(nested, args=(3_000,)).to_object()), 3_000)
check_call("a linked list", count_of, linked(3_000), want=3_000)
check("a linked list as result", count_of(mr.spawn(linked, args=(3_000,)).to_object()), 3_000)
check_call("nested lists under a global name", lambda: depth_of(DEEP), want=4_000)

# -- members of enums whose values are equal to nothing ------------------------------------------------


class Odd(enum.Enum):
    NAN = float("nan")
    THING = object()
    PAIR = (float("nan"), 1)
    CALL = enum.member(lambda: 3)


class OddFloat(float, enum.Enum):
    NAN = float("nan")


for member in (*Odd, *OddFloat, *connections.Odd):
    kind = type(member)
    check_call(f"{member} is itself", lambda got, kind=kind: got is kind[got.name], member)
    check(f"{member} comes back", mr.spawn(lambda one: one, args=(member,)).to_object() is member)

# -- reducers that the program registers ---------------------------------------------------------------


class Handle:
    def __init__(self, number):
        self.number, self.lock = number, threading.Lock()


copyreg.pickle(Handle, lambda handle: (Handle, (handle.number,)))
copyreg.pickle(connections.Connection, lambda one: (connections.Connection, (one.url,)))
copyreg.pickle(re.Match, lambda match: (str, (match.group(),)))
copyreg.pickle(types.GeneratorType, lambda numbers: (list, (list(numbers),)))

check("a result with a reducer", mr.spawn(Handle, args=(4,)).to_object().number, 4)
check_call(
    "reducers inside a call", lambda: copyreg.dispatch_table[Handle](Handle(3))[1], want=(3,)
)
check(
    "a class of a module",
    mr.spawn(lambda: connections.Connection("u")).to_object().url,
    "u",
)
check_call("a class of Python", lambda: re.match("a+", "aab"), want="aa")
check_call("a type without a name", lambda: (one for one in "ab"), want=["a", "b"])
copyreg.pickle(Handle, lambda handle: (str, (f"handle {handle.number}",)))
check_call("another reducer", Handle, 5, want="handle 5")
del copyreg.dispatch_table[Handle], copyreg.dispatch_table[re.Match]

# -- names in texts ------------------------------------------------------------------------------------


class Leaf:
    parent: Tree


class Tree:
    leaf: Leaf


def hints_inside():
    class Inner:
        leaf: Leaf
        trees: "list[Tree]"

    def inner(tree: Tree) -> Leaf: ...

    return [*map(str, {**typing.get_type_hints(Inner), **typing.get_type_hints(inner)}.values())]


check_call("annotations of what a function defines", hints_inside, want=hints_inside())
LOCK = threading.Lock()  # cannot travel, and is left out where all names of the script go along
check_call("globals by name", lambda name: globals()[name].__name__, "Leaf", want="Leaf")
check_call("a text that is evaluated", lambda text: eval(text).__name__, "Leaf", want="Leaf")


def from_main(name):
    import __main__

    return getattr(__main__, name).__name__, __main__.Tree.__name__


check_call("names of the script as a module", from_main, "Leaf", want=("Leaf", "Tree"))

__version__ = "1.2"


def from_main_by_text(name):
    import __main__

    return getattr(__main__, name), vars(__main__)[name], globals()[name]


check_call("names like __version__", from_main_by_text, "__version__", want=("1.2",) * 3)
check_call(
    "what the script says of itself",
    lambda: vars(sys.modules["__main__"])["__doc__"].partition(",")[0],
    want="Values that plain pickle refuses or loses",
)
check_call("a name like __version__ of a module", connections.about, "__version__", want="3")
connections.__version__ = "4"
check_call("that the program has changed", connections.about, "__version__", want="4")

made = types.ModuleType("made_by_hand")
exec("def answer(): return 42", made.__dict__)
sys.modules["made_by_hand"] = made


def imports(name):
    return importlib.import_module(name).answer()


check_call("a module without a file by its name", imports, "made_by_hand", want=42)

# -- containers of weak references ----------------------------------------------------------------------


class Cached:
    known = weakref.WeakValueDictionary()

    def __new__(cls, name):
        return cls.known.setdefault(name, super().__new__(cls))


kept = Cached("a")
check_call(
    "a weak dictionary of a class", lambda one: Cached("b") is Cached("b") and one, 3, want=3
)
check_call("and what it holds", lambda: kept is Cached.known["a"])


class Listed:
    """Objects that their class lists, and holds weakly."""

    all_of = weakref.WeakSet()
    by_name = weakref.WeakValueDictionary()
    notes = weakref.WeakKeyDictionary()

    def __init__(self, name):
        self.name, self.others = name, Listed.all_of
        Listed.all_of.add(self)
        Listed.by_name[name] = self
        Listed.notes[self] = name


def listed():
    return sorted(one.name for one in Listed.all_of), [*Listed.by_name], len(Listed.notes)


def lists_more():
    more = Listed("c")
    count = len(Listed.all_of)
    del more
    gc.collect()
    return count, len(Listed.all_of)


HELD = [Listed("a"), Listed("b")]
check_call("what only the program holds is there", listed, want=(["a", "b"], ["a", "b"], 2))
check_call(
    "and refers to the same", lambda: {one.others is Listed.all_of for one in Listed.all_of},
    want={True},
)  # fmt: skip
check_call("what a call makes goes when nobody holds it", lists_more, want=(3, 2))
back = mr.spawn(lambda: Listed.all_of).to_object()
check("a weak set comes back", sorted(one.name for one in back), ["a", "b"])
