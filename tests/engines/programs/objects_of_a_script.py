"""What a script keeps of its modules' objects, in lists, objects and classes of its own."""

import functools
import random
import types

import joblib
import ledger
import numpy as np
from checks import check, check_call, check_calls, start

import mars.joblib
import mars.remote as mr

start()


class Kept:
    account = ledger.MAIN
    rates = ledger.RATES

    def __init__(self, account):
        self.mine = account


LISTED = [ledger.MAIN]
NAMED = {"main": ledger.MAIN, "other": ledger.Account(9)}
PAIR = ledger.MAIN, 2
KEPT = Kept(ledger.MAIN)


def is_main():
    places = LISTED[0], NAMED["main"], PAIR[0], KEPT.mine, Kept.account, Kept(ledger.MAIN).account
    return [one is ledger.MAIN for one in places], Kept.rates is ledger.RATES, NAMED["other"].money


WANTED = [True] * 6, True, 9

check_call("an object of a module is one thing inside things of the script", is_main, want=WANTED)
ledger.MAIN.money = 5
check_call("also when the program has changed it", is_main, want=WANTED)
check_call("and is what the program made of it", lambda: (LISTED[0].money, Kept.account.money),
           want=(5, 5))  # fmt: skip
old = ledger.MAIN
ledger.MAIN = ledger.Account(7)
check_call("not when the name is bound anew", lambda: (LISTED[0].money, ledger.MAIN.money),
           want=(5, 7))  # fmt: skip
ledger.MAIN = old


def writes():
    LISTED[0].money += 1
    return ledger.MAIN.money, KEPT.mine.money


check_call("what a call writes to it is seen everywhere in the call", writes, want=(6, 6))
check("and not by the program", ledger.MAIN.money, 5)

# -- containers of the module inside containers of the script ------------------------------------------


class Shelf:
    books = [ledger.RATES, ledger.PAGES]  # noqa: RUF012

    def __init__(self):
        self.rates, self.more = ledger.RATES, {"pages": ledger.PAGES}


SHELF = Shelf()
INSIDE = {"rates": ledger.RATES, "deep": [({"pages": ledger.PAGES},)], "set": ledger.OWNERS}
KINDS = [ledger.QUEUE, ledger.TABLE, ledger.RAW]
SPACE = types.SimpleNamespace(rates=ledger.RATES)


def containers():
    return [
        INSIDE["rates"] is ledger.RATES is ledger.rates(),
        INSIDE["deep"][0][0]["pages"] is ledger.PAGES is ledger.TABLE["a"],
        INSIDE["set"] is ledger.OWNERS,
        KINDS[0] is ledger.QUEUE, KINDS[1] is ledger.TABLE, KINDS[2] is ledger.RAW,
        SPACE.rates is ledger.RATES,
        SHELF.rates is ledger.RATES, SHELF.more["pages"] is ledger.PAGES,
        Shelf.books[0] is ledger.RATES, Shelf.books[1] is ledger.PAGES,
        Shelf().more["pages"] is ledger.PAGES,
    ]  # fmt: skip


def closed_over(held):
    return lambda: held["rates"] is ledger.RATES


def adds(name):
    INSIDE["rates"][name] = 7
    return ledger.rates()[name], SHELF.rates[name], Shelf.books[0][name]


check_call("a container of a module is one thing inside those of the script", containers,
           want=[True] * 12)  # fmt: skip
ledger.RATES["high"] = 3
ledger.PAGES.append(3)
ledger.RAW.append(99)
check_call("also when the program has changed it", containers, want=[True] * 12)
check_call("and holds what the program put there", lambda: (INSIDE["rates"], KINDS[2][-1]),
           want=({"low": 1, "high": 3}, 99))  # fmt: skip
check_call("in a closure", closed_over({"rates": ledger.RATES}))
check_call("in a default", lambda held={"rates": ledger.RATES}: held["rates"] is ledger.RATES)  # noqa: B006
check_call("in a partial", functools.partial(lambda held: held[0] is ledger.RATES, [ledger.RATES]))
check_call("what a call writes to it is seen under all names", adds, "new", want=(7, 7, 7))
check("and not by the program", ledger.RATES, {"low": 1, "high": 3})
del ledger.RATES["high"]

# -- code inside objects of installed classes ---------------------------------------------------------


def money(more):
    return ledger.MAIN.money + more + INSIDE["rates"]["low"]


ledger.RATES["low"] = 10
EACH = np.vectorize(money)
OF_MODULE = np.vectorize(ledger.told_with)
check_call("a function inside an object that is called", EACH, 1, want=EACH(1))
check_call("under a global name", lambda: EACH([1, 2]).tolist(), want=EACH([1, 2]).tolist())
check_call("one of a module", OF_MODULE, 1, want=OF_MODULE(1))
check_call("in an argument", lambda each: each([1, 2]).tolist(), EACH, want=EACH([1, 2]).tolist())
with joblib.parallel_config("mars", n_jobs=2):
    check(
        "in a loop of joblib", [*joblib.Parallel()([joblib.delayed(money)(1)] * 2)], [money(1)] * 2
    )
ledger.RATES["low"] = 1

# -- defaults that grow ------------------------------------------------------------------------------

before = mr.spawn(ledger.book)
ledger.book.__kwdefaults__["entries"].append(3)
ledger.RATES["high"] = 2
after = mr.spawn(ledger.book)
check_calls("objects that are defaults of keyword parameters", [before, after, after],
            [([0, 0], True), ([0, 3, 0], True), ([0, 3, 0], True)])  # fmt: skip

# -- the one object of a class -----------------------------------------------------------------------

calls, wanted = [], []
for number in range(12):
    ledger.Till().drawer = number * 7 % 5
    for func in (lambda: ledger.Till().drawer, lambda: [ledger.Till().drawer]):
        calls.append(mr.spawn(func))
        wanted.append(func())
order = random.Random(1).sample(range(len(calls)), len(calls))
check_calls("the one object of a class, as it was at spawn", [calls[at] for at in order],
            [wanted[at] for at in order])  # fmt: skip

# -- what the program replaces between spawn and execute ---------------------------------------------


def said():
    return ledger.say(), ledger.Savings(3).told()


def replace(**names):
    for name, value in names.items():
        setattr(ledger.Savings, name, value)
    return [mr.spawn(said), mr.spawn(ledger.say)], [said(), ledger.say()]


calls, wanted = replace()
told, say = ledger.Savings.told, ledger.say
for names in (
    {"told": lambda self: "replaced"}, {"of_all": staticmethod(lambda: "other")}, {"extra": 5},
    {"told": told}, {"kind": "k"},
):  # fmt: skip
    for all_of, more in zip((calls, wanted), replace(**names), strict=True):
        all_of.extend(more)
ledger.say = lambda: "said"
calls.append(mr.spawn(said))
wanted.append(said())
check_calls("calls have what was there when they were spawned", calls, wanted)
check("and the program has what it has set", (ledger.say(), ledger.Savings.extra), ("said", 5))
