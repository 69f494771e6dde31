"""Levels and formats of a program's loggers, and names of levels, as its calls have them."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mars.attempt.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Filter, Formatter, Handler, Logger, LogRecord
    from types import ModuleType

    _Look = tuple[int, str | None, str | None, str, bool, bytes | None]
    """Level, format, format of dates, style, whether in UTC, and what `_carried` gave."""

    _Facts = tuple[int, bool, bool, _Look | None, bytes | None]
    """Of a logger: level, propagate, disabled, what its handlers write, and its filters."""

    _Parts = tuple[Formatter | None, list[Filter | Callable[[LogRecord], object]]]
    _Found = tuple[int, list[Logger], list[object], list[object], list[object]]
    _Told = tuple[int, dict[int, str], dict[str, _Facts]]
    """How much is to be logged at all, names of levels, and loggers by name."""

_LEVEL: Final = attrgetter("level")
_PROPAGATE: Final = attrgetter("propagate")
_DISABLED: Final = attrgetter("disabled")
_LEVELS: Final = attrgetter("level", "propagate", "disabled")
_FILTERS: Final = attrgetter("filters")
_UNTOUCHED: Final = (0, True, False)
_ROOT_UNTOUCHED: Final = (30, True, False)


class Logging(Setting):
    """Levels of loggers, and what their records look like.

    A handler of the program cannot be another process's: it has a stream, a file or a socket. So
    each logger that has handlers there has one handler in calls, which writes to the call's log,
    with the level and the format of those that write to the program's stdout or stderr; of all, if
    none does. What a call itself sets stays in its worker, as all that it does to modules, unless
    the program has set it, too.
    """

    _told: _Told | None
    _kept: _Told | None

    def __init__(self) -> None:
        super().__init__("logging", self._look_at_all, self._put_all, "logging", self._all_told)
        self._known: tuple[object, list[Logger]] = None, []
        self._ours: dict[str, Handler | None] = {}  # handlers that we have put there, by logger
        self._our_filters: dict[str, Carried] = {}
        self._handler_class: Callable[..., Handler] | None = None

    def _look_at_all(self) -> object:
        logging = sys.modules["logging"]
        root = logging.root
        manager = root.manager
        everything = list(manager.loggerDict.values())
        known, loggers = self._known  # threads may be here at once
        if everything != known:
            # Without placeholders, of which nothing is set.
            real = logging.Logger
            loggers = [root, *[one for one in everything if isinstance(one, real)]]
            self._known = everything, loggers
        # One flat list of numbers and texts compares three times as fast as one of tuples; there
        # may be hundreds of loggers. This is looked at for each single submit.
        names = logging._levelToName
        return (
            manager.disable, loggers,
            [
                *names, *names.values(),
                *map(_LEVEL, loggers), *map(_PROPAGATE, loggers), *map(_DISABLED, loggers),
            ],
            [[*map(_appearance, one.handlers)] for one in loggers if one.handlers],
            [[*map(_Itself, one)] for one in map(_FILTERS, loggers) if one],
        )  # fmt: skip

    @staticmethod
    def _all_told(found: _Found) -> _Told:
        """How much is to be logged at all, and of each logger what is not as at its beginning.

        Between the two, the names of levels, as `logging.addLevelName` gives them.
        """
        disable, loggers, *_ = found
        logging = sys.modules["logging"]
        names = {
            int(level): str(name)
            for level, name in logging._levelToName.copy().items()
            if isinstance(level, int) and isinstance(name, str)
        }
        told: dict[str, _Facts] = {}
        root = logging.root
        for logger in loggers:
            level, propagate, disabled = _LEVELS(logger)
            plain = int(level), bool(propagate), bool(disabled)
            look = _look_of(logger.handlers)
            filters = _carried(None, logger.filters)
            untouched = plain == (_ROOT_UNTOUCHED if logger is root else _UNTOUCHED)
            if look is not None or filters is not None or not untouched:
                told["" if logger is root else str(logger.name)] = (*plain, look, filters)
        return int(disable), names, told

    def _put_all(self, value: _Told) -> None:
        logging = sys.modules["logging"]
        disable, names, told = value
        logging.disable(disable)
        for level, name in names.items():
            if logging._levelToName.get(level) != name:
                logging.addLevelName(level, name)
        for name in {*told, *self._ours}:
            logger = logging.getLogger(name) if name else logging.root
            before = _ROOT_UNTOUCHED if logger is logging.root else _UNTOUCHED
            untouched: _Facts = (*before, None, None)
            level, propagate, disabled, look, filters = told.get(name, untouched)
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            ours = self._ours.get(name)
            if ours is not None:
                logger.removeHandler(ours)
            self._put_filter(logger, name, filters)
            self._ours[name] = None
            if look is not None:
                for other in list(logger.handlers):
                    if type(other) is logging.StreamHandler:  # of a call before, or a library's
                        logger.removeHandler(other)
                self._ours[name] = self._new_handler(logging, logger, look)
                logger.addHandler(self._ours[name])

    def _put_filter(self, logger: Logger, name: str, filters: bytes | None) -> None:
        ours = self._our_filters.pop(name, None)
        if ours is not None:
            logger.removeFilter(ours)
        if filters is not None:
            self._our_filters[name] = Carried(filters)
            logger.addFilter(self._our_filters[name])

    def _set(self) -> None:
        if self._told is not None and self._told != self._kept:
            self._try(self._told)
            self._kept = self._told

    def changed(self) -> bool:
        kept = self._kept
        if kept is None:
            return False
        logging = sys.modules["logging"]
        disable, names, told = kept
        if logging.root.manager.disable != disable or not (
            names.items() <= logging._levelToName.items()
        ):
            return True
        return any(
            _LEVELS(logging.getLogger(name) if name else logging.root) != value[:3]
            for name, value in told.items()
        )

    def restore(self) -> None:
        self._try(self._kept)

    def _new_handler(self, logging: ModuleType, logger: Logger, look: _Look) -> Handler:
        if self._handler_class is None:
            self._handler_class = _handler_class(logging)
        level, text, dates, style, utc, carried = look
        handler = self._handler_class(logger, level)
        try:
            formatter = logging.Formatter(text, dates, style)
        except ValueError:  # of a class of the program's own, which reads it in its own way
            formatter = logging.Formatter()
        if utc:
            formatter.converter = sys.modules["time"].gmtime
        if carried is not None:
            brought = Carried(carried, formatter)
            formatter = brought
            handler.addFilter(brought)
        handler.setFormatter(formatter)
        return handler


class _Itself:
    """Equal to nothing but another one of the same object, whose own ``==`` may do anything."""

    __slots__ = ("value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is _Itself and self.value is other.value


def _appearance(handler: Handler) -> list[object]:
    """What decides how records look that a handler writes."""
    formatter = handler.formatter
    found: list[object] = [handler.level, handler.name, _Itself(formatter)]
    found += map(_Itself, handler.filters)
    if formatter is not None and type(formatter) is not sys.modules["logging"].Formatter:
        owners: list[object] = [formatter, *type(formatter).__mro__]
        for owner in owners:
            if getattr(owner, "__module__", "") not in ("logging", "builtins"):
                found += map(_Itself, vars(owner).values())
    return found


def _carried(formatter: object, filters: Sequence[object]) -> bytes | None:
    """A formatter of a class of its own and filters as a pickle; None: nothing that travels."""
    if type(formatter) is sys.modules["logging"].Formatter:
        formatter = None
    if formatter is None and not filters:
        return None
    from mars.code.keepers import InBand
    from mars.code.pickling import dumps

    try:
        return dumps((formatter, list(filters)), InBand())
    except Exception:  # one holds a socket or a lock: the plain format has to do
        return None


class Carried:
    """A formatter and filters of the program, read when the first record comes.

    Parameters
    ----------
    data : bytes
        What `_carried` gave.
    plain : logging.Formatter, optional
        What formats if the program's formatter cannot be read here.
    """

    def __init__(self, data: bytes, plain: Formatter | None = None) -> None:
        self._data, self._plain = data, plain
        self._read: _Parts | None = None

    def _parts(self) -> _Parts:
        if self._read is None:
            from mars.code import world
            from mars.code.arriving import new_world

            before = world.of_thread()
            world.enter_thread(new_world())  # so that it outlives the call that writes
            try:
                self._read = pickle.loads(self._data)
            except Exception:  # it needs a package that is not here
                self._read = None, []
            finally:
                world.enter_thread(before)
        return self._read

    def filter(self, record: LogRecord) -> Any:  # what each Python takes
        """What the filters say of a record, as `logging` asks them."""
        for one in self._parts()[1]:
            said: object = one.filter(record) if hasattr(one, "filter") else one(record)
            if not said:
                return False
            if isinstance(said, type(record)):  # from Python 3.12 on
                record = said
        return record if sys.version_info >= (3, 12) else True

    def format(self, record: LogRecord) -> str:
        """A record as the program's formatter writes it."""
        formatter = self._parts()[0] or self._plain
        assert formatter is not None
        return str(formatter.format(record))


def _look_of(handlers: Sequence[Handler]) -> _Look | None:
    """Level and format of what handlers write, those first that write where people see it."""
    nothing = sys.modules["logging"].NullHandler
    real = [one for one in handlers if not isinstance(one, nothing)]
    streams = {id(getattr(sys, name, None)) for name in _STREAMS} - {id(None)}
    shown = [one for one in real if id(getattr(one, "stream", None)) in streams]
    chosen = shown or real
    if not chosen:
        return None
    formatter = chosen[0].formatter
    style = _STYLES.get(type(getattr(formatter, "_style", None)).__name__, "%")
    return (
        min(int(one.level) for one in chosen),
        _text(getattr(formatter, "_fmt", None)),
        _text(getattr(formatter, "datefmt", None)),
        style,
        getattr(getattr(formatter, "converter", None), "__name__", "") == "gmtime",
        _carried(formatter, chosen[0].filters),
    )


_STREAMS: Final = ("stdout", "stderr", "__stdout__", "__stderr__")
_STYLES: Final = {"PercentStyle": "%", "StrFormatStyle": "{", "StringTemplateStyle": "$"}


def _text(value: object) -> str | None:
    return value if type(value) is str else None


def _handler_class(logging: Any) -> Callable[..., Handler]:
    class CallHandler(logging.Handler):  # type: ignore[misc]
        """Writes to the log of the call that runs."""

        def __init__(self, logger: Logger, level: int) -> None:
            super().__init__(level)
            self._logger = logger

        def emit(self, record: LogRecord) -> None:
            if getattr(record, "mars_written", False):  # by the handler of a logger below
                return
            for other in self._logger.handlers:
                if other is not self and type(other) is logging.StreamHandler:
                    return  # a call, or a library that it uses, has put its own there
            record.mars_written = True
            try:
                text = self.format(record)
            except Exception:  # the program's format has fields that only the program gives
                text = f"{record.levelname}:{record.name}:{record.getMessage()}"
            stream = sys.stderr
            if stream is not None:
                stream.write(text + "\n")
                stream.flush()

    return CallHandler
