"""Calls see the code that the program had when they were spawned, whatever became of it since."""

import importlib
import itertools
import os
import sys
from pathlib import Path

from checks import check, check_call, check_calls, start

import mars.remote as mr

start()
HERE = Path(__file__).parent
sys.dont_write_bytecode = True


def write(name, text):
    path = HERE / f"{name}.py"
    path.write_text(text)
    importlib.invalidate_caches()
    return path


VERSION = (
    "N = {n}\nclass Kind:\n    n = {n}\n    def get(self): return {n}\ndef get(): return {n}\n"
)

# -- edited and loaded again -----------------------------------------------------------------------

write("edited", VERSION.format(n=1))
write(
    "user",
    "from edited import Kind, get\nimport edited\ndef both(): return get(), edited.get(), Kind.n\n",
)
import edited  # noqa: E402
import user  # noqa: E402

calls, wanted = [], []
for n in (1, 22, 333):
    if n > 1:
        write("edited", VERSION.format(n=n))
        importlib.reload(edited)
    calls += [
        mr.spawn(edited.get),
        mr.spawn(lambda: edited.N),
        mr.spawn(edited.Kind().get),
        mr.spawn(lambda k: (k.get(), type(k) is edited.Kind), args=(edited.Kind(),)),
    ]
    wanted += [n, n, n, (n, True)]
check_calls("each call has the code of its spawn", calls[::-1] + calls, wanted[::-1] + wanted)
check("the program has the last one", (edited.get(), edited.Kind.n), (333, 333))
check_call("what was taken from a module before stays old", user.both, want=(1, 333, 1))

# -- edited, and not loaded again ------------------------------------------------------------------

write("kept", VERSION.format(n=1))
import kept  # noqa: E402

known = mr.spawn(kept.get)
write("kept", VERSION.format(n=22))
check_calls(
    "a file that is edited is not what runs",
    [known, mr.spawn(kept.get), mr.spawn(lambda: kept.Kind.n)],
    [1, 1, 1],
)
write("unseen", VERSION.format(n=1))
import unseen  # noqa: E402

write("unseen", VERSION.format(n=22))
check_calls(
    "also one that nobody saw before it was edited",
    [mr.spawn(unseen.get), mr.spawn(lambda: unseen.N), mr.spawn(lambda: unseen.Kind().get())],
    [1, 1, 1],
)
gone = write("gone", VERSION.format(n=5))
import gone as removed  # noqa: E402

before = mr.spawn(removed.get)
gone.unlink()
check_calls(
    "a file that is removed is not needed", [before, mr.spawn(lambda: removed.Kind.n)], [5, 5]
)

# -- defined again, as in a notebook -----------------------------------------------------------------


def cell(text):
    exec(compile(text, "<cell>", "exec"), globals())


calls, wanted = [], []
for n in range(4):
    cell(
        f"class Cell:\n    n = {n}\n    def get(self): return {n}\ndef cell_get(): return Cell().get() + offset\noffset = {n}"
    )
    calls += [mr.spawn(cell_get), mr.spawn(lambda c: (c.get(), type(c) is Cell), args=(Cell(),))]  # noqa: F821
    wanted += [2 * n, (n, True)]
check_calls("a cell that runs again", calls[::-1], wanted[::-1])
old = Cell()  # noqa: F821
cell("class Cell: pass")
check_call(
    "an object of the class before", lambda c: (c.get(), isinstance(c, Cell)), old, want=(3, False)
)  # noqa: F821
check("comes back as that", type(mr.spawn(lambda c: c, args=(old,)).to_object()) is type(old))

# -- state of classes, at each spawn -----------------------------------------------------------------


class Config:
    rate = 0
    names = []


def read(i):
    return Config.rate


calls, wanted = [], []
for i in range(200):
    Config.rate = (i * 7) % 5
    calls.append(mr.spawn(read, args=(i,)))
    wanted.append(Config.rate)
check_calls("200 states of one class", calls, wanted)


def spoil(i):
    Config.rate = 99
    Config.names.append(i)
    return Config.rate


Config.rate = 3
check_calls(
    "what calls set stays with them",
    [mr.spawn(spoil, args=(1,)), mr.spawn(read, args=(1,))],
    [99, 3],
)
check("and out of the program", (Config.rate, Config.names), (3, []))
Config.rate = 4
one = mr.spawn(lambda c: (c.rate, type(c).rate), args=(Config(),))
Config.rate = 5
two = mr.spawn(lambda c: (c.rate, type(c).rate), args=(Config(),))
check_calls("a class that only arguments bring", [two, one], [(5, 5), (4, 4)])

# -- fetching changes nothing ------------------------------------------------------------------------


class Node:
    ids = itertools.count()
    cache = {}
    rate = 1

    def __init__(self):
        self.id = next(Node.ids)

    def bump(self):
        global count
        count += 1


count = 0
call = mr.spawn(lambda n: n, args=(Node(),)).execute()
Node.rate, Node.cache["a"] = 2, 1
cache = Node.cache
first = Node()
back = call.fetch()
second = Node()
check("counters go on", (first.id, second.id), (1, 2))
check("attributes stay", (Node.rate, Node.cache is cache, cache), (2, True, {"a": 1}))
Node.bump(back)
check("methods are the program's", count, 1)


class Counted(Exception):
    seen = 0


def raise_it():
    Counted.seen += 1
    raise Counted(Counted.seen)


for _ in range(2):
    try:
        mr.spawn(raise_it).execute()
    except Counted:
        pass
check("errors leave their class alone", Counted.seen, 0)


def nested():
    Node.rate = 8
    inner = mr.spawn(lambda: Node()).to_object()
    return type(inner) is Node, Node.rate


check_call("fetching inside a call changes nothing, either", nested, want=(True, 8))
check("the program runs once", os.environ.pop("RUN_AGAIN", None) is None)
os.environ["RUN_AGAIN"] = "1"


# -- state that goes on changing --------------------------------------------------------------

import shop  # noqa: E402

calls, want = [], []
for number in range(12):
    shop.state.SETTINGS["rate"], shop.Item.scale = number % 4, number % 2
    want.append((number % 4, number % 2))
    calls.append(mr.spawn(lambda: (shop.state.rate(), shop.Item.scale)))
check_calls("each call has the state at its spawn", calls, want)
