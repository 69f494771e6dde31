"""Levels and formats of a program's loggers, and names of levels, as its calls have them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mars.attempt.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Handler, Logger, LogRecord
    from types import ModuleType

_LEVELS: Final = attrgetter("level", "propagate", "disabled")
_LOOKS: Final = attrgetter("level", "formatter", "name")
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

    def __init__(self) -> None:
        super().__init__("logging", self._look_at_all, self._put_all, "logging", self._all_told)
        self._known: tuple[object, list[Logger]] = None, []
        self._ours: dict[str, Handler | None] = {}  # handlers that we have put there, by logger
        self._handler_class: Callable[..., Handler] | None = None

    def _look_at_all(self) -> object:
        root = sys.modules["logging"].root
        everything = list(root.manager.loggerDict.values())
        known, loggers = self._known  # threads may be here at once
        if everything != known:
            # Without placeholders, of which nothing is set.
            real = sys.modules["logging"].Logger
            loggers = [root, *[one for one in everything if isinstance(one, real)]]
            self._known = everything, loggers
        # Lists of numbers compare three times as fast as one of tuples; there may be hundreds.
        return (
            root.manager.disable, dict(sys.modules["logging"]._levelToName),
            loggers, [one.level for one in loggers],
            [one.propagate for one in loggers], [one.disabled for one in loggers],
            [[*map(_LOOKS, one.handlers)] for one in loggers if one.handlers],
        )  # fmt: skip

    @staticmethod
    def _all_told(found: Any) -> Any:
        """How much is to be logged at all, and of each logger what is not as at its beginning.

        Between the two, the names of levels, as `logging.addLevelName` gives them.
        """
        disable, names, loggers, *levels, _ = found
        names = {
            int(level): str(name)
            for level, name in names.items()
            if isinstance(level, int) and isinstance(name, str)
        }
        told: dict[str, object] = {}
        root = sys.modules["logging"].root
        for logger, level, propagate, disabled in zip(loggers, *levels, strict=True):
            plain = int(level), bool(propagate), bool(disabled)
            look = _look_of(logger.handlers)
            if look is not None or plain != (_ROOT_UNTOUCHED if logger is root else _UNTOUCHED):
                told["" if logger is root else str(logger.name)] = (*plain, look)
        return int(disable), names, told

    def _put_all(self, value: Any) -> None:
        logging = sys.modules["logging"]
        disable, names, told = value
        logging.disable(disable)
        for level, name in names.items():
            if logging._levelToName.get(level) != name:
                logging.addLevelName(level, name)
        for name in {*told, *self._ours}:
            logger = logging.getLogger(name) if name else logging.root
            before = _ROOT_UNTOUCHED if logger is logging.root else _UNTOUCHED
            level, propagate, disabled, look = told.get(name, (*before, None))
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            ours = self._ours.get(name)
            if ours is not None:
                logger.removeHandler(ours)
            self._ours[name] = None
            if look is not None:
                for other in list(logger.handlers):
                    if type(other) is logging.StreamHandler:  # of a call before, or a library's
                        logger.removeHandler(other)
                self._ours[name] = self._new_handler(logging, logger, look)
                logger.addHandler(self._ours[name])

    def _set(self) -> None:
        if self._told is not None and self._told != self._kept:
            self._try(self._told)
            self._kept = self._told

    def changed(self) -> bool:
        if self._kept is None:
            return False
        logging = sys.modules["logging"]
        disable, names, told = self._kept
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

    def _new_handler(self, logging: ModuleType, logger: Logger, look: Any) -> Handler:
        if self._handler_class is None:
            self._handler_class = _handler_class(logging)
        level, text, dates, style, utc = look
        handler = self._handler_class(logger, level)
        try:
            formatter = logging.Formatter(text, dates, style)
        except ValueError:  # of a class of the program's own, which reads it in its own way
            formatter = logging.Formatter()
        if utc:
            formatter.converter = sys.modules["time"].gmtime
        handler.setFormatter(formatter)
        return handler


def _look_of(handlers: Sequence[Handler]) -> object:
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
