"""A module of a package without a file of its own."""

LEVEL = 1


def level():
    return LEVEL
