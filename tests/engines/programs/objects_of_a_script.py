"""What a script keeps of its modules' objects, in lists, objects and classes of its own."""

import random

import ledger
from checks import check, check_call, check_calls, start

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
