"""What a REPL, a list and a notebook show: name, state, time and last line, one line for a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mars
import mars.remote as mr

PassGate = Callable[[Path], None]
WaitUntil = Callable[..., None]


def fit(i: int) -> int:
    print("epoch 1")
    print(f"loss {i}")
    if i == 3:
        raise ValueError("no good\nand more")
    return i


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gate"
    yield path
    path.touch()


def test_an_object_shows_its_name_state_time_and_last_line(
    gate: Path, pass_gate: PassGate, wait_until: WaitUntil
) -> None:
    def hold() -> None:
        print("epoch 7", flush=True)
        pass_gate(gate)

    held, good, bad = mr.spawn(hold, name="held"), mr.spawn(fit, 1), mr.spawn(fit, 3)
    assert repr(held) == "<held: not started>"
    assert repr(mr.spawn(divmod, (7, 2), n_output=2)[1]) == "<divmod[1]: not started>"
    mars.execute(good, bad, on_error="continue")
    assert re.fullmatch(r"<fit: done in \d\.\d s \| loss 1>", repr(good))
    assert re.fullmatch(r"<fit: failed after \d\.\d s \| ValueError: no good>", repr(bad))
    run = held.execute(wait=False)
    wait_until(lambda: "epoch" in repr(held))
    assert re.fullmatch(r"<held: running for [\d.]+ s \| epoch 7>", repr(held))
    assert re.fullmatch(r"<Execution, running for [\d.]+ s: 0 of 1 done, 1 running>", repr(run))
    session = mars.session.get_default_session()
    assert "1 run: 0 of 1 done, 1 running>" in repr(session)
    gate.touch()
    run.result(60)
    assert repr(run) == "<Execution, done: 1 of 1 done>"


def test_ten_calls_fit_on_ten_lines_and_more_are_summed_up() -> None:
    calls = mr.ExecutableTuple([mr.spawn(abs, -i, name=f"call {i}") for i in range(10)])
    lines = repr(calls.execute()).splitlines()
    assert len(lines) == 10 and all(f"<call {i}: done in " in lines[i] for i in range(10))
    many = repr(mr.ExecutableTuple([mr.spawn(abs, -i) for i in range(300)])).splitlines()
    assert len(many) == 20 and many[-2] == " … 281 more: not started …,"
    assert repr(mr.ExecutableTuple([])) == "()"


def test_a_map_counts_its_items_and_shows_each() -> None:
    mapped = mr.map(fit, range(5))
    assert repr(mapped) == "<map of fit over 5 items: not started>"
    table = mapped._repr_html_()  # which makes no call of any item
    assert table.count("<tr>") == 1 + 5 and "item 4 of fit" in table
    mapped.execute(on_error="continue")
    assert repr(mapped) == "<map of fit over 5 items: 4 done, 1 failed>"
    assert re.fullmatch(r"<item 2 of fit: done in \d\.\d s \| loss 2>", repr(mapped[2]))
    assert re.fullmatch(r"<item 3 of fit: failed .* \| ValueError: no good>", repr(mapped[3]))
    table = mapped._repr_html_()
    assert "loss 4" in table and "ValueError: no good" in table


def test_tables_show_every_kind_and_escape_what_calls_print() -> None:
    hostile = mr.spawn(print, "<script>\x1b[31m", name="<b>").execute()
    mapped = mr.map(abs, range(-30, 0)).execute()
    together = mr.ExecutableTuple([hostile, mapped])
    run = mars.execute(hostile, mapped, wait=False)
    for table in (hostile._repr_html_(), together._repr_html_(), run._repr_html_()):
        assert "&lt;script&gt;\\x1b[31m" in table and "<script>" not in table and "<b>" not in table
        assert "done in " in table
    assert "31 calls: done" in together._repr_html_() and "11 more" in together._repr_html_()


def test_what_was_executed_in_another_session_says_so(
    session: mars.session.Session, keep_default: None
) -> None:
    call = mr.spawn(abs, -1).execute()
    other = mars.new_session(session.address)
    assert repr(call).endswith("in another session>")
    there = mr.spawn(abs, -2).execute(session=other)
    other.close()
    session.as_default()
    assert repr(there).endswith("in a session that is closed>")
    assert repr(call).startswith("<abs: done in ") and "another" not in repr(call)
