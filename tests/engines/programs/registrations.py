"""Classes of a script that it registers at functions, abstract classes and lists of others."""

import abc
import collections.abc
import numbers

import kinds
from checks import check_call, check_calls, start

import mars.remote as mr

start()


class Circle:
    def area(self):
        return 3


class Late:
    pass


before = [mr.spawn(kinds.told, args=(Late(),)), mr.spawn(kinds.is_shape, args=(Late(),))]


@kinds.describe.register
def _(value: Circle):
    return "a circle"


@kinds.Printer.show.register
def _(self, value: Circle):
    return "a circle"


kinds.Shape.register(Circle)
kinds.KINDS.append(Circle)
kinds.TABLE["circle"] = Circle


class Base(abc.ABC):
    pass


@collections.abc.Sequence.register
class Row:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return range(3)[index]


@numbers.Number.register
class Money:
    pass


Base.register(Row)


def is_what(value):
    return [
        isinstance(value, one) for one in (Base, collections.abc.Sequence, numbers.Number, list)
    ]


check_call(
    "a function of a module", kinds.told, Circle(), want=("[a circle, a number]", "a circle")
)
check_call("asked by the script", lambda: kinds.told(Circle())[1], want="a circle")
check_call("an abstract class of a module", kinds.is_shape, Circle(), want=(True, True))
check_call("lists and tables of a module", kinds.knows, Circle(), want=[True, True])
check_call("abstract classes of Python", is_what, Row(), want=[True, True, False, False])
check_call("one of them is for another class", is_what, Money(), want=[False, False, True, False])

kinds.describe.register(Late, lambda value: "late")
kinds.Shape.register(Late)
Base.register(Late)
check_calls(
    "each call has what was registered at its spawn",
    [*before, mr.spawn(kinds.told, args=(Late(),)), mr.spawn(kinds.is_shape, args=(Late(),))],
    [
        ("[something, a number]", "something"), (False, False),
        ("[late, a number]", "something"), (True, True),
    ],
)  # fmt: skip
check_call("registered after a first call", is_what, Late(), want=[True, False, False, False])
check_call("as it is in the program", lambda: kinds.is_shape(Circle()), want=(True, True))
assert kinds.is_shape(Late()) == (True, True)
