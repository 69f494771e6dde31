"""A module that registers something when it is imported; programs import it late."""

from shop.models import REGISTRY, Plugin


class Second(Plugin, key="second"):
    pass


def names():
    return sorted(REGISTRY)
