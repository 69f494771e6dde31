"""What a program does to its modules and classes in odd ways is what its calls find."""

import contextvars
import ctypes
import importlib.abc
import importlib.util
import os
import sys
import types
import typing

os.environ["BASE"] = "list"

import gallery  # noqa: E402
from checks import check, check_call, start  # noqa: E402
from gallery import registry  # noqa: E402

import mars.remote as mr  # noqa: E402

del os.environ["BASE"]
start()

# -- an object that is also a dictionary ---------------------------------------------------------------


@registry.register
def quadruple(x):
    return 4 * x


check_call("a registry that is a dictionary", lambda: registry["quadruple"](2), want=8)
check_call("is one object", lambda: registry is gallery.registry, want=True)

# -- classes that an import does not make, or makes otherwise --------------------------------------------


class Mine(gallery.Base):
    pass


check_call("a base that the import chose", sum, Mine([1, 2]), want=3)
check_call("is that of the module", lambda one: isinstance(one, gallery.Base), Mine(), want=True)
gallery.Added = type("Added", (gallery.Shape,), {"__module__": "gallery", "area": lambda _: 7})
check_call("a class that was added", lambda one: one.area(), gallery.Added(), want=7)
check("it comes back", type(mr.spawn(gallery.Added).to_object()) is gallery.Added)


class Circle(gallery.Shape):
    pass


def names_below():
    return [cls.__name__ for cls in gallery.Shape.__subclasses__()]


check_call("subclasses", names_below, want=["Square", "Added", "Circle"])
for number in range(3):
    other = mr.spawn(lambda one, number=number: (type(one).__name__, number), args=(Circle(),))
    check("another world", other.to_object(), ("Circle", number))
check_call("subclasses are those of the call", names_below, want=["Square", "Added", "Circle"])
check("the program's own", names_below()[:2], ["Square", "Added"])

# -- modules ---------------------------------------------------------------------------------------------

check_call("a module by __getattr__", lambda: gallery.lazy.numbers(), want=[])
import rooms  # noqa: E402

rooms.NUMBERS.append(3)
check_call("its state", lambda: gallery.lazy.numbers(), want=[3])

loose = types.ModuleType("loose")
exec("STATE = 1\ndef put(x):\n    global STATE\n    STATE = x", loose.__dict__)


def of_loose():
    loose.put(5)
    return loose.STATE


check_call("a module that is nowhere", of_loose, want=5)


class Own(types.ModuleType):
    def greet(self):
        return f"I am {self.__name__}"


sys.modules["own"] = Own("own")


def of_own():
    import own

    return own.greet(), type(own) is Own


check_call("a module of a class of its own", of_own, want=("I am own", True))


class Memory(importlib.abc.Loader):
    """Finds and loads modules from texts."""

    texts: typing.ClassVar = {
        "told": "import told_of\ndef answer():\n    return told_of.ANSWER\n",
        "told_of": "ANSWER = 42\n",
    }

    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return importlib.util.spec_from_loader(name, self)
        return None

    def exec_module(self, module):
        exec(self.texts[module.__name__], module.__dict__)


sys.meta_path.append(Memory())
import told  # noqa: E402

check_call("a module that the program's own loader made", told.answer, want=42)


class Pair(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_double))


check_call("a structure of ctypes", lambda pair: (pair.a, pair.b), Pair(1, 2.0), want=(1, 2.0))

# -- what has no content, or is a view ---------------------------------------------------------------------

of_script = contextvars.ContextVar("of_script", default=1)
check_call("a context variable", lambda: of_script.get(), want=1)
of_script.set(2)
check_call("with a value", lambda: of_script.get(), want=2)
gallery.variable.set(3)
check_call("of a module", gallery.get_variable, want=3)
check("a view of bytes", mr.spawn(memoryview, args=(b"abc",)).to_object().tolist(), [97, 98, 99])
view = memoryview(bytes(6)).cast("B", (2, 3))
check_call("with a shape", lambda one: (one.shape, one.readonly), view, want=((2, 3), True))
