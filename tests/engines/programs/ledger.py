"""A module with objects that a script keeps in things of its own."""

import collections


class Account:
    def __init__(self, money):
        self.money = money


MAIN = Account(1)
RATES = {"low": 1}
PAGES = [1, 2]
OWNERS = {"a", "b"}
QUEUE = collections.deque([1])
TABLE = collections.defaultdict(list, a=PAGES)
RAW = bytearray(b"ab")


def rates():
    return RATES


def told_with(more):
    return RATES["low"] + more


def book(entry=0, *, entries=[0], rates=RATES):  # noqa: B006  # kept on purpose, as programs do
    return [*entries, entry], rates is RATES


class Till:
    """There is one, which its class keeps."""

    _only = None

    def __new__(cls):
        if cls._only is None:
            cls._only = super().__new__(cls)
            cls._only.drawer = 0
        return cls._only


class Savings(Account):
    kind = "savings"

    def told(self):
        return self.money, self.kind

    @staticmethod
    def of_all():
        return "of all"


def say():
    return Savings(2).told(), Savings.of_all(), getattr(Savings, "extra", None)
