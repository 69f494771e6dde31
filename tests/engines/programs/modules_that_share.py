"""Modules that import each other, and objects that several of them have."""

import importlib
import sys
from pathlib import Path
from unittest import mock

import plugged
import ring
from checks import check_call, check_calls, start
from ring import base, core
from ring.base import COUNT, FLAGS, GUARDED, MISSING, given

import mars.remote as mr

start()


def counted():
    return base.REGISTERED, len(base.ALL)


base.register(counted)  # before a worker has imported the plugin
check_call("what an import registers is counted once", counted, want=(2, 2))
check_call("a package and a module of it that import each other", ring.version, want=1)
check_call("what runs while they are imported", lambda: ring.NAME, want="ring")
check_call("one of them as an argument", lambda module: module.VERSION, ring, want=1)
check_call("each as the other has it", base.whole)
check_call("objects are one, unchanged", core.are_one, want=(True, True, True))
check_call("what one writes the other reads", core.put, "k", want=({"a": 1, "k": 1}, 1, [1, 2, 9]))

base.FLAGS["a"] = 2
base.COUNT.n = 5
base.LIMITS.append(3)
check_call("objects are one, changed by the program", core.are_one, want=(True, True, True))
check_call(
    "what one writes to them the other reads",
    core.put,
    "k",
    want=({"a": 2, "k": 1}, 6, [1, 2, 3, 9]),
)
with mock.patch("ring.base.FLAGS", {"other": 1}):
    other = mr.spawn(lambda: (base.see()[0], core.FLAGS is base.FLAGS))
check_calls(
    "one that a test replaces is another one",
    [other, mr.spawn(core.are_one)],
    [({"other": 1}, False), (True, True, True)],
)

check_call("a sentinel that the script has imported", given, want=False)
check_call("in a lambda", lambda: given(MISSING), want=False)
check_call("as an argument", given, MISSING, want=False)


def write():
    FLAGS["script"], COUNT.n = 1, 7
    found = base.see()[:2]
    return found, FLAGS is base.FLAGS, COUNT is core.COUNT


def with_default(flags=FLAGS):
    return flags is base.FLAGS


def with_closure():
    flags = FLAGS
    return lambda: flags is base.FLAGS


check_call(
    "what the script imports is its module's",
    write,
    want=(({"a": 2, "script": 1}, 7), True, True),
)
check_call("as a default", with_default)
check_call("in a closure", with_closure())

with mock.patch("ring.base.see", autospec=True, return_value="mock"):
    refused = mr.spawn(core.put, "k")
try:
    refused.execute()
except BaseException as error:
    print("ok " if "ring.base.see" in str(error) else f"BAD {error!r}", "a mock that cannot travel")
else:
    print("BAD a mock that cannot travel is not told of")


# -- what stays itself, and what does not ------------------------------------------------------

rebound = [7]
with mock.patch("ring.base.LIMITS", rebound), mock.patch("ring.core.LIMITS", rebound):
    both = mr.spawn(lambda: [base.LIMITS, core.LIMITS, core.put.__defaults__[0][:2]])
check_calls(
    "names that are bound anew leave the old object",
    [both, mr.spawn(core.are_one)],
    [[[7], [7], [1, 2]], (True, True, True)],
)


def by_registry():
    return base.LIMITS[-1], GUARDED.items, GUARDED is base.GUARDED


base.HANDLERS["mine"] = by_registry
base.LIMITS.append(4)
base.GUARDED.add("kept")
check_call(
    "a function in a registry finds what its module is",
    base.handle,
    "mine",
    want=(4, ["kept"], True),
)
check_call("what stands beside a lock", base.guarded, want=["kept"])
check_call("large values and parts of them", core.large_parts, want=(5, 5.0))


def ask_for_facts():
    return __doc__.partition(",")[0], __name__


check_call(
    "the script's own facts", ask_for_facts, want=("Modules that import each other", "__main__")
)

# -- a module that is loaded again ------------------------------------------------------------

sys.dont_write_bytecode = True
file = Path(base.__file__)
file.write_text(file.read_text().replace('"old"', '"new"'))
importlib.reload(base)


def says():
    return core.Derived().say(), base.Base().say(), issubclass(core.Derived, base.Base)


check_call("a class keeps the base that it has", says, want=says())
