"""What a program has set in its process holds in its calls, also if it does so late."""

from __future__ import annotations

import argparse
import datetime
import decimal
import gc
import locale
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.remote as mr


def in_calls(look: Callable[[], object]) -> list[Any]:
    """What several calls see, so that several workers are asked."""
    return list(mr.ExecutableTuple([mr.spawn(look) for _ in range(4)]).execute().fetch())


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Have the program's own settings again after each test."""
    root = logging.root
    levels = root.level, list(root.handlers), logging.root.manager.disable
    argv, limit, digits = sys.argv, sys.getrecursionlimit(), sys.get_int_max_str_digits()
    collecting, interval = gc.get_threshold(), sys.getswitchinterval()
    numbers, printed = np.geterr(), np.get_printoptions()
    zone = os.environ.get("TZ")
    with warnings.catch_warnings(), decimal.localcontext():
        yield
    sys.argv = argv
    sys.setrecursionlimit(limit)
    sys.set_int_max_str_digits(digits)
    sys.setswitchinterval(interval)
    gc.enable()
    gc.set_threshold(*collecting)
    np.seterr(**numbers)
    np.set_printoptions(**printed)
    socket.setdefaulttimeout(None)
    root.setLevel(levels[0])
    root.handlers[:] = levels[1]
    logging.disable(levels[2])
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    time.tzset()


def set_zone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def round_down() -> None:
    decimal.getcontext().rounding = decimal.ROUND_DOWN


def trap() -> None:
    decimal.getcontext().traps[decimal.Inexact] = True


def divide() -> str:
    try:
        return str(decimal.Decimal(2) / 3)
    except decimal.Inexact:
        return "trapped"


def look_at_numpy() -> object:
    import numpy

    return numpy.geterr()


def print_with_numpy() -> str:
    import numpy

    return str(numpy.array([1 / 3, 2 / 3]))


CHANGES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "time zone": (
        set_zone,
        lambda: (time.tzname, time.localtime(0).tm_hour, datetime.datetime.fromtimestamp(0).hour),  # noqa: DTZ006
    ),
    "recursion limit": (lambda: sys.setrecursionlimit(23_456), sys.getrecursionlimit),
    "a lower recursion limit": (lambda: sys.setrecursionlimit(700), sys.getrecursionlimit),
    "digits of an int": (lambda: sys.set_int_max_str_digits(7000), sys.get_int_max_str_digits),
    "digits without limit": (lambda: sys.set_int_max_str_digits(0), sys.get_int_max_str_digits),
    "switch interval": (lambda: sys.setswitchinterval(0.5), sys.getswitchinterval),
    "arguments": (lambda: setattr(sys, "argv", ["prog", "--lr", "0.5"]), lambda: list(sys.argv)),
    "collector": (lambda: gc.set_threshold(1234, 5, 6), gc.get_threshold),
    "no collector": (gc.disable, gc.isenabled),
    "precision": (lambda: setattr(decimal.getcontext(), "prec", 50), divide),
    "rounding": (round_down, divide),
    "traps": (trap, divide),
    "another context": (lambda: decimal.setcontext(decimal.Context(prec=3)), divide),
    "errors of numpy": (lambda: np.seterr(divide="raise", under="print"), look_at_numpy),
    "what numpy prints": (lambda: np.set_printoptions(precision=2), print_with_numpy),
    "timeout of sockets": (lambda: socket.setdefaulttimeout(7.5), socket.getdefaulttimeout),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_the_program_sets_after_the_engine_began_holds_in_calls(kind: str) -> None:
    change, look = CHANGES[kind]
    before = look()
    assert in_calls(look) == [before] * 4
    change()
    after = look()
    assert after != before
    assert in_calls(look) == [after] * 4

    def nested() -> object:
        return mr.spawn(look).to_object()

    assert mr.spawn(nested).to_object() == after
    assert mr.map(lambda _: look(), range(3)).execute().fetch() == [after] * 3


def test_calls_have_again_what_the_program_has_again() -> None:
    limit, argv = sys.getrecursionlimit(), sys.argv
    for new, words in ((5000, ["a"]), (limit, argv), (6000, ["b", "c"]), (limit, argv)):
        sys.setrecursionlimit(new)
        sys.argv = words
        assert in_calls(lambda: (sys.getrecursionlimit(), sys.argv)) == [(new, words)] * 4


def test_a_library_that_calls_load_later_has_the_options_of_the_program() -> None:
    sklearn = pytest.importorskip("sklearn")
    pandas = pytest.importorskip("pandas")

    def look() -> tuple[object, object, object]:
        import pandas
        import sklearn

        return (
            sklearn.get_config()["assume_finite"],
            pandas.get_option("display.max_rows"),
            pandas.get_option("display.precision"),
        )

    options = pandas.option_context("display.max_rows", 7, "display.precision", 3)
    with sklearn.config_context(assume_finite=True), options:
        assert in_calls(look) == [(True, 7, 3)] * 4
    assert in_calls(look) == [look()] * 4


def test_a_parser_in_a_call_reads_the_arguments_of_the_program() -> None:
    def parse() -> tuple[float, str]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float, default=0.1)
        return parser.parse_args().lr, parser.prog

    sys.argv = ["/somewhere/train.py", "--lr", "0.5"]
    assert in_calls(parse) == [(0.5, "train.py")] * 4


def test_arguments_that_are_no_texts_do_not_stop_a_call() -> None:
    class Word(str):
        __slots__ = ()

    sys.argv = ["prog", Word("--fast"), 3]  # type: ignore[list-item]
    assert in_calls(lambda: list(sys.argv)) == [["prog", "--fast", 3]] * 4
    sys.argv = None  # type: ignore[assignment]
    assert mr.spawn(abs, args=-1).to_object() == 1


# -- results that are nested deep ---------------------------------------------------------------


def nest(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


def depth_of(nested: list[Any]) -> int:
    depth = 0
    while nested:
        nested, depth = nested[0], depth + 1
    return depth


def test_arguments_and_results_may_be_nested_deeper_than_the_recursion_limit() -> None:
    with pytest.raises(RecursionError):
        pickle.dumps(nest(30_000))
    assert depth_of(mr.spawn(nest, args=3000).to_object()) == 3000
    assert mr.spawn(depth_of, args=(nest(3000),)).to_object() == 3000


def test_calls_recurse_as_deep_as_the_program_may() -> None:
    def recurse(n: int) -> int:
        return n and 1 + recurse(n - 1)

    sys.setrecursionlimit(20_000)
    assert mr.spawn(recurse, args=5000).to_object() == 5000


# -- warnings -----------------------------------------------------------------------------------


class OwnWarning(UserWarning):
    pass


class OfOwnWarning(OwnWarning):
    pass


def warn(text: str, category: type[Warning] = UserWarning) -> str:
    try:
        warnings.warn(text, category, stacklevel=1)
    except Warning as error:
        return f"raised {type(error).__name__}"
    return "went on"


@pytest.mark.parametrize("category", [UserWarning, DeprecationWarning, OwnWarning, OfOwnWarning])
def test_a_filter_for_a_category_holds_in_calls(category: type[Warning]) -> None:
    def look() -> list[str]:
        return [warn("one", category), warn("two", RuntimeWarning)]

    warnings.simplefilter("ignore")
    assert in_calls(look) == [["went on", "went on"]] * 4
    warnings.simplefilter("error", category)
    assert in_calls(look) == [look()] * 4
    assert look()[0] == f"raised {category.__name__}"
    warnings.simplefilter("error", RuntimeWarning)
    warnings.simplefilter("ignore", category)
    assert in_calls(look) == [["went on", "raised RuntimeWarning"]] * 4


def test_filters_by_base_class_message_and_module_hold_in_calls() -> None:
    def look() -> list[str]:
        return [warn("noisy: 1", OfOwnWarning), warn("noisy: 2"), warn("other")]

    warnings.resetwarnings()
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("error", category=OwnWarning)
    warnings.filterwarnings("error", message="other")
    assert in_calls(look) == [look()] * 4
    assert look() == ["raised OfOwnWarning", "went on", "raised UserWarning"]
    warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
    assert in_calls(look) == [look()] * 4


def test_what_is_ignored_is_not_in_the_log_and_what_is_shown_is(local_only: None) -> None:
    def look() -> None:
        warnings.warn("noisy", stacklevel=1)
        warnings.warn("telling", stacklevel=1)

    warnings.resetwarnings()
    warnings.simplefilter("always")
    warnings.filterwarnings("ignore", message="noisy")
    for _ in range(2):
        call = mr.spawn(look).execute()
        assert "telling" in str(call.fetch_log())
        assert "noisy" not in str(call.fetch_log(offsets=0))


def test_filters_that_are_none_do_not_stop_a_call() -> None:
    warnings.filters.insert(0, "nonsense")  # type: ignore[attr-defined]
    assert mr.spawn(abs, args=-1).to_object() == 1


# -- logging ------------------------------------------------------------------------------------


@pytest.fixture
def bare() -> Iterator[Callable[[], None]]:
    """``bare()`` takes away the handlers that pytest adds when a test begins."""
    before = list(logging.root.handlers)
    yield lambda: logging.root.handlers.clear()
    logging.root.handlers[:] = before


@pytest.fixture
def show(engine: str, bare: Callable[[], None]) -> Iterator[Callable[..., logging.Handler]]:
    """``show(logger, format)`` has records of a logger shown, as a program does on its stderr."""
    shown: list[tuple[logging.Logger, logging.Handler]] = []

    def show(logger: logging.Logger, *formats: Any, level: int = 0) -> logging.Handler:
        if not shown:
            bare()
        # On inline a record goes where the program's handler writes: to what is stderr then.
        handler = logging._StderrHandler(level) if engine == "inline" else None
        handler = handler or logging.StreamHandler(sys.stderr)
        handler.setLevel(level)
        if formats:
            handler.setFormatter(logging.Formatter(*formats))
        logger.addHandler(handler)
        shown.append((logger, handler))
        return handler

    yield show
    for logger, handler in shown:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def log_of(function: Callable[[], object]) -> list[str]:
    call = mr.spawn(function).execute()
    return str(call.fetch_log()).splitlines()


def test_what_the_program_shows_of_logging_is_in_the_log_of_a_call(
    show: Callable[..., logging.Handler],
) -> None:
    def work() -> None:
        logging.getLogger("some.library").debug("too much")
        logging.getLogger("some.library").info("step %d", 1)
        logging.info("from root")  # noqa: LOG015

    logging.root.setLevel(logging.INFO)
    show(logging.root, "%(levelname)s|%(name)s|%(message)s")
    assert log_of(work) == ["INFO|some.library|step 1", "INFO|root|from root"]
    logging.root.setLevel(logging.WARNING)
    assert log_of(work) == []
    logging.root.setLevel(logging.DEBUG)
    assert len(log_of(work)) == 3


class Brackets(logging.Formatter):
    """Writes in its own way, as a program's formatter may."""

    left = "<"

    def format(self, record: logging.LogRecord) -> str:
        return f"{self.left}{record.levelname} {record.user} {super().format(record)}>"  # type: ignore[attr-defined]


class User(logging.Filter):
    """Adds to records, and drops some."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.user = "ann"
        return "secret" not in record.getMessage()


def test_formatters_and_filters_of_the_program_s_own_classes_hold_in_calls(
    show: Callable[..., logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        logging.getLogger("settings.look").info("step %d", 1)
        logging.getLogger("settings.look").info("a secret")
        logging.getLogger("settings.drop").info("dropped")

    logging.root.setLevel(logging.INFO)
    handler = show(logging.root)
    handler.setFormatter(Brackets("%(message)s"))
    handler.addFilter(User())
    dropping = logging.getLogger("settings.drop")
    drop = Drop()
    dropping.addFilter(drop)
    try:
        assert log_of(work) == ["<INFO ann step 1>"]
        monkeypatch.setattr(Brackets, "left", "{")
        assert log_of(work) == ["{INFO ann step 1>"]
    finally:
        dropping.removeFilter(drop)
    assert log_of(work) == ["{INFO ann step 1>", "{INFO ann dropped>"]


class Drop:
    """A filter that is no `logging.Filter`, as `logging` allows."""

    def filter(self, _: logging.LogRecord) -> bool:
        return False


@pytest.fixture
def names_of_levels() -> Iterator[None]:
    before = dict(logging._levelToName), dict(logging._nameToLevel)
    yield
    for names, kept in zip((logging._levelToName, logging._nameToLevel), before, strict=True):
        names.clear()  # type: ignore[attr-defined]
        names.update(kept)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("names_of_levels")
def test_names_of_levels_are_those_of_the_program(
    show: Callable[..., logging.Handler], engine: str
) -> None:
    def chat() -> str:
        logging.getLogger("settings.named").log(25, "said")
        logging.getLogger("settings.named").info("too")
        return logging.getLevelName(25)

    logging.root.setLevel(logging.INFO)
    show(logging.root, "%(levelname)s|%(message)s")
    assert log_of(chat) == ["Level 25|said", "INFO|too"]
    logging.addLevelName(25, "NOTE")
    assert log_of(chat) == ["NOTE|said", "INFO|too"]
    logging.addLevelName(25, "NOTICE")
    logging.addLevelName(logging.INFO, "info")
    assert log_of(chat) == ["NOTICE|said", "info|too"]
    assert mr.spawn(logging.getLevelName, args=("NOTICE",)).to_object() == 25

    def rename() -> None:
        logging.addLevelName(25, "MINE")

    if engine != "inline":
        mr.ExecutableTuple([mr.spawn(rename) for _ in range(2)]).execute()
    assert log_of(chat) == ["NOTICE|said", "info|too"]


def test_levels_of_single_loggers_hold_in_calls(show: Callable[..., logging.Handler]) -> None:
    def work() -> None:
        for name in ("settings.loud", "settings.loud.below", "settings.quiet", "settings.other"):
            logging.getLogger(name).info("said")

    logging.root.setLevel(logging.WARNING)
    show(logging.root, "{name}: {message}", None, "{")
    loud, quiet = logging.getLogger("settings.loud"), logging.getLogger("settings.quiet")
    loud.setLevel(logging.DEBUG)
    quiet.setLevel(logging.ERROR)
    assert log_of(work) == ["settings.loud: said", "settings.loud.below: said"]
    loud.setLevel(logging.NOTSET)
    assert log_of(work) == []
    quiet.setLevel(logging.NOTSET)


def test_a_logger_with_a_handler_of_its_own_writes_once_and_in_its_own_format(
    show: Callable[..., logging.Handler],
) -> None:
    def work() -> None:
        logging.getLogger("settings.own").info("mine")
        logging.getLogger("settings.own").debug("nobody's")

    logger = logging.getLogger("settings.own")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    show(logging.root, "root %(message)s")
    show(logger, "own %(message)s", level=logging.INFO)
    assert log_of(work) == ["own mine"]


def test_logging_that_is_disabled_is_so_in_calls(show: Callable[..., logging.Handler]) -> None:
    def work() -> None:
        logging.getLogger("settings.any").error("said")

    show(logging.root)
    logging.disable(logging.ERROR)
    assert log_of(work) == []
    logging.disable(logging.NOTSET)
    assert log_of(work) == ["said"]


def test_a_handler_that_a_call_makes_itself_is_the_one_that_writes(
    show: Callable[..., logging.Handler], local_only: None
) -> None:
    def work() -> None:
        logger = logging.getLogger("settings.twice")
        logger.handlers.clear()
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("call %(message)s"))
        logger.addHandler(handler)
        logger.info("once")

    logger = logging.getLogger("settings.twice")
    show(logger, "program %(message)s")
    logger.setLevel(logging.INFO)
    assert log_of(work) == ["call once"]


def test_a_format_with_fields_that_only_the_program_gives_costs_no_record(
    show: Callable[..., logging.Handler], local_only: None
) -> None:
    def work() -> None:
        logging.getLogger("settings.fields").warning("said")

    show(logging.root, "%(request)s %(message)s")
    assert log_of(work) == ["WARNING:settings.fields:said"]


def test_logging_that_the_program_sets_up_late_replaces_what_calls_had_to_make_for_themselves(
    show: Callable[..., logging.Handler], bare: Callable[[], None], local_only: None
) -> None:
    def work() -> None:
        logging.warning("said")  # noqa: LOG015  # makes a handler where there is none

    bare()
    for _ in range(3):
        assert log_of(work) == ["WARNING:root:said"]
    show(logging.root, "program %(message)s")
    for _ in range(3):
        assert log_of(work) == ["program said"]


def test_without_any_logging_in_the_program_only_warnings_are_in_the_log(
    bare: Callable[[], None],
) -> None:
    def work() -> None:
        logging.getLogger("settings.plain").info("not said")
        logging.getLogger("settings.plain").warning("said")

    bare()
    assert log_of(work) == ["said"]


# -- odd paths ----------------------------------------------------------------------------------


def test_entries_of_the_path_that_python_ignores_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    class Text(str):
        __slots__ = ()

    (tmp_path / "odd_path_module.py").write_text("VALUE = 5\n")
    odd = [*sys.path, tmp_path, b"/bytes", None, 3, Text(tmp_path)]
    monkeypatch.setattr(sys, "path", odd)

    def look() -> int:
        import odd_path_module  # type: ignore[import-not-found]

        return int(odd_path_module.VALUE)

    assert in_calls(look) == [5] * 4
    monkeypatch.setattr(sys, "path", tuple(odd))
    assert in_calls(look) == [5] * 4


# -- what the program was started with ----------------------------------------------------------

STARTED = """
import sys
import mars, mars.remote as mr
session = mars.new_session(engine=sys.argv[1], n_cpu=1)
def look():
    import sys
    return sys.flags.optimize, sys.flags.utf8_mode, sys._xoptions, sys.warnoptions, __debug__
call = mr.spawn(look).execute()
assert call.fetch() == look(), (call.fetch(), look())
assert call.fetch()[0] == 1
session.stop_server()
print("right")
"""


def test_calls_have_the_options_that_the_program_was_started_with(
    engine: str, tmp_path: Path, script_environment: dict[str, str]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(STARTED)
    options = ["-O", "-X", "own=3", "-X", "utf8=0", "-W", "ignore::BytesWarning"]
    done = subprocess.run(
        [sys.executable, *options, str(program), engine],
        capture_output=True, text=True, timeout=200, env=script_environment, check=False,
    )  # fmt: skip
    assert done.stdout == "right\n", done.stderr


def test_texts_have_one_hash_wherever_a_call_runs(engine: str, keep_default: None) -> None:
    with mars.new_session(engine=engine, n_cpu=2, n_worker=2, default=False) as session:
        calls = [
            mr.spawn(hash, args="a text", expect_worker=address)
            for address in session.get_worker_addresses()
        ]
        session.execute(calls)
        assert len(set(session.fetch(calls))) == 1


def test_the_locale_of_the_program_holds_in_calls() -> None:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "C")
        assert in_calls(lambda: locale.setlocale(locale.LC_ALL)) == ["C"] * 4
    finally:
        locale.setlocale(locale.LC_ALL, before)
    assert in_calls(lambda: locale.setlocale(locale.LC_ALL)) == [before] * 4
