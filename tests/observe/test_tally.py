"""What is counted of a run for those who watch it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr
from mars.observe.progress import Display, Progress
from mars.sessions import runs as module


class Watcher:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self.last: Progress | None = None

    def start(self, total: int) -> None:
        self.total = total

    def update(self, progress: Progress) -> None:
        self.seen.append(progress)

    def note(self, line: str) -> None:
        raise AssertionError(line)

    def finish(self, progress: Progress) -> None:
        self.last = progress


@pytest.fixture(scope="module", autouse=True)
def session(leak_guard: None) -> Iterator[mars.session.Session]:
    opened = mars.new_session(n_cpu=2)
    yield opened
    opened.stop_server()


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    made = Watcher()

    def display_for(*_: object) -> Display:
        return made

    monkeypatch.setattr("mars.observe.progress.display_for", display_for)
    monkeypatch.setattr(module, "PROGRESS_LOAD_S", 0.0)
    return made


def test_what_runs_is_named_longest_first_and_failures_and_times_are_there(
    watcher: Watcher, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate, first = tmp_path / "gate", tmp_path / "first"

    def load(number: int) -> int:
        return number

    def fit(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        if number == 0:
            first.touch()
        else:
            pass_gate(first)
        pass_gate(gate)
        return number

    def update(progress: Progress) -> None:
        Watcher.update(watcher, progress)
        if len(progress.active) == 2 and progress.kinds[0].failed == 1:
            gate.touch()

    watcher.update = update  # type: ignore[method-assign]
    calls = [mr.spawn(fit, (i,)) for i in (2, 0, 1)]
    mr.ExecutableTuple([*calls, *(mr.spawn(load, (i,)) for i in range(3))]).execute(
        on_error="continue", show_progress=True
    )
    both = next(one for one in watcher.seen if len(one.active) == 2 and one.kinds[0].failed == 1)
    assert {name for name, _ in both.active} == {"fit 1", "fit 2"}
    assert [taken for _, taken in both.active] == sorted(
        (taken for _, taken in both.active), reverse=True
    )
    assert both.failures == ("fit 0",)
    last = watcher.last
    assert last is not None
    assert (last.total, last.done, last.failed, last.active) == (6, 5, 1, ())
    assert [(one.name, one.total, one.done, one.failed) for one in last.kinds] == [
        ("fit", 3, 2, 1), ("load", 3, 3, 0),
    ]  # fmt: skip
    assert all(one.mean_s is not None for one in last.kinds)
    assert last.failures == ("fit 0",)


def test_items_of_maps_are_named_by_their_numbers(
    watcher: Watcher, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"

    def fit(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        pass_gate(gate)
        return number

    def update(progress: Progress) -> None:
        Watcher.update(watcher, progress)
        if {name for name, _ in progress.active} == {"fit 0", "fit 2"}:
            gate.touch()

    watcher.update = update  # type: ignore[method-assign]
    mr.map(fit, range(4)).execute(on_error="continue", show_progress=True)
    last = watcher.last
    assert last is not None
    assert (last.total, last.done, last.failed) == (4, 3, 1)
    assert [(one.name, one.total, one.done, one.failed) for one in last.kinds] == [("fit", 4, 3, 1)]
    assert last.failures == ("fit 1",)


def test_a_second_run_counts_what_it_runs_and_not_what_was_there(
    watcher: Watcher, tmp_path: Path, pass_gate: Callable[..., None]
) -> None:
    gate = tmp_path / "gate"

    def fit(number: int) -> int:
        if number == 1:
            pass_gate(gate)  # a run that has ended before it can be shown is not shown
            raise ValueError("one")
        return number

    watcher.start = lambda _: gate.touch()  # type: ignore[method-assign,assignment]
    items = mr.map(fit, range(4))
    items.execute(on_error="continue", show_progress=True)
    gate.unlink()
    items.execute(on_error="continue", show_progress=True)
    last = watcher.last
    assert last is not None
    assert [(one.total, one.done, one.failed) for one in last.kinds] == [(1, 0, 1)]
