"""Exceptions travel with type, message, frames, chain and notes, however odd they are."""

from __future__ import annotations

import copyreg
import importlib
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.attempt import failure
from mars.attempt.failure import decode_failure, encode_failure
from mars.errors import EncodeError, InternalError, TaskTimeout, WorkerDied
from mars.settings import ERROR_MESSAGE_CHARS

# These modules are imported under a name that pickle cannot find again in some runs of pytest;
# a real program's module is importable.
sys.modules.setdefault(__name__, sys.modules.get(__name__, type(sys)(__name__)))


def travelled(error: BaseException, *notes: str) -> BaseException:
    return decode_failure(encode_failure(error, call="f(1)", notes=notes))


def raised(raiser: Callable[[], object]) -> BaseException:
    try:
        raiser()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing raised")


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class Plain(Exception):
    pass


class NeedsTwo(Exception):
    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"code {code} in {where}")
        self.code, self.where = code, where


class MessageOfItsOwn(Exception):
    def __init__(self, code: object) -> None:
        super().__init__(f"error {code}")


class WithLock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()
        self.kept = [1, 2]


class LockInDict(ValueError):
    def __init__(self, text: str) -> None:
        super().__init__(text, {"model": [threading.Lock()]})


class NoReduce(KeyError):
    def __reduce__(self) -> str:
        raise RuntimeError("no")


class LyingReduce(LookupError):
    def __reduce__(self) -> tuple[object, ...]:
        return int, (5,)


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class QuitsInReduce(Exception):
    def __reduce__(self) -> str:
        raise SystemExit(3)


class NewNeedsArguments(Exception):
    def __new__(cls, one: object, *, two: object) -> NewNeedsArguments:
        return super().__new__(cls, one, two)

    def __init__(self, one: object, *, two: object) -> None:
        super().__init__(one)


class Slotted(Exception):
    __slots__ = ("__hidden", "code")

    def __init__(self, code: int) -> None:
        self.code, self.__hidden = code, code + 1

    def __str__(self) -> str:
        return f"{self.code} {self.__hidden}"


class Sealed(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("sealed")


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class OddMeta(Exception, metaclass=Meta):
    pass


class OwnTraceback(Exception):
    __traceback__ = property(lambda self: 1 / 0)  # type: ignore[assignment]
    __cause__ = 5  # type: ignore[assignment]


class BadNotes(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise RuntimeError("no notes")


class Group(ExceptionGroup[Exception]):
    def derive(self, excs: object) -> Group:  # type: ignore[override]
        return Group(self.message, excs)  # type: ignore[arg-type,return-value]


SAME: list[BaseException] = [
    Plain("a", 2),
    Plain(),
    NeedsTwo(4, "here"),
    MessageOfItsOwn(5),
    WithLock("text"),
    NewNeedsArguments(1, two=2),
    Slotted(3),
    Sealed("s"),
    ValueError("é 漢字 \ud800"),
    KeyError("k"),
    OSError(2, "No such file", "name.csv"),
    FileNotFoundError(2, "No such file", "name.csv"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    SyntaxError("bad", ("f.py", 3, 4, "x = = 2")),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(5),
    ImportError("no", name="numpy"),
    EncodeError("f(…)", "args[0]: _thread.lock", "cannot"),
    TaskTimeout("f(…)", 1.5),
    WorkerDied("f(…)", "w1 pid 5", "SIGKILL"),
    InternalError("oh"),
    BadNotes("x"),
    NoReduce("k"),
    QuitsInReduce("q"),
    LyingReduce("l"),
]


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
def test_type_message_arguments_and_attributes_survive(error: BaseException) -> None:
    copy = travelled(error)
    assert copy is not error
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.args == error.args
    state = {k: v for k, v in vars(error).items() if k not in ("lock", "__notes__")}
    assert {k: v for k, v in vars(copy).items() if k != "__notes__"} == state


def test_fields_of_builtin_errors_survive() -> None:
    copy = travelled(OSError(2, "No such file", "name.csv"))
    assert isinstance(copy, FileNotFoundError)
    assert (copy.errno, copy.filename) == (2, "name.csv")
    copy = travelled(SystemExit(3))
    assert isinstance(copy, SystemExit)
    assert copy.code == 3


def test_reducers_that_others_register_for_exceptions_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask has tblib register its own, which forget the code."""
    monkeypatch.setitem(copyreg.dispatch_table, SystemExit, lambda error: (SystemExit, ()))
    assert travelled(SystemExit(3)).code == 3


def test_an_attribute_that_does_not_pickle_is_named_and_the_type_kept() -> None:
    copy = travelled(WithLock("text"))
    assert isinstance(copy, WithLock)
    assert copy.kept == [1, 2]
    assert not hasattr(copy, "lock")
    assert any("exception.lock: _thread.lock" in note for note in copy.__notes__)
    copy = travelled(LockInDict("text"))
    assert isinstance(copy, LockInDict)
    assert copy.args[0] == "text"
    assert any("exception.args[1]['model'][0]: _thread.lock" in note for note in copy.__notes__)


def test_what_cannot_be_rebuilt_comes_as_a_stand_in_of_the_nearest_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own_errors.py").write_text(
        "class NeedsTwo(Exception):\n"
        "    def __init__(self, code, where):\n"
        "        super().__init__(f'code {code} in {where}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module("own_errors")
    original = own.NeedsTwo
    data = encode_failure(raised(lambda: _raise(original(1, "x"))), call="f(1)")
    monkeypatch.delattr(own, "NeedsTwo")
    copy = decode_failure(data)
    assert type(copy) is not original
    assert isinstance(copy, Exception)
    assert type(copy).__name__ == "NeedsTwo"
    assert str(copy) == "code 1 in x"
    assert "_raise" in shown(copy)
    assert "NeedsTwo: code 1 in x" in shown(copy)
    again = travelled(copy)  # through a second task
    assert str(again) == "code 1 in x"
    assert type(again).__name__ == "NeedsTwo"


def _raise(error: BaseException) -> None:
    raise error


def test_a_stand_in_is_an_instance_of_its_base_class() -> None:
    class Odd(LookupError):
        def __reduce__(self) -> str:
            raise RuntimeError("no")

        def __str__(self) -> str:
            return f"odd {self.lock.locked()}"  # type: ignore[attr-defined]

    error = Odd()
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    copy = travelled(error)
    assert isinstance(copy, LookupError)
    assert type(copy).__name__ == "Odd"
    assert str(copy) == "odd False"
    assert any("could not travel" in note for note in copy.__notes__)


@pytest.mark.parametrize(
    "error", [BadStr("x"), OddMeta("x"), OwnTraceback("x")], ids=["str", "meta", "traceback"]
)
def test_hostile_exceptions_still_arrive(error: BaseException) -> None:
    copy = travelled(error)
    assert isinstance(copy, Exception)
    assert any("task f(1)" in note for note in copy.__notes__)


def test_class_of_main_is_the_drivers_own_again() -> None:
    program = """
import pickle, subprocess, sys
import cloudpickle
from mars.attempt.failure import decode_failure

class Mine(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a}-{b}")
        self.a = a

def work():
    raise Mine(1, b=2)

WORKER = '''
import pickle, sys
from mars.attempt.failure import encode_failure
try:
    pickle.loads(sys.stdin.buffer.read())()
except BaseException as error:
    sys.stdout.buffer.write(encode_failure(error, call="work()"))
'''
done = subprocess.run([sys.executable, "-c", WORKER], input=cloudpickle.dumps(work),
                      capture_output=True, check=True)
error = decode_failure(done.stdout)
assert type(error) is Mine, type(error)
assert str(error) == "1-2" and error.a == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# -- frames -----------------------------------------------------------------------------------


def divide(a: int, b: int) -> float:
    return 1 + a / b


def outer() -> None:
    divide(1, 0)


def test_remote_frames_are_shown_once_and_as_python_shows_them() -> None:
    error = raised(outer)
    copy = travelled(error)
    text = shown(copy)
    assert text.startswith(shown(error).rstrip("\n"))  # lines, columns, message: all the same
    assert text.count("in divide") == 1
    assert "return 1 + a / b" in text
    assert "~~^~~" in text


def test_frames_of_mars_and_of_skipped_files_are_left_out() -> None:
    error = raised(lambda: failure._rebuilt(Plain, (), None))  # type: ignore[arg-type]
    assert "failure.py" in shown(error)
    assert "failure.py" not in shown(travelled(error)).replace("test_failure.py", "")
    skipped = decode_failure(encode_failure(raised(outer), call="f()", skip_files=[__file__]))
    assert skipped.__traceback__ is None


def test_frames_of_mars_stay_in_a_bug_of_mars() -> None:
    def buggy() -> None:
        try:
            failure._rebuilt(Plain, (), None)  # type: ignore[arg-type]
        except AttributeError as error:
            raise InternalError("bug") from error

    text = shown(travelled(raised(buggy)))
    assert "_rebuilt" in text


def test_raising_the_copy_adds_the_drivers_frames_above() -> None:
    def fetch() -> None:
        raise travelled(raised(outer))

    text = shown(raised(fetch))
    assert text.index("in fetch") < text.index("in outer") < text.index("in divide")


def test_deep_recursion_keeps_head_and_tail() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1 if n % 2 else deeper(n + 1)

    data = encode_failure(raised(lambda: deeper(0)), call="f()")
    assert len(data) < 64 * 1024
    copy = decode_failure(data)
    assert isinstance(copy, RecursionError)
    frames = traceback.extract_tb(copy.__traceback__)
    assert len(frames) == failure.ERROR_FRAMES_HEAD + 1 + failure.ERROR_FRAMES_TAIL
    assert "frames left out" in shown(copy)


def test_source_lines_travel_where_the_driver_has_no_file(
    tmp_path: pytest.TempPathFactory,
) -> None:
    file = tmp_path / "gone.py"  # type: ignore[operator]
    file.write_text("\n\ndef gone():\n    raise ValueError('x')  # marked\n")
    space: dict[str, Callable[[], None]] = {}
    exec(compile(file.read_text(), str(file), "exec"), space)  # noqa: S102
    data = encode_failure(raised(space["gone"]), call="f()")
    import linecache

    file.unlink()
    linecache.clearcache()
    assert "# marked" in shown(decode_failure(data))


@pytest.mark.parametrize("lines", [0, 1, 31, 32, 5_000])
def test_frames_know_where_their_function_begins(lines: int) -> None:
    """Notebooks show the text from there on, and count the lines from there."""
    text = "\n\ndef late():\n" + "    x = 1\n" * lines + "    raise ValueError('x')\n"
    space: dict[str, Callable[[], None]] = {}
    exec(compile(text, "late.py", "exec"), space)  # noqa: S102
    error = raised(space["late"])

    def places(one: BaseException) -> list[tuple[object, ...]]:
        last = one.__traceback__
        assert last is not None
        while last.tb_next is not None:
            last = last.tb_next
        code = last.tb_frame.f_code
        position = list(code.co_positions())[last.tb_lasti // 2]
        return [code.co_firstlineno, last.tb_lineno, *position]

    assert places(travelled(error)) == places(error)


# -- chain, groups, notes ---------------------------------------------------------------------


def chained() -> None:
    try:
        try:
            outer()
        except ZeroDivisionError as error:
            raise Plain("middle") from error
    except Plain:
        raise WithLock("last")  # noqa: B904


def test_causes_and_contexts_keep_type_and_frames() -> None:
    error = raised(chained)
    copy = travelled(error)
    assert isinstance(copy, WithLock)
    assert isinstance(copy.__context__, Plain)
    assert isinstance(copy.__context__.__cause__, ZeroDivisionError)
    text = shown(copy)
    assert "in divide" in text
    assert "direct cause" in text
    assert "During handling" in text


def test_suppressed_context_stays_suppressed() -> None:
    def quiet() -> None:
        try:
            outer()
        except ZeroDivisionError:
            raise Plain("quiet") from None

    copy = travelled(raised(quiet))
    assert copy.__suppress_context__
    assert isinstance(copy.__context__, ZeroDivisionError)
    assert "ZeroDivisionError" not in shown(copy)


def test_a_ring_of_contexts_arrives_as_a_ring() -> None:
    one, two = Plain("one"), Plain("two")
    one.__context__, two.__context__ = two, one
    copy = travelled(one)
    assert copy.__context__ is not None
    assert copy.__context__.__context__ is copy


def test_an_endless_chain_is_cut() -> None:
    error: BaseException = Plain("0")
    for n in range(1, 5_000):
        after = Plain(str(n))
        after.__cause__ = error
        error = after
    data = encode_failure(error, call="f()")
    assert len(data) < 64 * 1024
    assert str(decode_failure(data)) == "4999"


def test_groups_keep_members_with_their_frames() -> None:
    def several() -> None:
        raise ExceptionGroup("both", [raised(outer), raised(chained), Plain("c")])  # type: ignore[list-item]

    copy = travelled(raised(several))
    assert isinstance(copy, ExceptionGroup)
    assert [type(member) for member in copy.exceptions] == [ZeroDivisionError, WithLock, Plain]
    assert copy.exceptions[0].__traceback__ is not None
    assert copy.exceptions[1].__context__ is not None
    assert "in divide" in shown(copy)


def test_a_member_that_cannot_travel_does_not_cost_the_others() -> None:
    class Local(Exception):
        def __reduce__(self) -> str:
            raise RuntimeError("no")

        def __str__(self) -> str:
            return f"local {self.lock.locked()}"  # type: ignore[attr-defined]

    local = Local()
    local.lock = threading.Lock()  # type: ignore[attr-defined]
    copy = travelled(Group("some", [KeyError("k"), local]))
    assert isinstance(copy, ExceptionGroup)
    assert isinstance(copy.exceptions[0], KeyError)
    assert str(copy.exceptions[1]) == "local False"


def test_notes_of_the_user_come_first_and_ours_say_the_task() -> None:
    error = Plain("x")
    error.add_note("mine")
    copy = travelled(error, "attempt 2 · worker w1", "log tail:\n  epoch 3")
    assert copy.__notes__ == [
        "mine",
        "task f(1) · attempt 2 · worker w1",
        "log tail:\n  epoch 3",
    ]
    assert error.__notes__ == ["mine"]
    assert travelled(copy).__notes__[-1] == "task f(1)"  # a nested call adds its own


# -- size -------------------------------------------------------------------------------------


def test_huge_messages_are_cut_in_the_middle() -> None:
    text = "a" * (3 * ERROR_MESSAGE_CHARS) + "end"
    data = encode_failure(ValueError(text), call="f()")
    assert len(data) < 3 * ERROR_MESSAGE_CHARS
    copy = decode_failure(data)
    assert isinstance(copy, ValueError)
    assert "characters left out" in str(copy)
    assert str(copy).endswith("end")


def test_an_exception_with_lots_of_data_leaves_the_data_behind() -> None:
    error = NeedsTwo(1, "x")
    error.data = bytearray(50 * 1024 * 1024)  # type: ignore[attr-defined]
    data = encode_failure(error, call="f()")
    assert len(data) < 64 * 1024
    copy = decode_failure(data)
    assert isinstance(copy, NeedsTwo)
    assert any("larger than" in note for note in copy.__notes__)


# -- whatever comes ---------------------------------------------------------------------------


values = st.recursive(
    st.none() | st.text() | st.integers() | st.binary() | st.builds(threading.Lock),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
hooks = ["__reduce__", "__reduce_ex__", "__str__", "__repr__", "__setstate__", "__getstate__",
         "__eq__", "__hash__", "__init__", "__new__", "__getattribute__"]  # fmt: skip
answers = st.sampled_from(["raises", "quits", "nonsense", "none"])


def hook(answer: str) -> Callable[..., object]:
    def odd(*_args: object, **_kwargs: object) -> object:
        if answer == "raises":
            raise RuntimeError("odd")
        if answer == "quits":
            raise SystemExit
        return None if answer == "none" else "nonsense"

    return odd


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([Exception, ValueError, OSError, KeyError, BaseException, UnicodeError]),
    st.lists(values, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "__notes__", "args"]), values, max_size=3),
    st.dictionaries(st.sampled_from(hooks), answers, max_size=3),
    st.booleans(),
    st.none() | answers,
)
def test_no_exception_class_breaks_the_way_there_or_back(
    base: type[BaseException],
    args: list[object],
    attributes: dict[str, object],
    odd: dict[str, str],
    by_reference: bool,
    lies_about_class: str | None,
) -> None:
    body: dict[str, object] = {"__module__": __name__, "__qualname__": "Weird"}
    if lies_about_class is not None:
        body["__class__"] = property(hook(lies_about_class))
    cls = type("Weird", (base,), body)
    error = BaseException.__new__(cls, *args) if base is not OSError else OSError.__new__(cls)
    error.args = tuple(args)
    for name, value in attributes.items():
        try:
            setattr(error, name, value)
        except TypeError:
            pass
    for name, answer in odd.items():
        setattr(cls, name, hook(answer))
    if by_reference:
        globals()["Weird"] = cls
    try:
        copy = decode_failure(encode_failure(error, call="f()"))
    finally:
        globals().pop("Weird", None)
    assert issubclass(type(copy), base)
    # isinstance() would ask the class; the notes are what a reader needs at the least.
    notes = object.__getattribute__(copy, "__dict__").get("__notes__", [])
    assert notes[-1] == "task f()"


@given(st.binary())
def test_garbage_is_an_internal_error(data: bytes) -> None:
    assert isinstance(decode_failure(data), InternalError)


def test_copyreg_is_left_alone() -> None:
    before = dict(copyreg.dispatch_table)
    travelled(raised(chained))
    assert copyreg.dispatch_table == before


def test_importing_the_module_loads_nothing_heavy() -> None:
    program = (
        "import sys, mars.attempt.failure, mars.attempt.diagnose, mars.attempt.threads\n"
        "heavy = {'tblib', 'cloudpickle', 'threadpoolctl', 'numpy', 'inspect', 'dataclasses'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_sent_is_plain_data_around_the_exception() -> None:
    data = encode_failure(Plain("x"), call="f()")
    assert isinstance(pickle.loads(data), list)
