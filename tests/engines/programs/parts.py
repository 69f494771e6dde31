"""A module whose parts depend on when it is imported, or that a program changes in many places."""

import __main__
import collections
import dataclasses
import enum
import functools
import os
import pathlib
import sys
import uuid

import setup_of

FOLDER = pathlib.Path(f"runs-{uuid.uuid4().hex}")
SCRIPT = os.path.basename(__main__.__file__)


def times(rate):
    def decorate(func):
        @functools.wraps(func)
        def inner(*args):
            return func(*args) * rate

        return inner

    return decorate


if setup_of.FAST:

    def speed():
        return "fast"
else:

    def speed():
        return "slow"


class Engine:
    if setup_of.FAST:

        def speed(self):
            return "fast"
    else:

        def speed(self):
            return "slow"


@times(setup_of.RATE)
def decorated():
    return 1


@dataclasses.dataclass
class Config:
    rate: int = setup_of.RATE
    run: str = uuid.uuid4().hex
    folder: pathlib.Path = FOLDER


def defaults(rate=setup_of.RATE, folder=FOLDER, *, other=(setup_of.RATE, "x")):
    return rate, folder, folder is FOLDER, other


class Token(enum.Enum):
    ONE = uuid.uuid4().hex
    TWO = 2


def by_branches():
    return speed(), Engine().speed(), decorated(), Config(), defaults()


def is_token(token):
    return token is Token.ONE, Token(token.value) is token


# -- what a program changes later -------------------------------------------------------------


class Level(enum.Enum):
    LOW = 1


class Model:
    rate = 1
    old = True
    __table__ = "a"
    words: dict = {}

    def method(self):
        return "method"


class Slotted:
    __slots__ = ("kind",)


ORDERED = collections.OrderedDict(model=Model)
GROUPS = collections.defaultdict(list, models=[Model])
SLOTTED = Slotted()
SLOTTED.kind = Model
RATE = 1
ON = False


def switched(on=()):
    return ON


switched.tries = 1


@times(1)
def retried():
    return retried.tries


retried.tries = 1


def needy(number):
    return number


def listed(items=[], pair=(1, 2), *, count=1):  # noqa: B006
    return items, pair, count


@functools.lru_cache
def cached(number):
    return number * RATE


class Fast:
    def name(self):
        return "fast"


class Slow:
    def name(self):
        return "slow"


backend = Slow()


class Single:
    """Pickles as what makes it."""

    one = None

    def __init__(self):
        self.debug = False

    @classmethod
    def get(cls):
        cls.one = cls.one or cls()
        return cls.one

    def __reduce__(self):
        return Single.get, ()


def containers():
    return ORDERED["model"].rate, GROUPS["models"][0].rate, SLOTTED.kind.rate


def of_class():
    model = Model()
    return hasattr(model, "old"), hasattr(model, "method"), model.__table__, len(model.words)


def by_text():
    return globals()["RATE"], sys.modules[__name__].RATE


def used(value=None):
    return (value or backend).name()


def predicted(model):
    return model.rate


def made():
    return Model()


def debug():
    return Single.get().debug
