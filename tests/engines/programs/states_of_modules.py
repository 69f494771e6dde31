"""What a program has in its modules is what calls find, wherever it stands."""

import functools
import inspect
import os
import pickle
import sys

import setup_of
from checks import check, check_call, check_calls, start

setup_of.FAST, setup_of.RATE = True, 5

import parts  # noqa: E402
import spaces.settings  # noqa: E402

import mars.remote as mr  # noqa: E402

start()

# -- an import that would make something else now ----------------------------------------------

check_call("what an import chose, and its defaults", parts.by_branches, want=parts.by_branches())
check_call("values of an enum", parts.is_token, parts.Token.ONE, want=(True, True))
check_call("the script's file", lambda: parts.SCRIPT, want=os.path.basename(__file__))
check_call(
    "and as an attribute",
    lambda: os.path.basename(sys.modules["__main__"].__file__),
    want=os.path.basename(__file__),
)

# -- what the program changes later ------------------------------------------------------------

parts.Level.LOW.label = "low"
check_call("an attribute of a member", lambda: parts.Level.LOW.label, want="low")

parts.Model.rate = 2
check_call("a class in containers", parts.containers, want=(2, 2, 2))
check_call("the class of an input", lambda model: model.rate, mr.spawn(parts.made), want=2)

del parts.Model.old
parts.Model.__table__ = "b"
parts.Model.words = {str(number): number for number in range(20_000)}
method = parts.Model.method
del parts.Model.method
check_call(
    "deleted, special and large attributes", parts.of_class, want=(False, False, "b", 20_000)
)
parts.Model.method = method

parts.retried.tries = 4
check_call("an attribute of a decorated function", parts.retried, want=4)
parts.listed.__defaults__[0].append(7)
parts.listed.__kwdefaults__["count"] = 3
check_call("defaults", parts.listed, want=([7], (1, 2), 3))
parts.needy.__defaults__ = (5,)
check_call("defaults of a function that had none", lambda: parts.needy(), want=5)

calls = []
for rate in (2, 3):
    parts.RATE = rate
    parts.cached.cache_clear()
    calls += [mr.spawn(parts.cached, args=(1,)), mr.spawn(parts.by_text)]
check_calls("caches and names in texts", calls, [2, (2, 2), 3, (3, 3)])

parts.backend = parts.Fast()
check_call("an object without attributes", parts.used, want="fast")
check_call("as an argument", parts.used, parts.backend, want="fast")
early = mr.spawn(parts.used)
parts.backend = parts.Slow()
check_calls("at each spawn", [early, mr.spawn(parts.used)], ["fast", "slow"])

parts.Single.get().debug = True
check_call("an object that pickles as what makes it", parts.debug)

spaces.settings.LEVEL = 2


def of_a_package():
    return spaces.settings.LEVEL, spaces.settings.level()


check_call("a package without a file", of_a_package, want=(2, 2))


# -- the script itself ------------------------------------------------------------------------


class Outer:
    class Inner:
        """Its code does not name the class around it, which does not travel."""


def pickled(value):
    return type(pickle.loads(pickle.dumps(value))) is type(value)


check_call("a class inside a class pickles in a call", pickled, Outer.Inner())


class Own:
    size = 1


check_call("the source of a class", lambda: inspect.getsource(Own)[:9], want="class Own")


class First:
    pass


class Second:
    pass


class Heir(First):
    pass


def inherits():
    return issubclass(Heir, First)


heirs = [mr.spawn(inherits)]
Heir.__bases__ = (Second,)
heirs.append(mr.spawn(inherits))
check_calls("bases of a class at each spawn", heirs, [True, False])

# -- calls leave it -----------------------------------------------------------------------------


@functools.lru_cache
def asked():
    return len(parts.ORDERED)


def write():
    parts.ORDERED["more"] = 1
    parts.GROUPS["more"].append(1)
    parts.cached(9)
    return len(parts.ORDERED)


parts.cached.cache_clear()
check_call("a call that writes", write, want=2)
check("the program's own", (len(parts.ORDERED), len(parts.GROUPS)), (1, 1))
check("its caches", parts.cached.cache_info().currsize, 0)
