"""A program that is run again runs only what is missing, and sees what it would have seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mars
import mars.remote as mr
from mars.errors import CheckpointBusy, CheckpointUnusable


@pytest.fixture
def ran(tmp_path: Path, lines: Any) -> Any:
    """``ran.note(text)`` inside calls; ``ran()`` gives what was noted since the last time."""
    path = str(tmp_path / "ledger")

    class Ran:
        seen = 0

        @staticmethod
        def path() -> str:
            return path

        def __call__(self) -> list[str]:
            everything = lines(path)
            new, Ran.seen = everything[Ran.seen :], len(everything)
            return sorted(new)

    return Ran()


def sign(path: str, text: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def test_a_second_run_executes_nothing_and_has_the_same_values(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def load(index: int) -> Any:
        sign(path, f"load {index}")
        return np.arange(index * 50_000.0)

    def total(parts: list[Any], scale: int = 1) -> float:
        sign(path, "total")
        return float(sum(part.sum() for part in parts)) * scale

    def program() -> Any:
        parts = [mr.spawn(load, index) for index in range(3)]
        whole = mr.spawn(total, args=(parts,), kwargs={"scale": 2})
        whole.execute()
        parts[2].execute()
        return whole.fetch(), parts[2].fetch().tobytes()

    first = rerun(program)
    assert ran() == ["load 0", "load 1", "load 2", "total"]
    assert (rerun.session.checkpoint.executed, rerun.session.checkpoint.reused) == (4, 0)
    assert rerun(program) == first
    assert ran() == []
    assert (rerun.session.checkpoint.executed, rerun.session.checkpoint.reused) == (0, 4)
    assert rerun.session.checkpoint.saved_s > 0


def test_a_changed_argument_runs_again_with_all_that_depends_on_it_and_nothing_else(
    rerun: Any, ran: Any
) -> None:
    path = ran.path()

    def load(index: int) -> int:
        sign(path, f"load {index}")
        return index

    def add(one: int, two: int) -> int:
        sign(path, f"add {one} {two}")
        return one + two

    def program(last: int) -> Callable[[], int]:
        def run() -> int:
            parts = [mr.spawn(load, index) for index in (1, 2, 3, last)]
            left = mr.spawn(add, args=(parts[0], parts[1]))
            right = mr.spawn(add, args=(parts[2], parts[3]))
            return int(mr.spawn(add, args=(left, right)).execute().fetch())

        return run

    assert rerun(program(4)) == 10
    assert len(ran()) == 7
    assert rerun(program(5)) == 11
    assert ran() == ["add 3 5", "add 3 8", "load 5"]


def test_only_what_is_needed_is_read(rerun: Any, folder: Path) -> None:
    def large(index: int) -> Any:
        return np.full(100_000, index)

    def program() -> list[Any]:
        objects = mars.execute([mr.spawn(large, index) for index in range(3)])
        return [objects[1].fetch()[0]]

    assert rerun(program) == [1]
    files = sorted((folder / "results").rglob("*"))
    sizes = {file: file.read_bytes() for file in files if file.is_file()}
    assert len(sizes) == 3
    # The content of the others may be anything: nobody looks.
    for file, content in sizes.items():
        value = np.frombuffer(content[-800_000:], "i8")[0]
        if value != 1:
            file.write_bytes(bytes(len(content)))
    assert rerun(program) == [1]
    assert rerun.session.checkpoint.executed == 0


def test_a_damaged_large_result_runs_again_when_it_is_fetched_or_needed(
    rerun: Any, ran: Any, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = ran.path()

    def large(index: int) -> Any:
        sign(path, f"large {index}")
        return np.full(100_000, index)

    def first(array: Any, _: int) -> int:
        sign(path, "first")
        return int(array[0])

    def program(number: int) -> Callable[[], Any]:
        def run() -> Any:
            one, two = mr.spawn(large, 1), mr.spawn(large, 2)
            last = mr.spawn(first, args=(two, number))
            mars.execute(one, last)
            return one.fetch()[0], last.fetch()

        return run

    assert rerun(program(0)) == (1, 2)
    ran()
    for file in (folder / "results").rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            content[-5] ^= 4
            file.write_bytes(content)
    assert rerun(program(1)) == (1, 2)
    assert ran() == ["first", "large 1", "large 2"]
    assert "is damaged; the call runs again" in capfd.readouterr().err
    assert rerun(program(1)) == (1, 2)
    assert ran() == []


def test_a_future_of_a_damaged_result_and_a_new_one_gives_both_and_the_engine_works_on(
    rerun: Any, ran: Any, folder: Path, pass_gate: Any, tmp_path: Path
) -> None:
    path, gate = ran.path(), tmp_path / "gate"

    def large(index: int) -> Any:
        sign(path, f"large {index}")
        return np.full(100_000, index)

    def program() -> tuple[int, int]:
        # The kept result is looked at when the new one is there: whoever waits, or nobody.
        calls = [mr.spawn(large, 1), mr.spawn(pass_gate, args=(gate,)), mr.spawn(abs, -3)]
        future = mr.ExecutableTuple(calls).to_object(wait=False)
        called = threading.Event()
        future.add_done_callback(lambda _: called.set())
        gate.touch()
        assert called.wait(20)
        found = future.result(20)
        assert mr.spawn(abs, -7, cache=False).to_object() == 7  # type: ignore[call-arg]
        return found[0][0], found[2]

    assert rerun(lambda: mr.spawn(large, 1).execute().fetch()[0]) == 1
    ran()
    for file in (folder / "results").rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            content[-5] ^= 4
            file.write_bytes(content)
    assert rerun(program) == (1, 3)
    assert ran() == ["large 1"]


def test_the_log_and_the_times_of_a_reused_call_are_those_of_the_run_that_made_it(
    rerun: Any,
) -> None:
    def speak(index: int) -> int:
        print("line", index)
        os.write(2, b"from below\n")
        return index

    def program() -> tuple[str, float]:
        said = mr.spawn(speak, 7).execute()
        return str(said.fetch_log()), said.times().running_s

    text, seconds = rerun(program)
    assert text == "line 7\nfrom below\n"
    again, seconds_again = rerun(program)
    assert again == text
    assert seconds_again == pytest.approx(seconds, rel=1e-3, abs=1e-6)


def test_two_equal_calls_of_an_impure_function_stay_two(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def impure() -> bytes:
        sign(path, "impure")
        return os.urandom(8)

    def program(count: int) -> Callable[[], list[bytes]]:
        return lambda: [
            value.fetch() for value in mars.execute([mr.spawn(impure) for _ in range(count)])
        ]

    two = rerun(program(2))
    assert two[0] != two[1]
    assert rerun(program(2)) == two
    assert ran() == ["impure", "impure"]
    assert rerun(program(3))[:2] == two
    assert ran() == ["impure"]


def test_exceptions_are_not_kept_and_the_rest_is(rerun: Any, ran: Any, tmp_path: Path) -> None:
    path, gate = ran.path(), str(tmp_path / "mended")

    def maybe(index: int) -> int:
        sign(path, index)
        if index == 1 and not os.path.exists(gate):
            raise ValueError("not yet")
        return index

    def program() -> list[int]:
        objects = [mr.spawn(maybe, index) for index in range(3)]
        mars.execute(objects, on_error="continue")
        return [value.fetch() for value in objects]

    with pytest.raises(ValueError, match="not yet"):
        rerun(program)
    assert ran() == ["0", "1", "2"]
    Path(gate).touch()
    assert rerun(program) == [0, 1, 2]
    assert ran() == ["1"]


def test_cache_false_runs_each_time_and_so_does_what_needs_it(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def today() -> int:
        sign(path, "today")
        return 1

    def known() -> int:
        sign(path, "known")
        return 2

    def add(one: int, two: int) -> int:
        sign(path, "add")
        return one + two

    def program() -> Any:
        return mr.spawn(add, args=(mr.spawn(today, cache=False), mr.spawn(known))).execute().fetch()

    assert rerun(program) == 3
    assert ran() == ["add", "known", "today"]
    assert rerun(program) == 3
    assert ran() == ["add", "today"]
    with pytest.raises(TypeError, match="cache has to be True or False"):
        mr.spawn(today, cache="no")


def test_what_depends_declares_is_part_of_a_call(rerun: Any, ran: Any, tmp_path: Path) -> None:
    path, data = ran.path(), tmp_path / "data.csv"

    def read(name: str) -> str:
        sign(path, "read")
        return Path(name).read_text()

    def program() -> Any:
        return mr.spawn(read, str(data), depends=[data, "v1"]).execute().fetch()

    data.write_text("one")
    assert rerun(program) == "one"
    assert rerun(program) == "one"
    assert ran() == ["read"]
    data.write_text("two")
    assert rerun(program) == "two"
    assert ran() == ["read"]


def test_several_outputs_are_kept_each(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def split(value: int) -> tuple[int, Any, str]:
        sign(path, "split")
        return value, np.full(100_000, value), "text"

    def use(array: Any, _: int) -> float:
        return float(array.sum())

    def program(salt: int) -> Callable[[], Any]:
        def run() -> Any:
            one, two, three = mr.spawn(split, 3, n_output=3)
            total = mr.spawn(use, args=(two, salt))
            mars.execute(one, three, total)
            return one.fetch(), three.fetch(), total.fetch()

        return run

    assert rerun(program(0)) == (3, "text", 300_000.0)
    assert rerun(program(1)) == (3, "text", 300_000.0)
    assert ran() == ["split"]


def test_items_of_a_map_are_kept_one_by_one(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def square(item: int) -> int:
        sign(path, item)
        if item < 0:
            raise ValueError(item)
        print("item", item)
        return item * item

    def program(items: list[int]) -> Callable[[], Any]:
        def run() -> Any:
            squares = mr.map(square, items).execute(on_error="continue")
            values = [None if item < 0 else square.fetch() for item, square in zip(items, squares)]  # noqa: B905
            return values, str(squares[0].fetch_log())

        return run

    first = rerun(program([*range(20), -1]))
    assert first == ([*(i * i for i in range(20)), None], "item 0\n")
    assert len(ran()) == 21
    assert rerun(program([*range(20), -1])) == first
    assert ran() == ["-1"]
    values, _ = rerun(program([50, *range(19, -1, -1)]))
    assert values == [2500, *(i * i for i in range(19, -1, -1))]
    assert ran() == ["50"]


def test_an_item_is_the_same_call_whether_it_is_indexed_before_or_not(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def square(item: int) -> int:
        sign(path, item)
        return item * item

    def one() -> Any:
        return mr.map(square, range(6))[4].execute().fetch()

    def everything() -> Any:
        return mr.map(square, range(6)).execute().fetch()

    assert rerun(one) == 16
    assert rerun(everything) == [0, 1, 4, 9, 16, 25]
    assert ran() == ["0", "1", "2", "3", "4", "5"]
    assert rerun(one) == 16
    assert rerun(everything) == [0, 1, 4, 9, 16, 25]
    assert ran() == []


def test_random_numbers_are_those_of_an_undisturbed_run(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def draw(index: int) -> float:
        sign(path, index)
        return float(mr.rng().random())

    def program(indices: list[int], seed: int = 0) -> Callable[[], Any]:
        return lambda: [
            value.fetch() for value in mars.execute([mr.spawn(draw, index) for index in indices])
        ]

    undisturbed = rerun(program([1, 2, 3, 4]), checkpoint=False)
    ran()
    assert rerun(program([1, 2])) == undisturbed[:2]
    assert rerun(program([1, 2, 3, 4])) == undisturbed
    assert ran() == ["1", "2", "3", "4"]
    # At another place, or with another seed, the digits are others, so the call is another.
    assert rerun(program([9, 1])) == rerun(program([9, 1]), checkpoint=False)
    assert rerun(program([1, 2]), seed=5) == rerun(program([1, 2]), seed=5, checkpoint=False)
    assert rerun(program([1, 2]), seed=5) != undisturbed[:2]


def test_calls_of_calls_are_kept_with_the_call_that_asks(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def inner(index: int) -> int:
        sign(path, f"inner {index}")
        return index + 1

    def outer(count: int) -> int:
        sign(path, "outer")
        return sum(mars.fetch(mars.execute([mr.spawn(inner, i) for i in range(count)])))

    def program() -> Any:
        return mr.spawn(outer, 2).execute().fetch()

    assert rerun(program) == 3
    assert ran() == ["inner 0", "inner 1", "outer"]
    assert rerun(program) == 3
    assert ran() == []


def test_a_class_of_the_program_is_the_same_class_after_a_rerun(
    run_python: Any, tmp_path: Path
) -> None:
    code = f"""
import mars, mars.remote as mr
from dataclasses import dataclass
from enum import Enum

class Kind(Enum):
    SMALL = 1

@dataclass
class Model:
    weight: float
    kind: Kind

def fit(weight):
    open({str(tmp_path / "ledger")!r}, "a").write("fit\\n")
    return Model(weight, Kind.SMALL)

def judge(model, salt):
    return isinstance(model, Model) and model.kind is Kind.SMALL

import sys
with mars.new_session(n_cpu=1, checkpoint={str(tmp_path / "otto")!r}):
    model = mr.spawn(fit, 2.0)
    verdict = mr.spawn(judge, (model, len(sys.argv))).execute()
    model.execute()
    print(verdict.fetch(), isinstance(model.fetch(), Model), model.fetch().kind is Kind.SMALL)
"""
    for arguments in ([], ["again"]):
        done = run_python(code, *arguments)
        assert done.stdout == "True True True\n", done.stderr
    assert (tmp_path / "ledger").read_text() == "fit\n"


def test_an_argument_without_lasting_content_is_told_once_and_not_kept(
    rerun: Any, ran: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = ran.path()

    class Connection:
        def __init__(self, opened: bool = False) -> None:
            self.opened = opened

        def __reduce__(self) -> Any:
            if self.opened:
                raise TypeError("it is open")
            return type(self), (True,)

    def use(connection: Any, index: int) -> int:
        sign(path, index)
        return index

    def program() -> Any:
        return mars.fetch(mars.execute([mr.spawn(use, (Connection(), i)) for i in range(3)]))

    assert rerun(program) == [0, 1, 2]
    told = capfd.readouterr().err
    assert told.count("calls of use are not kept in the checkpoint: args[0]: ") == 1
    assert "cache=False" in told
    assert rerun(program) == [0, 1, 2]
    assert len(ran()) == 6


def test_one_execute_may_have_a_checkpoint_of_its_own_or_none(
    rerun: Any, ran: Any, tmp_path: Path
) -> None:
    path = ran.path()

    def work(index: int) -> int:
        sign(path, index)
        return index

    def program() -> Any:
        one = mr.spawn(work, 1).execute(checkpoint=tmp_path / "hans")
        two = mr.spawn(work, 2).execute(checkpoint=False)
        three = mr.map(work, [3]).execute()
        return one.fetch(), two.fetch(), three.fetch()

    for expected in (["1", "2", "3"], ["2"]):
        assert rerun(program) == (1, 2, [3])
        assert ran() == expected


def test_the_environment_names_the_checkpoint_of_a_program(
    run_python: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script_environment: Any
) -> None:
    code = """
import mars, mars.remote as mr
mars.new_session(n_cpu=1)
print(mr.spawn(print, "hello").execute().fetch_log(), end="")
print(mars.session.get_default_session().checkpoint.reused)
"""
    monkeypatch.setitem(script_environment, "MARS_CHECKPOINT", str(tmp_path / "otto"))
    try:
        assert run_python(code).stdout == "hello\n0\n"
        assert run_python(code).stdout == "hello\n1\n"
    finally:
        script_environment.pop("MARS_CHECKPOINT", None)


def test_a_moved_folder_goes_on_where_it_is(rerun: Any, ran: Any, folder: Path) -> None:
    path = ran.path()

    def large(index: int) -> Any:
        sign(path, index)
        return np.full(100_000, index)

    def program() -> Any:
        return mars.execute(mr.spawn(large, 1)).fetch()[0]

    assert rerun(program) == 1
    moved = folder.with_name("elsewhere")
    folder.rename(moved)
    assert rerun(program, checkpoint=moved) == 1
    assert ran() == ["1"]


def test_cells_of_a_notebook_find_what_earlier_cells_of_another_kernel_made(
    run_python: Any, tmp_path: Path
) -> None:
    code = f"""
import linecache, sys
import mars, mars.remote as mr
shift = int(sys.argv[1])
space = {{"__name__": "__main__"}}
def cell(number, text):
    name = f"<ipython-input-{{number + shift}}-abc>"
    text = "\\n" * shift + text  # the same cell, edited above, run as another one
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), space)
cell(1, "import mars, mars.remote as mr\\nLIMIT = 3\\ndef helper(x):\\n    return x * LIMIT\\n")
cell(2, '''def fit(x):
    open({str(tmp_path / "ledger")!r}, "a").write("fit\\\\n")
    return helper(x)
''')
with mars.new_session(n_cpu=1, checkpoint={str(tmp_path / "otto")!r}):
    cell(3, "print(mr.spawn(fit, 2).execute().fetch())")
"""
    for shift in ("0", "7"):
        done = run_python(code, shift)
        assert done.stdout == "6\n", done.stderr
    assert (tmp_path / "ledger").read_text() == "fit\n"


def test_a_second_program_on_the_folder_is_refused_and_told_who_is_there(
    rerun: Any, folder: Path, script_environment: Any
) -> None:
    def program() -> Any:
        return subprocess.run(
            [sys.executable, "-c", f"import mars; mars.new_session(checkpoint={str(folder)!r})"],
            env=script_environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    refused = rerun(program)
    assert refused.returncode == 1
    assert (
        f"CheckpointBusy: the checkpoint {folder} is in use by process {os.getpid()}"
        in (refused.stderr.splitlines()[-1])
    )


def test_sessions_of_one_program_share_a_folder(rerun: Any, opened: Any, folder: Path) -> None:
    def work(index: int) -> int:
        return index

    def program() -> Any:
        with opened(checkpoint=folder, default=False) as other:
            mr.spawn(work, 1).execute(session=other)
            mr.spawn(work, 1).execute()
            return rerun.session.checkpoint.reused, other.checkpoint.executed

    assert rerun(program) == (1, 1)


def test_a_folder_with_other_things_is_refused(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    (tmp_path / "thesis.tex").touch()
    before = set(threading.enumerate())
    with pytest.raises(CheckpointUnusable, match="it holds other things"):
        mars.new_session(checkpoint=tmp_path)
    wait_until(lambda: set(threading.enumerate()) <= before)
    assert issubclass(CheckpointBusy, mars.errors.UsageError)


def test_a_run_in_the_background_is_kept_too(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def work(index: int) -> int:
        sign(path, index)
        return index

    def program() -> Any:
        objects = [mr.spawn(work, index) for index in range(5)]
        mars.execute(objects, wait=False).result(30)
        return mars.fetch(objects)

    assert rerun(program) == rerun(program) == [0, 1, 2, 3, 4]
    assert len(ran()) == 5


def test_how_many_were_reused_and_what_that_saved_is_told_where_progress_is(
    rerun: Any, engine: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(index: int) -> int:
        time.sleep(0.8 if index in (0, 7) else 0)
        return index

    def program(count: int) -> Callable[[], Any]:
        return lambda: mars.execute(
            [mr.spawn(work, index) for index in range(count)], show_progress=True
        )

    rerun(program(5))
    told = capfd.readouterr().err
    assert "taken from" not in told and "reused" not in told
    rerun(program(8))
    told = capfd.readouterr().err
    assert f"mars: 5 calls are taken from the checkpoint {folder}, which saves " in told
    assert rerun.session.checkpoint.saved_s >= 0.8
    if engine != "inline":  # it has ended before anything could be drawn
        assert re.search(r"^mars: 3/3 done, 5 reused in .+, (\d+ ms|.+ s) saved$", told, re.M)
    rerun(program(8))
    assert "mars: 8 calls are taken from" in capfd.readouterr().err


def test_a_result_that_the_program_dropped_before_it_came_is_kept(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def step(value: int) -> int:
        sign(path, value)
        return value + 1

    def program() -> Any:
        last = mr.spawn(step, 0)
        for _ in range(9):
            last = mr.spawn(step, last)
        return last.execute().fetch()

    assert rerun(program) == 10
    assert len(ran()) == 10

    def longer() -> Any:
        last = mr.spawn(step, 0)
        for _ in range(10):
            last = mr.spawn(step, last)
        return last.execute().fetch()

    assert rerun(longer) == 11
    assert ran() == ["10"]


@pytest.mark.parametrize("where", ["{}", "file://{}"])
@pytest.mark.parametrize("whose", ["anybody's", "below anybody's", "somebody else's"])
def test_a_folder_in_which_others_may_have_put_something_is_no_checkpoint(
    tmp_path: Path, where: str, whose: str
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    folder = above / "otto"
    with mars.new_session(engine="inline", checkpoint=where.format(folder)):
        assert mr.spawn(abs, (-1,)).execute().fetch() == 1
    if whose == "below anybody's":
        above.chmod(0o1777)  # as /tmp is: others cannot put another folder in its place
        mars.new_session(engine="inline", checkpoint=where.format(folder)).stop_server()
        above.chmod(0o777)
        told = r"every user may write to .*above \(mode 777\)"
    elif whose == "anybody's":
        folder.chmod(0o777)
        told = r"every user may write to .*otto \(mode 777\)"
    elif os.geteuid():
        pytest.skip("only root may give a folder to somebody else")
    else:
        os.chown(folder, 4321, 4321)
        told = "otto belongs to user 4321"
    with pytest.raises(CheckpointUnusable, match=f"{told}; a program runs code of its checkpoint"):
        mars.new_session(engine="inline", checkpoint=where.format(folder))


@pytest.mark.parametrize("name", ["journal.mars", "lock"])
def test_nothing_is_written_through_a_link_in_a_checkpoint(tmp_path: Path, name: str) -> None:
    folder, target = tmp_path / "otto", tmp_path / "precious"
    folder.mkdir(mode=0o700)
    target.touch()
    (folder / name).symlink_to(target)
    with pytest.raises(CheckpointUnusable):
        mars.new_session(engine="inline", checkpoint=folder)
    assert not target.read_bytes()


def test_a_call_on_what_was_put_is_known_by_the_content(rerun: Any, ran: Any) -> None:
    path = ran.path()

    def total(array: Any, index: int) -> float:
        sign(path, f"total {index}")
        return float(array.sum()) + index

    def program(fill: int) -> Any:
        held = mr.put(np.full(50_000, fill))
        return mr.map(total, [held] * 2, range(2)).execute().fetch()

    assert rerun(lambda: program(1)) == [50_000, 50_001]
    assert ran() == ["total 0", "total 1"]
    assert rerun(lambda: program(1)) == [50_000, 50_001]
    assert ran() == []
    assert rerun(lambda: program(2)) == [100_000, 100_001]
    assert ran() == ["total 0", "total 1"]


def test_a_file_that_changed_since_its_result_was_kept_is_told_of(
    rerun: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, other, same = (tmp_path / name for name in ("d.csv", "other.csv", "same.csv"))
    for file in (data, other, same):
        file.write_text("1")

    def read(path: str | Path) -> str:
        return Path(path).read_text()

    def program() -> list[str]:
        calls = [
            mr.spawn(read, str(data)),
            mr.spawn(read, (other,)),
            mr.spawn(read, str(same)),
            mr.spawn(read, str(data), depends=[data]),
            mr.map(read, [str(data), str(same)]),
        ]
        return mars.fetch(mars.execute(*calls))  # type: ignore[no-any-return]

    first = rerun(program)
    assert "have changed" not in capfd.readouterr().err
    assert rerun(program) == first and "have changed" not in capfd.readouterr().err
    later = time.time() + 100
    for file in (data, other):
        file.write_text("2")
        os.utime(file, (later, later))
    assert rerun(program) == ["1", "1", "1", "2", ["1", "1"]]
    told = capfd.readouterr().err
    assert told.count("have changed") == 1
    assert f"read got {str(data)!r}" in told and f"read got {str(other)!r}" in told
    assert str(same) not in told and "depends=[Path(...)]" in told
