"""A module of the project is one thing in a call: the one that the program has."""

import pickle
import sys
from unittest import mock

import shop
import shop.models
from checks import check, check_call, check_calls, start
from shop import Item, state
from shop.models import Bad, Color, First, Point

import mars.remote as mr

start()


# -- one thing, however it is got at ----------------------------------------------------------


def lazily(item):
    from shop import Item as by_package
    from shop.models import Item as by_module

    return type(item) is by_package is by_module is Item is shop.models.Item


check_call("a class is one, imported before or inside", lazily, Item())
check_call(
    "its module is in sys.modules, with its functions' names",
    lambda: sys.modules["shop.state"].__dict__ is state.get.__globals__ and state is shop.state,
)
check("a result is of the program's class", type(mr.spawn(lambda: Item()).to_object()) is Item)


def lazy_result():
    import shop.models

    return shop.models.Point(1, 2)


check("a result of a class imported inside", mr.spawn(lazy_result).to_object(), Point(1, 2))
check_call(
    "members are themselves",
    lambda c: (c is Color.RED, Color([1]) is c),
    Color.RED,
    want=(True, True),
)
check("members come back as themselves", mr.spawn(lambda: Color.BLUE).to_object() is Color.BLUE)
check_call("a class method makes its class", lambda: type(Item.cheap()) is Item)
check_call("cached properties", lambda i: (i.slow, i.slow), Item(), want=(102, 102))


def caught():
    import shop.models as late

    try:
        shop.models.fail(3)
    except late.Bad as error:
        return error.code


check_call("an exception is caught by its class", caught, want=3)
try:
    mr.spawn(shop.models.fail, args=(4,)).execute()
except Bad as error:
    check("an exception comes out as its class", error.code, 4)


try:
    mr.spawn(shop.models.fail, args=(1,), retries=2, retry_on=Bad).execute()
except Bad as error:
    check("what is worth a retry is known by its class", "attempt 3" in str(error.__notes__))
check_call("a module with a lock is one, too", state.is_missing, want=True)
check_call("a sentinel is itself", state.is_missing, state.MISSING, want=True)
check_call("a class with a lock", lambda one: one.get(), shop.models.Locked(), want=5)
check_call("a decorated function", shop.models.price, Item(7), want=7)
check_call("a cached function", shop.models.squared, 4, want=16)
check_call("subclasses that registered", lambda: shop.models.REGISTRY["first"] is First)

# -- what a call sets --------------------------------------------------------------------------


def set_and_get(value):
    state.init(value)
    return state.VALUE, state.get(), shop.state.VALUE


check_call("what a call sets is seen by the rest of it", set_and_get, 5, want=(5, 5, 5))
check("and not by the program", state.VALUE is None)


def through_a_name(value):
    state.VALUE = value
    from shop.state import VALUE, get

    return VALUE, get()


check_call("also set from outside", through_a_name, 6, want=(6, 6))
check_calls(
    "calls spawned meanwhile have the program's state",
    [mr.spawn(set_and_get, args=(1,)), mr.spawn(state.get), mr.spawn(lambda: state.VALUE)],
    [(1, 1, 1), None, None],
)

# -- what pickles, and forks, inside a call ------------------------------------------------------


def pickled(value):
    return type(pickle.loads(pickle.dumps(value))) is type(value)


check_call("pickle by reference", pickled, Item())
check_call("pickle of a data class with slots", pickled, Point(1))


def pooled():
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.map(shop.models.squared, [2, 3])


check_call("a pool of the module's own functions", pooled, want=[4, 9])


def dumped():
    import io

    import joblib

    file = io.BytesIO()
    joblib.dump(Item(), file)
    file.seek(0)
    return type(joblib.load(file)) is Item and joblib.hash(Item()) == joblib.hash(Item())


check_call("joblib.dump and joblib.hash", dumped)

# -- what the program had set ----------------------------------------------------------------------

calls, wanted = [], []
for value in (7, "text", [1, 2], None, {"a": Item}):
    state.VALUE = value
    calls.append(mr.spawn(state.get))
    wanted.append(value)
state.VALUE = None
check_calls("a name of a module, as it was at spawn", calls * 2, wanted * 2)

calls, wanted = [], []
for scale in (3, 4, 1, 5):
    Item.scale = scale
    calls.append(mr.spawn(lambda i: i.total(), args=(Item(),)))
    calls.append(mr.spawn(Item.total, args=(Item(),)))
    wanted += [2 * scale, 2 * scale]
Item.scale = 1
check_calls("an attribute of a class, as it was at spawn", calls * 2, wanted * 2)

before = mr.spawn(state.rate)
state.SETTINGS["rate"] = 2
after = mr.spawn(state.rate)
state.SETTINGS["rate"] = 1
check_calls(
    "what is in a dictionary, as it was at spawn", [before, after, mr.spawn(state.rate)], [1, 2, 1]
)

next(state.NUMBERS), next(state.NUMBERS)
check_call("a counter goes on where the program is", lambda: next(state.NUMBERS), want=2)
check("and stays there", next(state.NUMBERS), 2)

with mock.patch("shop.state.helper", lambda: "patched"):
    patched = mr.spawn(state.call_helper)
with mock.patch.object(Item, "total", lambda self: "patched"):
    method = mr.spawn(lambda i: i.total(), args=(Item(),))
with mock.patch.dict(state.SETTINGS, rate=9):
    entry = mr.spawn(state.rate)
with mock.patch("shop.state.get", return_value="mocked"):
    mocked = mr.spawn(lambda: state.get())
check_calls(
    "what tests replace, as it was at spawn",
    [patched, method, entry, mocked, mr.spawn(state.call_helper), mr.spawn(state.rate)],
    ["patched", "patched", 9, "mocked", "helper", 1],
)
state.added = 5
check_call("a name that was added", lambda: state.added, want=5)
del state.added


def removed():
    return hasattr(state, "LOG"), "LOG" in vars(state)


log = state.LOG
del state.LOG
check_call("a name that was removed", removed, want=(False, False))
state.LOG = log
Color.RED.value.append(7)
check_call("what is in a member's value", lambda: Color.RED.value, want=[1, 7])


# -- modules that the program has not imported -----------------------------------------------------


def late():
    from shop.plugins import Second, names

    return names(), shop.models.REGISTRY["second"] is Second


check_call("a module that is imported late", late, want=(["first", "second"], True))
check(
    "is not imported by the program for it",
    "shop.plugins" not in sys.modules or sys.argv[1] == "inline",
)
check_call(
    "relative imports and packages",
    lambda: (shop.NAME, shop.models.Item is Item),
    want=("shop", True),
)
