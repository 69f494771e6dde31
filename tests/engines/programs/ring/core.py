"""What takes from there."""

import ring

from . import base
from .base import COUNT, FLAGS, LIMITS, ROWS, Base

FIRST = ROWS[0]


class Derived(Base):
    table = FLAGS


def version():
    return ring.VERSION


def name_of(module):
    return module.__name__.partition(".")[0]


def put(key, limits=LIMITS):
    FLAGS[key], COUNT.n = 1, COUNT.n + 1
    limits.append(9)
    return base.see()


def are_one(flags=FLAGS):
    one = FLAGS is base.FLAGS is flags is Derived.table
    return one, COUNT is base.COUNT, LIMITS is base.LIMITS


def large_parts():
    base.ROWS[0][0] = 5
    return FIRST[0], float(ROWS[0][0])
