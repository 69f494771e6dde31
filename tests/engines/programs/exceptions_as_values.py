"""Exceptions as arguments, results and what code refers to, whatever their classes are called with."""

from __future__ import annotations

import asyncio
import functools
import types

from checks import check, start

import mars.remote as mr

start()


class Coded(Exception):
    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


class OfKeyword(SystemExit):
    def __init__(self, *, code):
        super().__init__(code)


class Composed(Exception):
    def __init__(self, one, other="none"):
        super().__init__(f"{one} and {other}")


class Slotted(Coded):
    __slots__ = ("place",)


class Full(Coded, MemoryError):
    """Of two builtin classes, of which the one that is named last comes first in its MRO."""


class Unknown(Coded, KeyError):
    pass


class Missing(OSError):
    def __init__(self, path):
        super().__init__(2, "no such thing", path)
        self.path = path


class Broken(UnicodeDecodeError):
    def __init__(self, data):
        super().__init__("utf-8", data, 0, 1, "broken")


class Several(ExceptionGroup):
    def __new__(cls, errors):
        return super().__new__(cls, "several", errors)

    def __init__(self, errors):
        self.count = len(errors)


class Unimported(ImportError):
    def __init__(self, name):
        super().__init__(f"no {name}", name=name)


def slotted():
    error = Slotted("message", 3)
    error.place = (1, 2)
    return error


MAKERS = [
    functools.partial(Coded, "message", 1), functools.partial(Full, "message", 5),
    functools.partial(Unknown, "message", 6), slotted, functools.partial(OfKeyword, code=4),
    functools.partial(Composed, "this", "that"), functools.partial(Missing, "/nowhere"),
    functools.partial(Broken, b"ab"), functools.partial(Unimported, "thing"),
    lambda: Several([Coded("inner", 2), ValueError(3)]),
    lambda: ExceptionGroup("group", [Composed("a"), KeyError("k")]),
    lambda: AttributeError("text", name="missing"), lambda: NameError("text", name="missing"),
    lambda: StopIteration(4), lambda: SystemExit(3), lambda: asyncio.CancelledError("c"),
    lambda: UnicodeDecodeError("utf-8", b"ab", 0, 1, "why"),
    lambda: BlockingIOError(11, "text", 5),
]  # fmt: skip

OF_BUILTINS = (
    "filename", "errno", "name", "path", "value", "code", "object", "start", "reason",
    "characters_written", "place", "count",
)  # fmt: skip


def told(error):
    """All that an exception tells of itself."""
    parts = [getattr(error, name, "not there") for name in OF_BUILTINS]
    inner = [told(one) for one in getattr(error, "exceptions", ())]
    return type(error).__name__, str(error), error.args if not inner else (), parts, inner


class tblib:  # noqa: N801  # as the reducers that ``import distributed`` registers
    @staticmethod
    def register():
        import copyreg

        def reduce(error):
            return type(error), error.args

        reduce.__module__ = "tblib.pickling_support"
        for make in MAKERS:
            copyreg.pickle(type(make()), reduce)


def check_all(when):
    for make in MAKERS:
        error = make()
        want = told(error)
        check(f"{want[0]} as argument{when}", mr.spawn(told, args=(error,)).to_object(), want)
        back = mr.spawn(lambda error=error: [error]).to_object()[0]
        check(f"{want[0]} as result{when}", (told(back), type(back)), (want, type(error)))


check_all("")
tblib.register()
check_all(" where tblib knows its class")


class Says(Coded):
    def __reduce__(self):
        return types.SimpleNamespace, (), {"says": self.code}


check("what says itself", mr.spawn(lambda error: error.says, args=(Says("m", 5),)).to_object(), 5)
