"""Type variables and aliases of types: what they are made from, and making them again.

Those of Python 3.12's syntax (``class Box[T: Base]``, ``type Tree[T] = T | list[Tree[T]]``) know
their bounds and values only when they are asked, as these may refer to what is defined later. So
they are made by that very syntax, and what it evaluates comes when all else is there.

Called by `mars.code.pickling` when a pickle is written, and by pickles when they are read.
"""

from __future__ import annotations

import sys
import threading
import typing
from collections.abc import Callable
from typing import Final, cast

_EMPTY: Final[tuple[object, ...]] = ()


class _Open(threading.local):
    """What was made and not filled yet, with the list that its code takes its parts from."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[object, list[object]]] = {}


_open = _Open()


def is_of_syntax(value: object) -> bool:
    """Whether a parameter or alias was made by the syntax of Python 3.12, or as it makes them."""
    kind = type(value).__name__
    if sys.version_info < (3, 12):
        return False
    if kind == "TypeVarTuple":
        return bool(value.__module__ == "typing")
    return kind == "TypeAliasType" or getattr(value, "__infer_variance__", False) is True


def parts_of(value: object) -> tuple[object, tuple[object, ...]]:
    """A maker and its arguments, of an object that is known by its name and has no late parts."""
    kind = type(value)
    name = _name_of(value)
    if kind.__name__ == "NewType":
        return kind, (name, cast("typing.NewType", value).__supertype__)
    if kind.__name__ == "TypeVar":
        variable = cast("typing.TypeVar", value)
        return make_typevar, (
            name, variable.__constraints__, variable.__bound__, variable.__covariant__,
            variable.__contravariant__, *_default_of(value),
        )  # fmt: skip
    if kind.__name__ in ("ParamSpec", "TypeVarTuple") and _default_of(value):
        return make_with_default, (kind, name, *_default_of(value))
    return kind, (name,)


def _name_of(value: object) -> str:
    name: str = getattr(value, "__name__", "")
    return name


def _default_of(value: object) -> tuple[object, ...]:
    has_default = getattr(value, "has_default", None)
    if has_default is None or not has_default():
        return ()
    return (getattr(value, "__default__", None),)


def make_typevar(
    name: str, constraints: tuple[object, ...], bound: object, covariant: bool, contravariant: bool,
    *default: object,
) -> object:  # fmt: skip
    """A type variable."""
    given: dict[str, object] = {"default": default[0]} if default else {}
    return typing.TypeVar(
        name, *constraints, bound=bound, covariant=covariant, contravariant=contravariant, **given
    )


def make_with_default(kind: Callable[..., object], name: str, default: object) -> object:
    """A parameter of another kind with a default, as Python 3.13 has them."""
    return kind(name, default=default)


_Described = tuple[str, str, int, bool, bool]


def _described(parameter: object) -> _Described:
    """Kind, name, number of constraints, and whether there are a bound and a default."""
    constraints = getattr(parameter, "__constraints__", ())
    bounded = getattr(parameter, "__bound__", None) is not None
    default = bool(_default_of(parameter))
    return type(parameter).__name__, _name_of(parameter), len(constraints), bounded, default


def _late_parts(parameter: object) -> list[object]:
    constraints = getattr(parameter, "__constraints__", ())
    bound = getattr(parameter, "__bound__", None)
    return [*constraints, *([] if bound is None else [bound]), *_default_of(parameter)]


def late_parts_of(value: object) -> tuple[tuple[object, ...], list[object]]:
    """How something of the syntax is written, and what comes later."""
    if type(value).__name__ == "TypeAliasType":
        parameters = parameters_of(value)
        late = [one for parameter in parameters for one in _late_parts(parameter)]
        return tuple(map(_described, parameters)), [*late, getattr(value, "__value__", None)]
    return _described(value), _late_parts(value)


def _written(described: _Described, place: int) -> tuple[str, int]:
    """A parameter as it stands in brackets, and the place of what comes after its parts."""
    kind, name, constraints, bounded, default = described
    text = {"TypeVarTuple": "*", "ParamSpec": "**"}.get(kind, "") + name
    if constraints:
        text += f": ({''.join(f'__parts__[{place + one}], ' for one in range(constraints))})"
    elif bounded:
        text += f": __parts__[{place}]"
    place += constraints or int(bounded)
    if default:
        text += f" = {'*' if kind == 'TypeVarTuple' else ''}__parts__[{place}]"
    return text, place + int(default)


def make_parameter(described: _Described) -> object:
    """A parameter of the syntax, whose bound comes with `fill_late`."""
    text, _ = _written(described, 0)
    parts: list[object] = []
    space: dict[str, object] = {"__parts__": parts, "__name__": "typing"}
    exec(f"def made[{text}](): ...", space)  # of names that a program's own syntax had
    (made,) = parameters_of(space["made"])
    _open.parts[id(made)] = made, parts
    return made


def make_alias(name: str, module: str, parameters: tuple[_Described, ...]) -> object:
    """An alias of a type, whose value comes with `fill_late`."""
    place, texts = 0, []
    for described in parameters:
        text, place = _written(described, place)
        texts.append(text)
    parts: list[object] = []
    space: dict[str, object] = {"__parts__": parts, "__name__": module}
    brackets = f"[{', '.join(texts)}]" if texts else ""
    exec(f"type {name}{brackets} = __parts__[{place}]", space)
    made = space[name]
    _open.parts[id(made)] = made, parts
    return made


def parameter_of(alias: object, place: int) -> object:
    """A parameter of an alias."""
    return parameters_of(alias)[place]


def parameters_of(generic: object) -> tuple[object, ...]:
    """The parameters of a function, class or alias in the syntax of Python 3.12."""
    parameters: tuple[object, ...] = getattr(generic, "__type_params__", ())
    return parameters


def fill_late(made: object, late: list[object]) -> None:
    """Give a parameter or alias what its code evaluates."""
    known = _open.parts.pop(id(made), None)
    if known is not None and known[0] is made:
        known[1][:] = late
