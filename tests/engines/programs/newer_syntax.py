"""Type parameters and aliases in the syntax of Python 3.12; as a text, which older ones pass by."""

import typing

from checks import check, check_call, start

start()

exec(
    """
type Vector[T] = list[T]
type Tree[T] = T | list[Tree[T]]

class Box[T]:
    def __init__(self, x: T):
        self.x = x

    def map[U](self, func: typing.Callable[[T], U]) -> "Box[U]":
        return Box(func(self.x))

class Node[T: Node]:
    pass

class Both[*Ts, **P]:
    pass

class IntBox(Box[int]):
    pass

def first[T: (int, str)](items: list[T]) -> T:
    return items[0]
""",
    globals(),
)

check_call("an alias is itself", lambda one: one is Vector, Vector)  # noqa: F821
check_call("what it stands for", lambda: str(Vector.__value__), want="list[T]")  # noqa: F821
check_call(
    "its parameter is one",
    lambda: Tree.__value__.__args__[0] is Tree.__type_params__[0],  # noqa: F821
)
check_call(
    "it is in itself", lambda: typing.get_origin(Tree.__value__.__args__[1].__args__[0]) is Tree
)  # noqa: F821, E501
check_call("a generic class", lambda one: one.map(str).x, Box(3), want="3")  # noqa: F821
check_call("its parameters", lambda: [one.__name__ for one in Box.__type_params__], want=["T"])  # noqa: F821
check_call("a bound that comes later", lambda: Node.__type_params__[0].__bound__ is Node)  # noqa: F821
check_call("all kinds", lambda: [*map(str, Both.__type_params__)], want=["Ts", "P"])  # noqa: F821
check_call("a base with arguments", lambda one: type(one).__orig_bases__ == (Box[int],), IntBox(1))  # noqa: F821
check_call("a function", first, [1, 2], want=1)  # noqa: F821
check_call(
    "its constraints",
    lambda: first.__type_params__[0].__constraints__,  # noqa: F821
    want=(int, str),
)
check("no name is left out", 1, 1)
