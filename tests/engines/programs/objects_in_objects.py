"""Objects of a module that stand in each other, before and after the program changes them."""

from unittest import mock

import kiosk
from checks import check_call, check_calls, start

import mars.remote as mr

start()

ALL = dict.fromkeys(kiosk.relations(), True)


def after(item, before=(), names=("a",)):
    return [[*before, item]] * 6 + [[*names, item]] * 2


check_call("as imported", kiosk.relations, want=ALL)
check_call("what is written through one name", kiosk.use, 1, want=after(1))

kiosk.TOP.items.append("p")
early = mr.spawn(kiosk.use, args=(2,))
early_relations = mr.spawn(kiosk.relations)
kiosk.TOP.items.append("q")
kiosk.NAMES.append("b")
late = mr.spawn(kiosk.use, args=(2,))
check_calls(
    "each call has them as they were at its spawn",
    [early, late, early_relations, mr.spawn(kiosk.relations)],
    [after(2, ["p"]), after(2, ["p", "q"], ["a", "b"]), ALL, ALL],
)
check_call("the default of a parameter", kiosk.start_with, "r", want=["r"])

EXTRA = kiosk.Shelf("extra")  # the script's own: it stands in the module's registry
check_call(
    "an object of the script in a registry",
    lambda: (kiosk.Shelf.registry["extra"].put(1), kiosk.Shelf.registry["top"] is kiosk.TOP),
    want=(1, True),
)

with mock.patch.object(kiosk, "OLD", [1]):
    anew = mr.spawn(kiosk.old)
check_calls(
    "a name that is bound anew leaves the old object where it stands",
    [anew, mr.spawn(kiosk.old)],
    [([0], [1], False), ([0], [0], True)],
)


def given(shelf, item):
    shelf.put(item)
    return kiosk.TOP.items[-1] == item, kiosk.LOW.above is kiosk.TOP


check_call("an argument is a copy of its own", given, kiosk.TOP, "s", want=(False, True))


class Desk:
    """Reaches the module by its methods."""

    def count(self):
        kiosk.put("t")
        return len(kiosk.TOP.items), kiosk.Shelf.registry["top"] is kiosk.TOP


check_call("what an argument reaches", lambda desk: desk.count(), Desk(), want=(3, True))
