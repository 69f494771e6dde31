"""A module with a registry, classes that depend on the import, and a lazy attribute."""

import contextvars
import os

if os.environ.get("BASE") == "list":

    class Base(list):
        pass

else:

    class Base(dict):
        pass


class Registry(dict):
    def register(self, func):
        self[func.__name__] = func
        return func


registry = Registry()


class Shape:
    def area(self):
        return 0


class Square(Shape):
    pass


variable = contextvars.ContextVar("variable", default=0)


def get_variable():
    return variable.get()


def __getattr__(name):
    if name == "lazy":
        import rooms

        return rooms
    raise AttributeError(name)
