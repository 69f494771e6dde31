"""A table of small programs that end alike on every engine.

Each has its outcome beside it, as data: values, kinds of errors with what they name, logs, states,
attempts. Where engines differ on purpose, docs/promises.md says so and no program is here.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import io
import itertools
import operator
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr

Program = Callable[[Path], object]
PROGRAMS: list[Any] = []


def ends(outcome: object) -> Callable[[Program], Program]:
    """Put a program into the table, with the outcome that it has to have."""

    def add(program: Program) -> Program:
        PROGRAMS.append(pytest.param(program, outcome, id=program.__name__))
        return program

    return add


def told(act: Callable[[], object]) -> object:
    """What an action gives, or the kind of its error."""
    try:
        return act()
    except BaseException as error:
        return type(error).__name__


def why(act: Callable[[], object]) -> tuple[str, str]:
    """Kind and text of an action's error."""
    try:
        act()
    except BaseException as error:
        return type(error).__name__, str(error)
    return "no error", ""


def kind_of(error: BaseException | None) -> str:
    return "no error" if error is None else type(error).__name__


def chain(error: BaseException | None) -> list[str]:
    """Kinds of an error and of its causes."""
    kinds = []
    while error is not None:
        kinds.append(type(error).__name__)
        error = error.__cause__
    return kinds


def endings(call: mr.Object) -> list[str]:
    return [attempt.ending for attempt in call.attempts()]


def fail(text: str = "bad") -> None:
    raise ValueError(text)


def first_time(flag: Path, error: type[Exception] = ValueError) -> str:
    if not flag.exists():
        flag.touch()
        raise error("first time")
    return "second time"


# -- errors ------------------------------------------------------------------------------------


@ends(("ValueError", "bad"))
def the_error_of_a_call(folder: Path) -> object:
    return why(lambda: mr.spawn(fail).execute())


class TwoParts(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


@ends((7, "seven", ("7: seven",)))
def the_attributes_of_an_error(folder: Path) -> object:
    def act() -> None:
        raise TwoParts(7, "seven")

    try:
        mr.spawn(act).execute()
    except TwoParts as error:
        return error.code, error.text, error.args
    return None


@ends(["RuntimeError", "KeyError", "OSError"])
def an_error_with_causes(folder: Path) -> object:
    def act() -> None:
        try:
            try:
                raise OSError("disk")
            except OSError as error:
                raise KeyError("key") from error
        except KeyError as error:
            raise RuntimeError("run") from error

    try:
        mr.spawn(act).execute()
    except RuntimeError as error:
        return chain(error)
    return None


@ends(["mine", "task act(3)"])
def the_notes_of_an_error(folder: Path) -> object:
    def act(x: int) -> None:
        error = ValueError("with a note")
        error.add_note("mine")
        raise error

    try:
        mr.spawn(act, 3).execute()
    except ValueError as error:
        return [note.partition(" ·")[0] for note in error.__notes__]
    return None


@ends(["ValueError", "DependencyFailed", "DependencyFailed", "no error"])
def a_failed_input_with_continue(folder: Path) -> object:
    bad = mr.spawn(fail)
    calls = [bad, mr.spawn(str, (bad,)), mr.spawn(len, ([bad],)), mr.spawn(abs, -1)]
    together = mr.ExecutableTuple([calls[0], mr.spawn(str, (calls[1],)), calls[2], calls[3]])
    together.execute(on_error="continue")
    return [kind_of(error) for error in together.errors()]


@ends((("DependencyFailed", "last was not started because its input first failed"),
       ["DependencyFailed", "ValueError"]))  # fmt: skip
def a_failed_input_names_the_first_of_them(folder: Path) -> object:
    first = mr.spawn(fail, name="first")
    middle = mr.spawn(str, (first,), name="middle")
    last = mr.spawn(str, (middle,), name="last")
    told(lambda: last.execute())
    try:
        last.fetch()
    except mars.errors.DependencyFailed as error:
        return why(last.fetch), chain(error)
    return None


@ends(("ValueError", "first", "ValueError"))
def two_failures_raise_the_first(folder: Path) -> object:
    gate = mr.spawn(fail, "first", priority=5)
    later = mr.spawn(lambda: (time.sleep(0.2), fail("second")))
    kind, text = why(lambda: mars.execute(gate, later, on_error="raise"))
    mars.execute(later, on_error="continue")
    return kind, text, told(later.fetch)


@ends(("NotExecuted", 3, "NotExecuted", 3))
def what_was_not_executed(folder: Path) -> object:
    source = mr.spawn(abs, -3)
    before = told(source.fetch)
    mr.spawn(str, (source,)).execute()
    mapped = mr.map(abs, [-1])
    return before, told(source.fetch), told(mapped[0].fetch), source.execute().fetch()


@ends(["EncodeError", "EncodeError", "EncodeError", "EncodeError"])
def what_does_not_pickle(folder: Path) -> object:
    import threading

    return [
        told(lambda: mr.spawn(abs, threading.Lock())),
        told(lambda: mr.spawn(threading.Lock).execute()),
        told(lambda: mr.spawn(lambda: (i for i in range(3))).execute()),
        told(lambda: mr.map(abs, [threading.Lock()])),
    ]


@ends(("EncodeError", True))
def an_object_as_a_result(folder: Path) -> object:
    kind, text = why(lambda: mr.spawn(lambda: mr.spawn(abs, -1)).execute())
    return kind, "fetch() it first" in text


@ends(["KeyboardInterrupt", "GeneratorExit", "SystemExit", "CancelledError", "StopIteration"])
def errors_that_are_no_exceptions(folder: Path) -> object:
    kinds = [KeyboardInterrupt, GeneratorExit, SystemExit, asyncio.CancelledError, StopIteration]

    def act(kind: type[BaseException]) -> None:
        raise kind

    return [told(lambda kind=kind: mr.spawn(act, kind).execute()) for kind in kinds]


@ends(["RuntimeError", "KeyboardInterrupt", "SystemExit", "ZeroDivisionError"])
def errors_out_of_futures(folder: Path) -> object:
    def act(kind: type[BaseException]) -> None:
        raise kind

    kinds = [StopIteration, KeyboardInterrupt, SystemExit, ZeroDivisionError]
    return [told(lambda k=k: mr.spawn(act, k).execute(wait=False).result(20)) for k in kinds]


@ends([("RuntimeError", "generator raised StopIteration"), ("AssertionError", "no")])
def errors_of_python_itself(folder: Path) -> object:
    def generate() -> list[int]:
        def inner() -> Iterator[int]:
            yield next(iter([]))

        return list(inner())

    def check() -> None:
        raise AssertionError("no")

    return [why(lambda: mr.spawn(generate).execute()), why(lambda: mr.spawn(check).execute())]


@ends(("ExceptionGroup", ["ValueError", "KeyError"]))
def a_group_of_errors(folder: Path) -> object:
    def act() -> None:
        raise ExceptionGroup("both", [ValueError(1), KeyError(2)])

    try:
        mr.spawn(act).execute()
    except ExceptionGroup as group:
        return type(group).__name__, [type(error).__name__ for error in group.exceptions]
    return None


@ends(["TypeError", "TypeError", "ValueError", "NoAvailableBand", "NoAvailableBand"])
def calls_that_cannot_be(folder: Path) -> object:
    return [
        told(lambda: mr.spawn(5)),  # type: ignore[call-overload]
        told(lambda: mr.spawn(abs, 1, retries="two")),
        told(lambda: mr.spawn(abs, 1, color="red")),
        told(lambda: mr.spawn(abs, 1, cpus=1000).execute()),
        told(lambda: mr.spawn(abs, 1, expect_worker="nowhere:1").execute(wait=False)),
    ]


@ends(["TypeError", 1])
def a_wrong_argument(folder: Path) -> object:
    call = mr.spawn(abs, (1, 2))
    return [told(lambda: call.execute()), mr.spawn(abs, (-1,)).execute().fetch()]


@ends((["ValueError", "ValueError"], ["error", "error"], 2))
def a_failed_call_runs_again(folder: Path) -> object:
    def act() -> None:
        with (folder / "runs").open("a") as file:
            file.write("x")
        raise ValueError("again")

    call = mr.spawn(act)
    kinds = [told(lambda: call.execute()) for _ in range(2)]
    return kinds, endings(call), (folder / "runs").stat().st_size


# -- trying again, time limits ------------------------------------------------------------------


@ends(("second time", ["error", "value"]))
def a_call_that_is_tried_again(folder: Path) -> object:
    call = mr.spawn(first_time, folder / "flag", retries=1)
    return call.execute().fetch(), endings(call)


@ends([["error"], ["error", "value"], ["error", "value"], ["error"]])
def which_errors_are_tried_again(folder: Path) -> object:
    tried = []
    for number, (raised, named) in enumerate(
        [(KeyError, ValueError), (KeyError, LookupError), (OSError, (ValueError, OSError)),
         (mars.errors.SessionClosed, Exception)]
    ):  # fmt: skip
        call = mr.spawn(first_time, (folder / str(number), raised), retries=1, retry_on=named)
        told(lambda call=call: call.execute())
        tried.append(endings(call))
    return tried


@ends(([1, 2], 2))
def tries_have_fresh_arguments(folder: Path) -> object:
    def act(items: list[int]) -> list[int]:
        items.append(2)
        first_time(folder / "flag")
        return items

    call = mr.spawn(act, args=([1],), retries=1)
    return call.execute().fetch(), len(endings(call))


@ends("attempt 3")
def the_attempt_of_the_last_error(folder: Path) -> object:
    try:
        mr.spawn(fail, retries=2).execute()
    except ValueError as error:
        return error.__notes__[0].partition(" · ")[2].partition(" on ")[0]
    return None


TOO_LONG = (
    "nap was stopped after its timeout of 0.4 s (attempt 1). It was at line N of "
    "test_engine_same.py in nap. Raise `timeout` if it needs more time"
)


@ends((("TaskTimeout", TOO_LONG), ["stopped"], "begun\n"))
def a_call_that_takes_too_long(folder: Path) -> object:
    def nap() -> None:
        print("begun")
        time.sleep(60)

    call = mr.spawn(nap, timeout=0.4)
    kind, text = why(lambda: call.execute())
    text = re.sub(r"line \d+ of \S*/", "line N of ", text)
    return (kind, text), endings(call), str(call.fetch_log())


@ends((["DependencyFailed", "TaskTimeout"], 1))
def the_dependent_of_a_timeout(folder: Path) -> object:
    slow, quick = mr.spawn(time.sleep, 60, timeout=0.3), mr.spawn(abs, -1)
    after = mr.spawn(str, (slow,))
    mars.execute(after, quick, on_error="continue")
    return chain(mr.ExecutableTuple([after]).errors()[0]), quick.fetch()


@ends(["finally", "handled"])
def a_timeout_lets_the_call_tidy_up(folder: Path) -> object:
    def act(name: str, handles: bool) -> None:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            if handles:
                (folder / "handled").touch()
            raise
        finally:
            (folder / name).touch()

    calls = [mr.spawn(act, (name, name == "second"), timeout=0.3) for name in ("finally", "second")]
    mars.execute(calls, on_error="continue")
    (folder / "second").unlink()
    return sorted(path.name for path in folder.iterdir())


@ends([0, "TaskTimeout", 0])
def a_timeout_of_one_item_of_a_map(folder: Path) -> object:
    mapped = mr.map(lambda s: time.sleep(s) or 0, [0, 60, 0.01], timeout=2)
    mapped.execute(on_error="continue")
    return [told(item.fetch) for item in mapped]


# -- logs ----------------------------------------------------------------------------------------


@ends("a\nb\nto stderr\nfrom a child\n")
def the_log_of_a_call(folder: Path) -> object:
    def act() -> None:
        print("a")
        os.write(1, b"b\n")
        print("to stderr", file=sys.stderr)
        os.system("echo from a child")

    return str(mr.spawn(act).execute().fetch_log())


@ends(["before the error\n", "before the retry\nbefore the retry\n"])
def the_log_of_what_failed(folder: Path) -> object:
    def act(text: str) -> None:
        print(text)
        fail()

    calls = [mr.spawn(act, "before the error"), mr.spawn(act, "before the retry", retries=1)]
    mars.execute(calls, on_error="continue")
    return [str(call.fetch_log()) for call in calls]


@ends((["", "", "0"], ["x\n", ""], 2))
def logs_that_are_empty_and_that_go_on(folder: Path) -> object:
    silent, not_run, loud = mr.spawn(abs, -1), mr.spawn(print, "x"), mr.spawn(print, "x")
    mars.execute(silent, loud)
    states = [str(silent.fetch_log()), str(not_run.fetch_log()), str(len(silent.fetch_log()))]
    return states, [str(loud.fetch_log()), str(loud.fetch_log())], loud.fetch_log().offsets[0]


@ends(["inner\n", "outer\ninner said 'inner\\n'\n"])
def logs_of_calls_of_calls(folder: Path) -> object:
    def outer() -> str:
        print("outer")
        call = mr.spawn(print, "inner").execute()
        said = str(call.fetch_log())
        print("inner said", repr(said))
        return said

    call = mr.spawn(outer).execute()
    return [call.fetch(), str(call.fetch_log())]


@ends([["item 0"], ["item 1"], [], ["one", "two"]])
def logs_that_are_followed(folder: Path) -> object:
    mapped = mr.map(lambda i: print("item", i), range(2))
    failed = mr.spawn(str, (mr.spawn(fail),))
    call = mr.spawn(print, ("one\ntwo",)).execute()
    mars.execute(mapped, failed, on_error="continue")
    return [list(one.fetch_log(follow=True)) for one in (*mapped, failed, call)]


@ends(("'captured'", "shown\n"))
def a_call_that_redirects_its_output(folder: Path) -> object:
    def act() -> str:
        import io

        with contextlib.redirect_stdout(io.StringIO()) as kept:
            print("captured", end="")
        print("shown")
        return repr(kept.getvalue())

    call = mr.spawn(act).execute()
    return call.fetch(), str(call.fetch_log())


@ends((True, "one\ntwo\nraw\n"))
def the_output_of_a_call_is_a_text_stream(folder: Path) -> object:
    def act() -> bool:
        sys.stdout.writelines(["one\n", "two\n"])
        sys.stdout.buffer.write(b"raw\n")
        return isinstance(sys.stdout, io.TextIOBase)

    call = mr.spawn(act).execute()
    return call.fetch(), str(call.fetch_log())


@ends("äöü €\n")
def a_log_of_other_letters(folder: Path) -> object:
    return str(mr.spawn(print, "äöü €").execute().fetch_log())


# -- states, order -------------------------------------------------------------------------------


@ends((1, [5, 5]))
def an_input_that_two_calls_share_runs_once(folder: Path) -> object:
    def load() -> int:
        with (folder / "runs").open("a") as file:
            file.write("x")
        return 5

    source = mr.spawn(load)
    calls = [mr.spawn(abs, (source,)), mr.spawn(lambda x: x, (source,))]
    values = mars.fetch(mars.execute(calls))
    source.execute()
    return (folder / "runs").stat().st_size, values


@ends([4, 3, 2, 1, 0])
def higher_priority_runs_first(folder: Path) -> object:
    def act(i: int) -> None:
        with (folder / "order").open("a") as file:
            file.write(f"{i} ")

    mars.execute([mr.spawn(act, i, priority=i, cpus=2) for i in range(5)])
    return [int(word) for word in (folder / "order").read_text().split()]


@ends("abcde")
def a_chain_runs_in_order(folder: Path) -> object:
    last: Any = ""
    for letter in "abcde":
        last = mr.spawn(operator.add, (last, letter))
    return last.execute().fetch()


@ends((True, 1.0, False, None, True))
def a_future_that_is_done(folder: Path) -> object:
    call = mr.spawn(abs, -1)
    run = call.execute(wait=False)
    same = run.result(20) is call
    return same, run.progress(), run.cancelled(), run.exception(), run.done()


@ends([["value"], ["error"], [], []])
def attempts_of_calls_in_each_state(folder: Path) -> object:
    good, bad, idle = mr.spawn(abs, -1), mr.spawn(fail), mr.spawn(abs, -2)
    after = mr.spawn(str, (bad,))
    mars.execute(good, bad, after, on_error="continue")
    return [endings(call) for call in (good, bad, after, idle)]


@ends((True, True, None))
def the_times_of_a_call(folder: Path) -> object:
    call = mr.spawn(time.sleep, 0.05)
    before = call.times()
    times = call.execute().times()
    assert times is not None
    # What was seen on another host is put into the time of the program, and may be off by a bit.
    in_order = all(b - a > -0.05 for a, b in itertools.pairwise(times))
    return in_order, times.running_s >= 0.04, before


@ends(["'raise' or 'continue'", "seconds", "True or False"])
def arguments_of_execute_that_are_refused(folder: Path) -> object:
    call: Any = mr.spawn(abs, -1)
    texts = [
        why(lambda: call.execute(on_error="stop"))[1],
        why(lambda: call.execute(progress_update_interval="1"))[1],
        why(lambda: call.execute(wait="no"))[1],
    ]
    expected = ["'raise' or 'continue'", "seconds", "True or False"]
    return [part if part in text else text for part, text in zip(expected, texts, strict=True)]


@ends(("TaskCancelled", "TaskCancelled", "NotExecuted", 2))
def a_cancelled_run(folder: Path) -> object:
    def hold() -> None:
        (folder / "begun").touch()
        end = time.monotonic() + 3
        while not (folder / "open").exists() and time.monotonic() < end:
            time.sleep(0.01)

    held, idle = mr.spawn(hold), mr.spawn(abs, -1)
    after = mr.spawn(str, (held,))
    run = mars.execute(held, after, wait=False)
    while not (folder / "begun").exists():
        time.sleep(0.01)
    run.cancel()
    kinds = told(held.fetch), told(after.fetch), told(idle.fetch)
    (folder / "open").touch()
    return *kinds, mr.spawn(abs, -2).execute().fetch()


@ends((False, 1, "value"))
def a_cancel_that_comes_too_late(folder: Path) -> object:
    call = mr.spawn(abs, -1)
    run = call.execute(wait=False)
    run.result(20)
    return run.cancel(), call.fetch(), endings(call)[-1]


@ends(["NotExecuted", 4, "SessionClosed"])
def two_sessions_and_a_closed_one(folder: Path) -> object:
    here = mars.session.get_default_session()
    assert here is not None
    other = mars.new_session(here.address, default=False)
    call = mr.spawn(abs, -4).execute()
    kinds = [told(lambda: call.fetch(session=other)), call.execute(session=other).fetch(other)]
    other.close()
    return [*kinds, told(lambda: call.fetch(session=other))]


# -- several outputs, generators ------------------------------------------------------------------


@ends([[1, 2, 3], ["a", "b"], [0, 1], [("k", 1)], [b"x"[0], b"y"[0]]])
def results_of_several_outputs(folder: Path) -> object:
    def generate(n: int) -> Iterator[int]:
        yield from range(n)

    return [
        mars.fetch(mars.execute(mr.spawn(lambda: (1, 2, 3), n_output=3))),
        mars.fetch(mars.execute(mr.spawn(str, "ab", n_output=2))),
        mars.fetch(mars.execute(mr.spawn(lambda: generate(2), n_output=2))),
        [mars.fetch(mars.execute(mr.spawn(lambda: {"k": 1}.items(), n_output=1)))],
        mars.fetch(mars.execute(mr.spawn(bytes, b"xy", n_output=2))),
    ]


@ends([("TypeError", "Specifying n_output=2, but result is not iterable, got 5"),
       ("ValueError", "Length of return value should be 2, got 3"),
       ("ValueError", "Length of return value should be 2, got 0")])  # fmt: skip
def results_of_the_wrong_length(folder: Path) -> object:
    values: list[Any] = [5, (1, 2, 3), []]
    return [why(lambda v=v: mr.spawn(lambda: v, n_output=2)[0].execute()) for v in values]


@ends(("KeyError", "KeyError", ["error"]))
def a_generator_that_fails_on_the_way(folder: Path) -> object:
    def generate() -> Iterator[int]:
        yield 1
        raise KeyError("on the way")

    one, two = mr.spawn(generate, n_output=2)
    kind = told(lambda: one.execute())
    return kind, told(two.fetch), endings(two)


@ends((3, "NotExecuted", 4, 1))
def one_of_two_outputs(folder: Path) -> object:
    def act() -> tuple[int, int]:
        with (folder / "runs").open("a") as file:
            file.write("x")
        return 3, 4

    one, two = mr.spawn(act, n_output=2)
    value = one.execute().fetch()
    again = mr.spawn(abs, (two,))
    before = told(again.fetch)
    return value, before, again.execute().fetch(), (folder / "runs").stat().st_size


# -- values --------------------------------------------------------------------------------------


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


@ends(["Point", "Pair", "Counter", "defaultdict", "deque", "set", "OrderedDict", "NoneType"])
def kinds_of_values_there_and_back(folder: Path) -> object:
    values: list[Any] = [
        Point(1, 2), Pair(1, 2), collections.Counter("aab"), collections.defaultdict(list, a=[1]),
        collections.deque([1]), {1, 2}, collections.OrderedDict(a=1), None,
    ]  # fmt: skip
    back = mr.map(lambda value: value, values).to_object()
    assert back == values
    return [type(value).__name__ for value in back]


@ends([[2, 4], {"k": 2}, "Point(x=2, y=4)", "Pair(left=[2], right={4: 2})"])
def objects_anywhere_in_arguments(folder: Path) -> object:
    two, four = mr.spawn(abs, -2), mr.spawn(abs, -4)
    arguments: list[Any] = [[two, four], {"k": two}, Point(two, four), Pair([two], {four: two})]
    values = [mr.spawn(lambda x: x, args=(one,)).execute().fetch() for one in arguments]
    return [*values[:2], *map(repr, values[2:])]


@ends(([1], [1, 9], [1]))
def a_value_is_fresh_at_each_fetch(folder: Path) -> object:
    call = mr.spawn(list, ((1,),)).execute()
    first = call.fetch()
    first.append(9)
    return call.fetch(), first, call.fetch()


@ends((True, True, False))
def identity_inside_a_call(folder: Path) -> object:
    one: list[int] = []
    source = mr.spawn(list)
    return (
        mr.spawn(lambda a, b: a is b, (one, one)).to_object(),
        mr.spawn(lambda a, b: a == b, (source, source)).to_object(),
        mr.spawn(lambda a, b: a is b, (one, [])).to_object(),
    )


@ends([5, 6, 7, 8])
def callables_of_all_kinds(folder: Path) -> object:
    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            return x + self.n

        def method(self, x: int) -> int:
            return x + self.n

    functions = [functools.partial(operator.add, 4), Adder(5), Adder(6).method, lambda x: x + 7]
    return [mr.spawn(function, 1).to_object() for function in functions]


# -- maps ----------------------------------------------------------------------------------------


@ends([[0, 1, 16, 81], [0, 1, 4, 9], 98])
def a_map_of_a_map_and_its_sum(folder: Path) -> object:
    first = mr.map(lambda x: x * x, range(4))
    second = mr.map(lambda x: x * x, first)
    return mars.fetch(mars.execute(second, first, mr.spawn(sum, (second,))))


@ends([["DependencyFailed", "no error", "no error"], ["no error", "ZeroDivisionError", "no error"]])
def a_map_of_a_map_with_a_failure(folder: Path) -> object:
    first = mr.map(lambda x: 6 // x, [2, 0, 1])
    second = mr.map(lambda x: x + 1, [first[1], first[0], first[2]])
    mars.execute(first, second, on_error="continue")
    return [[kind_of(error) for error in mapped.errors()] for mapped in (second, first)]


@ends(([["value"], ["error"], ["value"]], [0, 1, 2], "value"))
def a_map_that_is_executed_again_after_a_failure(folder: Path) -> object:
    def act(i: int) -> int:
        if i == 1 and not (folder / "fixed").exists():
            raise ValueError(i)
        return i

    mapped = mr.map(act, range(3))
    mapped.execute(on_error="continue")
    before = [endings(item) for item in mapped]
    (folder / "fixed").touch()
    return before, mapped.execute().fetch(), endings(mapped[1])[-1]


@ends(([0, 1, 4, 9, 16], 16, ["item 3\n"]))
def items_executed_alone_and_together(folder: Path) -> object:
    def act(x: int) -> int:
        print("item", x)
        return x * x

    mapped = mr.map(act, range(5))
    alone = mapped[4].execute().fetch()
    return mapped.execute().fetch(), alone, [str(mapped[3].fetch_log())]


@ends(["ValueError", "NotExecuted", "ValueError"])
def a_map_that_stops_at_its_first_failure(folder: Path) -> object:
    def act(i: int) -> int:
        if i == 0:
            raise ValueError(i)
        time.sleep(0.3)
        return i

    mapped = mr.map(act, range(40), cpus=2)
    return [told(lambda: mapped.execute()), told(mapped[39].fetch), told(mapped.fetch)]


@ends([[], [], (), [[], ()]])
def empty_handles(folder: Path) -> object:
    empty, nothing = mr.map(abs, []), mr.ExecutableTuple([])
    together = mars.fetch(mars.execute(empty, nothing))
    return [empty.to_object(), empty.errors(), nothing.to_object(), together]


# -- calls of calls ------------------------------------------------------------------------------


@ends(55)
def calls_of_calls_three_deep(folder: Path) -> object:
    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        parts = [mr.spawn(fibonacci, n - i) for i in (1, 2)] if n > 7 else None
        if parts is None:
            a, b = 0, 1
            for _ in range(n):
                a, b = b, a + b
            return a
        return sum(mars.fetch(mars.execute(parts)))

    return mr.spawn(fibonacci, 10).execute().fetch()


@ends(("LookupError", ["task inner()", "task outer()"]))
def the_error_of_a_call_of_a_call(folder: Path) -> object:
    def inner() -> None:
        raise LookupError("deep")

    def outer() -> None:
        mr.spawn(inner).execute()

    try:
        mr.spawn(outer).execute()
    except LookupError as error:
        return "LookupError", [note.partition(" ·")[0] for note in error.__notes__]
    return None


@ends([["ValueError", "DependencyFailed", None, "NotExecuted"], ["ValueError"]])
def states_of_calls_in_a_call(folder: Path) -> object:
    def outer() -> list[Any]:
        bad, good, idle = mr.spawn(fail), mr.spawn(abs, -1), mr.spawn(abs, -2)
        after = mr.spawn(str, (bad,))
        mars.execute(bad, after, good, on_error="continue")
        states = [told(call.fetch) for call in (bad, after, good, idle)]
        again = told(lambda: after.execute())
        return [[None if state == 1 else state for state in states], [again]]

    return mr.spawn(outer).execute().fetch()


@ends((1, [1, 2], 3, "two\n", ["value"]))
def everything_works_in_a_call(folder: Path) -> object:
    def outer() -> object:
        mapped = mr.map(abs, [-1, -2])
        one, two = mr.spawn(lambda: (3, print("two")), n_output=2)
        tuple_ = mr.ExecutableTuple([one, two]).execute()
        assert tuple_.fetch() == [3, None]
        run = mr.spawn(abs, -1).execute(wait=False)
        return (
            run.result(20).fetch(), mapped.to_object(), one.fetch(), str(two.fetch_log()),
            [attempt.ending for attempt in one.attempts()],
        )  # fmt: skip

    return mr.spawn(outer).execute().fetch()


@ends(([1, 1], True))
def random_numbers_in_calls_of_calls(folder: Path) -> object:
    def draw() -> float:
        return float(mr.rng().random())

    def outer() -> list[float]:
        return mars.fetch(mars.execute([mr.spawn(draw) for _ in range(2)]))  # type: ignore[no-any-return]

    calls = [mr.spawn(outer), mr.spawn(outer)]
    mars.execute(calls, seed=5)
    first, second = mars.fetch(calls)
    again = mr.spawn(outer).execute(seed=5).fetch()
    return [len({first[0]}), len({second[1]})], len({*first, *second}) == 4 and again == first


@ends(["session", "worker", True, None])
def the_context_of_a_call(folder: Path) -> object:
    here = mars.session.get_default_session()
    assert here is not None

    def look() -> tuple[str, bool, bool]:
        context = mars.get_context()
        context.set_progress(0.5)
        worker = context.worker_address in context.get_worker_addresses()
        return context.session_id, worker, mars.session.get_default_session() is not None

    session_id, worker, has_session = mr.spawn(look).execute().fetch()
    return [
        "session" if session_id == here.session_id else session_id,
        "worker" if worker else "?", has_session, mars.get_context(),
    ]  # fmt: skip


@ends((5, 7, "KeyError"))
def shared_objects(folder: Path) -> object:
    def make() -> int:
        return int(mars.get_context().create_remote_object("shared", Tally, 4).add(1))

    def use() -> int:
        return int(mars.get_context().get_remote_object("shared").add(2))

    made, used = mr.spawn(make).execute().fetch(), mr.spawn(use).execute().fetch()
    mars.session.get_default_session().destroy_remote_object("shared")  # type: ignore[union-attr]
    return made, used, told(lambda: mr.spawn(use).execute())


class Tally:
    def __init__(self, count: int) -> None:
        self.count = count

    def add(self, n: int) -> int:
        self.count += n
        return self.count


@ends(("child done", 7))
def coroutines_and_threads_in_a_call(folder: Path) -> object:
    def act() -> tuple[str, int]:
        import threading

        said = []
        thread = threading.Thread(target=lambda: said.append("child done"))
        thread.start()
        thread.join()

        async def main() -> int:
            call = await mr.spawn(abs, -7).execute(wait=False)
            return int(call.fetch())

        return said[0], asyncio.run(main())

    return mr.spawn(act).execute().fetch()


@ends((["RANK 0", "RANK 1"], "ZeroDivisionError", {"status": "ok"}))
def scripts(folder: Path) -> object:
    script = folder / "script.py"
    script.write_text("import os\nprint('RANK', os.environ['RANK'])\n1 / value\n")
    status = mr.run_script(script, data={"value": 1}, n_workers=2)
    log = str(status.fetch_log()).splitlines()
    return log, told(lambda: mr.run_script(script, data={"value": 0})), status.fetch()


@ends((1.0, True, ["stopped", "stopped"], ["no error", "TaskTimeout"]))
def runs_of_calls_in_a_call(folder: Path) -> object:
    def outer() -> object:
        run = mars.execute(mr.spawn(fail), mr.spawn(abs, -1), wait=False, on_error="continue")
        run.exception(20)
        slow = mr.spawn(time.sleep, 60, timeout=0.2, retries=1)
        told(lambda: slow.execute())
        mapped = mr.map(time.sleep, [0, 60], timeout=0.3).execute(on_error="continue")
        return run.progress(), run.done(), endings(slow), [kind_of(one) for one in mapped.errors()]

    return mr.spawn(outer).execute().fetch()


@ends((6, ["item 1\n", "item 2\n"], [True, False]))
def items_of_maps_in_a_call(folder: Path) -> object:
    def say(i: int) -> int:
        print("item", i)
        return i

    def odd(i: int) -> bool:
        (folder / f"{i}-{time.monotonic_ns()}").touch()
        if i and len([*folder.glob("1-*")]) < 2:
            raise ValueError(i)
        return i == 0

    def outer() -> object:
        said = mr.map(say, [1, 2]).execute()
        total = mr.spawn(lambda one, rest: one + sum(rest), (said[0], [said[1], 3])).to_object()
        failing = mr.map(odd, [0, 1])
        failing.execute(on_error="continue")  # else the failure may end the run before the other
        again = failing.execute().fetch()  # only what failed runs again
        return total, [str(item.fetch_log()) for item in said], again

    result = mr.spawn(outer).execute().fetch()
    return result if len([*folder.glob("0-*")]) == 1 else "a finished item has run again"


@ends((True, False))
def options_set_in_a_call(folder: Path) -> object:
    """They are the call's: neither the program nor another call sees them."""

    def change() -> bool:
        mars.options.show_progress = not mars.options.show_progress
        return True

    before = mars.options.show_progress
    return mr.spawn(change).execute().fetch(), mars.options.show_progress != before


@ends(([1], [[1], [2]]))
def what_a_shared_object_gives_and_takes_is_copied(folder: Path) -> object:
    def act() -> list[int]:
        box = mars.get_context().create_remote_object("box", Box)
        given = [1]
        box.put(given)
        given.append(2)
        box.all()[0].append(3)
        box.put([2])
        return list(box.all()[0])

    def look() -> list[list[int]]:
        return list(mars.get_context().get_remote_object("box").all())

    first, everything = mr.spawn(act).execute().fetch(), mr.spawn(look).execute().fetch()
    mars.session.get_default_session().destroy_remote_object("box")  # type: ignore[union-attr]
    return first, everything


class Box:
    def __init__(self) -> None:
        self.lists: list[list[int]] = []

    def put(self, one: list[int]) -> None:
        self.lists.append(one)

    def all(self) -> list[list[int]]:
        return self.lists


@ends((([5, 5], 2), (25, [25])))
def items_that_ran_as_inputs(folder: Path) -> object:
    def square(i: int) -> int:
        (folder / f"{i}-{time.monotonic_ns()}").touch()
        return i * i

    mapped = mr.map(square, [5, 5])
    after = mr.spawn(str, (mapped[0],)).execute()
    assert after.fetch() == "25"
    mapped.execute()
    return ([5, 5], len([*folder.iterdir()])), (mapped[0].fetch(), [mapped[1].fetch()])


# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "outcome"), PROGRAMS)
def test_a_program_ends_alike_on_every_engine(
    program: Program, outcome: object, tmp_path: Path
) -> None:
    assert program(tmp_path) == outcome


def test_the_table_is_long_enough_to_be_one() -> None:
    assert len(PROGRAMS) >= 60
