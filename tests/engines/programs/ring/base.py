"""What others take from here."""

import threading

import ring

FLAGS = {"a": 1}
LIMITS = [1, 2]
MISSING = object()


class Count:
    def __init__(self):
        self.n = 0


COUNT = Count()
HANDLERS = {}
ROWS = [[0] * 10 for _ in range(20_000)]


class Guarded:
    def __init__(self):
        self.lock, self.items = threading.RLock(), []

    def add(self, item):
        with self.lock:
            self.items.append(item)


GUARDED = Guarded()


class Base:
    def say(self):
        return "old"


def given(value=MISSING):
    return value is not MISSING


def see():
    return dict(FLAGS), COUNT.n, list(LIMITS)


def handle(name):
    return HANDLERS[name]()


def guarded():
    with GUARDED.lock:
        return GUARDED.items


def whole():
    return ring.core.FLAGS is FLAGS


REGISTERED = 0
ALL = []


def register(func):
    global REGISTERED
    REGISTERED += 1
    ALL.append(func)
    return func
