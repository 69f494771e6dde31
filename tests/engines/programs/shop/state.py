"""A module with state."""

import itertools
import logging
import threading

VALUE = None
SETTINGS = {"rate": 1, "names": ["a"]}
NUMBERS = itertools.count()
LOCK = threading.Lock()
LOG = logging.getLogger(__name__)
MISSING = object()


def init(value):
    global VALUE
    VALUE = value


def get():
    return VALUE


def rate():
    return SETTINGS["rate"]


def is_missing(value=MISSING):
    with LOCK:
        return value is MISSING


def helper():
    return "helper"


def call_helper():
    return helper()
