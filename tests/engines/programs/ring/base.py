"""What others take from here."""

import ring

FLAGS = {"a": 1}
LIMITS = [1, 2]
MISSING = object()


class Count:
    def __init__(self):
        self.n = 0


COUNT = Count()


class Base:
    def say(self):
        return "old"


def given(value=MISSING):
    return value is not MISSING


def see():
    return dict(FLAGS), COUNT.n, list(LIMITS)


def whole():
    return ring.core.FLAGS is FLAGS
