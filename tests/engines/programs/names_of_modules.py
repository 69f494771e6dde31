"""What the program has put into ``sys.modules`` itself, and modules that are there twice."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys

import shop.models
import standing
from checks import check, check_call, start

import mars.remote as mr

start()

sys.modules["models_of_old"] = shop.models
sys.modules["shop.older"] = shop.models


def by_old_names():
    import models_of_old as old
    from shop.older import Item

    return old is shop.models, Item is shop.models.Item, type(old.Item()) is Item


check_call("a module under a second name", by_old_names, want=(True, True, True))
check(
    "and only where it is asked for",
    mr.spawn(lambda name: name in sys.modules, args=("models_of_old",)).to_object(),
    sys.argv[1] == "inline",
)

# -- an object in the place of its module -----------------------------------------------------------

check_call("an object in the place of a module", lambda: (standing.rate, standing.twice()),
           want=(1, 2))  # fmt: skip
standing.rate = 4


def lazily():
    import standing as again

    return again is standing, again.twice(), type(again).__name__


check_call("has what the program set, and is one thing", lazily, want=(True, 8, "Settings"))


def sets():
    standing.rate = 6
    import standing as again

    return again.rate


check_call("what a call sets in it is seen by the call", sets, want=6)
check("and not by the program", standing.rate, 4)

# -- modules without a loader, and the script's second name -----------------------------------------

bare = importlib.util.module_from_spec(importlib.util.spec_from_loader("bare", loader=None))
exec("THREE = 3\ndef three(): return THREE\nclass Kind: pass", bare.__dict__)
sys.modules["bare"] = bare
check_call("a module without a loader", lambda: bare.three(), want=3)
check("its classes come back", type(mr.spawn(lambda: bare.Kind()).to_object()) is bare.Kind)


class Unreadable:
    """Pickles, and cannot be read: no call asks for it."""

    def __reduce__(self):
        return Unreadable, (1,)


unreadable = Unreadable()
check("the script has a second name", sys.modules["__mp_main__"] is sys.modules["__main__"])


def imports(name):
    return importlib.import_module(name).Item().total(), multiprocessing.__name__


check_call("by which nothing goes along that nobody asks for", imports, "shop.models",
           want=(shop.models.Item().total(), "multiprocessing"))  # fmt: skip
