"""A module that another one imports when it is asked for."""

NUMBERS = []


def numbers():
    return list(NUMBERS)
