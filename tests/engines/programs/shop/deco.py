"""A decorator with state of its own."""

import functools
import threading


def traced(func):
    lock = threading.Lock()

    @functools.wraps(func)
    def inner(*args):
        with lock:
            return func(*args)

    return inner
