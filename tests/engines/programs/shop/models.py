"""Classes of all kinds."""

import dataclasses
import enum
import functools
import threading

from .deco import traced

REGISTRY = {}


class Item:
    scale = 1
    made = []

    def __init__(self, price=2):
        self.price = price

    def total(self):
        return self.price * self.scale

    @classmethod
    def cheap(cls):
        return cls(1)

    @functools.cached_property
    def slow(self):
        return self.price + 100


class Plugin:
    def __init_subclass__(cls, /, key, **kwargs):
        super().__init_subclass__(**kwargs)
        REGISTRY[key] = cls


class First(Plugin, key="first"):
    pass


class Color(enum.Enum):
    RED = [1]
    BLUE = 2


class Bad(Exception):
    def __init__(self, code, where):
        super().__init__(f"code {code} in {where}")
        self.code = code


@dataclasses.dataclass(slots=True)
class Point:
    x: int
    y: int = 0


class Locked:
    lock = threading.RLock()

    def get(self):
        with self.lock:
            return 5


@traced
def price(item):
    return item.price


@functools.lru_cache
def squared(x):
    return x * x


def fail(code):
    raise Bad(code, "models")
