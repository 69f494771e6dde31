"""Options of libraries that a program sets, as its calls have them."""

from __future__ import annotations

import _socket  # `socket` itself is loaded by few calls
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from mars.attempt.setting import PLAIN, Setting

if TYPE_CHECKING:
    from mars.storage import Storage

_Decimal = tuple[tuple[object, ...], Sequence[type | str]]
"""Facts of a context, and signals that raise: classes, or their names in another process."""

_Numpy = tuple[dict[str, str], dict[str, object]]


def _decimal() -> _Decimal:
    # As a context says it for its pickle: in one step, which takes a quarter of asking for each.
    facts = sys.modules["decimal"].getcontext().__reduce__()[1]
    return facts[:6], facts[7]  # between the two stand signals that have come up


def _decimal_told(value: _Decimal) -> _Decimal:
    facts, traps = value
    return facts, [one.__name__ for one in traps]  # type: ignore[union-attr]


def _set_decimal(value: _Decimal) -> None:
    decimal = sys.modules["decimal"]
    facts, traps = value
    raised = [getattr(decimal, one) if type(one) is str else one for one in traps]
    decimal.setcontext(decimal.Context(*facts, flags=[], traps=raised))


class _NumpySetting(Setting):
    """What numpy does with errors of numbers, and how it prints arrays."""

    def __init__(self) -> None:
        super().__init__("numpy", self._look_at_both, _set_numpy, "numpy", _numpy_told)
        self._last: tuple[object, object, _Numpy] | None = None

    def _look_at_both(self) -> _Numpy:
        # numpy keeps each in a context variable and never changes its value in place. Where both
        # have the value that they had, nothing has changed: to see that takes a tenth of the time.
        errors, printing = (_numpy_variable(*one) for one in _NUMPY_VARIABLES)
        if errors is None or printing is None:  # another version of numpy
            return _numpy()
        last = self._last  # threads may be here at once
        if last is None or errors.get(None) is not last[0] or printing.get(None) is not last[1]:
            last = self._last = errors.get(None), printing.get(None), _numpy()
        return last[2]


_NUMPY_VARIABLES: Final = (
    ("numpy._core.umath", "_extobj_contextvar"),
    ("numpy._core.printoptions", "format_options"),
)
"""Where numpy 2.2 and later keep them: what is done with errors, and how arrays are printed."""


def _numpy_variable(module: str, name: str) -> ContextVar[object] | None:
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, ContextVar) else None


def _numpy() -> _Numpy:
    numpy = sys.modules["numpy"]
    return numpy.geterr(), numpy.get_printoptions()


def _set_numpy(value: _Numpy) -> None:
    numpy = sys.modules["numpy"]
    errors, options = value
    numpy.seterr(**errors)
    numpy.set_printoptions(**options)


def _numpy_told(value: _Numpy) -> _Numpy:
    errors, options = value
    return errors, _plain(options)


def _sklearn() -> object:
    return sys.modules["sklearn"].get_config()


def _set_sklearn(value: dict[str, object]) -> None:
    sys.modules["sklearn"].set_config(**value)


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    """Those that mean the same elsewhere: no functions, such as a formatter of the program's."""
    return {name: value for name, value in options.items() if type(value) in PLAIN}


class _Pandas(Setting):
    """Options of pandas, some seventy."""

    def __init__(self) -> None:
        super().__init__("pandas", self._options, self._put_options, "pandas", self._flat)
        self._last: object = None

    def _options(self) -> object:
        # All at once, as to ask for each by its name takes 100 times as long.
        nested = sys.modules["pandas"].options.d
        last = self._last  # threads may be here at once
        if nested != last:
            last = self._last = _copied(nested)
        return last

    def _flat(self, nested: dict[str, object]) -> dict[str, object]:
        return _plain(dict(_leaves(nested, "")))

    def _put_options(self, value: dict[str, object]) -> None:
        pandas = sys.modules["pandas"]
        wanted = dict(_leaves(value, ""))
        now = dict(_leaves(pandas.options.d, ""))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of options that will be gone some day
            for name, one in wanted.items():
                if name in now and now[name] != one:
                    pandas.set_option(name, one)


def _leaves(nested: Mapping[str, object], prefix: str) -> Iterable[tuple[str, object]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _copied(nested: object) -> object:
    if not isinstance(nested, dict):
        return nested
    return {name: _copied(value) for name, value in nested.items()}


def _socket_timeout() -> object:
    # In a tuple, as None is a value of its own.
    return (_socket.getdefaulttimeout(),)


def _set_socket_timeout(value: tuple[float | None]) -> None:
    _socket.setdefaulttimeout(value[0])


def _authkey() -> object:
    return sys.modules["multiprocessing.process"].current_process().authkey


def _set_authkey(value: bytes) -> None:
    sys.modules["multiprocessing.process"].current_process().authkey = value


# `mars.storage` is loaded where fsspec is, and nowhere else.


def _fsspec() -> Storage:
    from mars import storage

    return storage.look()


def _set_fsspec(value: Storage) -> None:
    from mars import storage

    storage.put(value)


def _fsspec_told(value: Storage) -> Storage:
    from mars import storage

    return storage.told(value)


def library_settings() -> list[Setting]:
    """One for each library."""
    return [
        Setting("decimal", _decimal, _set_decimal, "decimal", _decimal_told),
        _NumpySetting(),
        Setting("sklearn", _sklearn, _set_sklearn, "sklearn", _plain),
        _Pandas(),
        # So proxies of a manager of the program can be used in its calls.
        Setting("authkey", _authkey, _set_authkey, "multiprocessing.process", bytes),
        # A session's credentials of object stores come on the same way, see `mars.engines.given`.
        Setting("fsspec", _fsspec, _set_fsspec, "fsspec.config", _fsspec_told),
        Setting("socket", _socket_timeout, _set_socket_timeout),
    ]
