"""A module whose objects stand in each other: a registry, a table, an owner, bound methods."""

import collections
import threading


class Shelf:
    registry: dict[str, "Shelf"] = {}

    def __init__(self, name):
        self.name, self.items, self.above = name, [], None
        Shelf.registry[name] = self

    def put(self, item):
        self.items.append(item)
        return len(self.items)


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


TOP = Shelf("top")
LOW = Shelf("low")
LOW.above = TOP
TABLE = {"top": TOP, "names": ["a"]}
NAMES = TABLE["names"]
ROW = collections.deque([LOW, TOP])
PAIR = (TOP, 1)
SLOTTED = Slotted(NAMES)
put = TOP.put
LOCK = threading.Lock()
GUARDED = {"lock": LOCK, "of": LOW}
OLD = [0]
KEEPER = {"old": OLD}


def start_with(item, row=ROW):
    row[0].items.append(item)
    return LOW.items


def relations():
    """Whether what is one object in the program is one here."""
    return {
        "registry": Shelf.registry["top"] is TOP and Shelf.registry["low"] is LOW,
        "attribute": LOW.above is TOP,
        "entry": TABLE["top"] is TOP and TABLE["names"] is NAMES,
        "place": ROW[1] is TOP and ROW[0] is LOW,
        "tuple": PAIR[0] is TOP,
        "slot": SLOTTED.held is NAMES,
        "method": put.__self__ is TOP,
        "beside a lock": GUARDED["of"] is LOW,
    }


def use(item):
    """Write through one name, read through the others."""
    put(item)
    NAMES.append(item)
    return [
        TOP.items, Shelf.registry["top"].items, LOW.above.items, TABLE["top"].items,
        ROW[-1].items, PAIR[0].items, TABLE["names"], SLOTTED.held,
    ]  # fmt: skip


def old():
    return KEEPER["old"], OLD, KEEPER["old"] is OLD
