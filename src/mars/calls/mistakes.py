"""What to say to a program that described a call in the wrong form.

Each function makes the text of an error, with the program's own arguments in the right form. Pure.
Loaded when somebody has made a mistake.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

from mars.calls.options import CHECKS

_FURTHER = ("retry_when_fail", "resolve_tileable_input", "n_output")


def _short(value: object) -> str:
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 40
    return shown.repr(value)


def _name(func: object) -> str:
    if isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__name__", "")
    return name if name.isidentifier() else "func"


def _tuple(values: Sequence[object]) -> str:
    inside = ", ".join(map(_short, values))
    return f"({inside},)" if len(values) == 1 else f"({inside})"


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that was most likely meant; "": none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def positional(func: object, args: object, kwargs: object, others: Sequence[object]) -> str:
    """For ``spawn(f, 1, 2)``: the arguments of the function belong into one tuple.

    Parameters
    ----------
    func, args, kwargs : object
        What `spawn` got under these names.
    others : sequence of object
        What it got in the places behind them.
    """
    if isinstance(args, tuple):
        return (
            f"kwargs has to be a dict, got {_short(kwargs)}; keyword arguments of {_name(func)} go "
            f"there by name: spawn({_name(func)}, args={_tuple(args)}, kwargs={{'name': value}})"
        )
    given = [args, kwargs, *others]
    return (
        f"kwargs has to be a dict, got {_short(kwargs)}; arguments of {_name(func)} go into one "
        f"tuple: spawn({_name(func)}, args={_tuple(given)})"
    )


def _takes(func: Callable[..., object], name: str) -> bool:
    """Whether a function has a parameter of that name, or takes any."""
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # compiled code without a signature
        return False
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return True
    return name in parameters


def unknown_option(
    func: Callable[..., object],
    name: str,
    args: object,
    kwargs: Mapping[str, object],
    options: Mapping[str, object],
    *,
    of_map: bool = False,
) -> str:
    """For ``spawn(f, x=1)`` and ``spawn(f, cpu=2)``: where ``x`` belongs, or the option meant.

    Parameters
    ----------
    func : callable
        The function to call.
    name : str
        The keyword that is no option.
    args, kwargs, options : object
        What `spawn` or `map` was given.
    of_map : bool, default False
        It was `map`.
    """
    text = f"Unexpected kw: {name}"
    known = [*CHECKS, *_FURTHER]
    meant = nearest(name, known)
    if not _takes(func, name):
        if meant:
            return f"{text}; did you mean {meant}={_short(options[name])}?"
        return f"{text}; {_name(func)} has no parameter {name}, and options are {', '.join(CHECKS)}"
    own = {one: value for one, value in options.items() if one not in known and _takes(func, one)}
    called = _name(func)
    if of_map:
        inside = ", ".join(f"{one}={_short(value)}" for one, value in own.items())
        return (
            f"{text}; arguments of {called} that are the same for all items go into a partial: "
            f"map(functools.partial({called}, {inside}), ...)"
        )
    inside = ", ".join(f"{one!r}: {_short(value)}" for one, value in {**kwargs, **own}.items())
    before = f"args={_tuple(args)}, " if isinstance(args, tuple) and args else ""
    if not isinstance(args, tuple):
        before = f"args={_tuple([args])}, "
    return (
        f"{text}; keyword arguments of {called} go into kwargs: "
        f"spawn({called}, {before}kwargs={{{inside}}})"
    )


def unknown_argument(function: str, name: str, known: Iterable[str], advice: str = "") -> str:
    """For a keyword that a function of ours does not have.

    Parameters
    ----------
    function : str
        The function, such as ``"execute"``.
    name : str
        The keyword.
    known : iterable of str
        The keywords that it has.
    advice : str, default ""
        What to do, if it can be said.
    """
    meant = nearest(name, known)
    hint = f"; did you mean {meant}?" if meant and not advice else ""
    return f"{function}() got an unexpected keyword argument {name!r}{hint}{advice}"


__all__ = ["nearest", "positional", "unknown_argument", "unknown_option"]
