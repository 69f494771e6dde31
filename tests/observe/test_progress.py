"""What people see while a run runs, and that nobody sees more than that."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.observe import progress as module
from mars.observe.progress import (
    Display,
    KindFacts,
    Progress,
    display_for,
    format_duration,
    format_html,
    format_left,
    format_line,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise BrokenPipeError


class Notebook:
    """Stands for the IPython package inside a kernel."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.displays = 0
        ipython = types.ModuleType("IPython")
        shell = type("ZMQInteractiveShell", (), {})()
        ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
        inner = types.ModuleType("IPython.display")
        inner.HTML = str  # type: ignore[attr-defined]
        inner.display = self.display  # type: ignore[attr-defined]
        self.modules = {"IPython": ipython, "IPython.display": inner}

    def display(self, html: str, *, display_id: bool) -> Notebook:
        assert display_id
        self.displays += 1
        self.shown.append(html)
        return self

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture(autouse=True)
def _no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


def drive(display: Display | None, *, total: int, seconds: float, failed: int = 0) -> None:
    """Play a run whose tasks end evenly over some seconds."""
    assert display is not None
    display.start(total)
    for ended in range(total + 1):
        bad = min(failed, ended)
        elapsed_s = seconds * ended / max(total, 1)
        left_s = seconds - elapsed_s
        display.update(
            Progress(
                total,
                ended - bad,
                bad,
                2 if ended < total else 0,
                elapsed_s,
                (left_s, left_s) if ended else None,
                active=(("fit 7", 12.0),) if ended < total else (),
                failures=tuple(f"fit {i}" for i in range(bad)),
                kinds=(KindFacts("fit", total, ended - bad, bad, 1.0),),
            )
        )
    display.finish(Progress(total, total - failed, failed, elapsed_s=seconds))


# -- facts ------------------------------------------------------------------------------------


def test_progress_counts_failures_as_ended() -> None:
    now = Progress(10, done=4, failed=1, running=2, elapsed_s=5)
    assert (now.ended, now.fraction) == (5, 0.5)
    assert repr(now) == "<Progress 4/10 done, 2 running, 1 failed, 5.0 s>"
    assert Progress(0).fraction == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (float("nan"), "?"),
        (float("inf"), "?"),
        (-3.0, "0 ms"),
        (0.0, "0 ms"),
        (0.0004, "0 ms"),
        (0.32, "320 ms"),
        (0.9999, "1.0 s"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (47.99 * 3600, "47 h 59 min"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, 1e9))
def test_no_duration_shows_a_unit_that_is_full(seconds: float) -> None:
    assert format_duration(seconds) not in ("1000 ms", "60 s", "60 min 00 s", "60 min")


def test_what_running_tasks_tell_counts_but_is_never_all() -> None:
    assert Progress(2, running=2, partial=0.5).fraction == 0.25
    almost = Progress(2, running=2, partial=2.0)
    assert almost.fraction < 1.0
    assert "99 %" in format_line(almost)
    assert Progress(2, done=2).fraction == 1.0


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (None, ""),
        ((0.0, None), ""),
        ((3.0, None), "at least 3.0 s left"),
        ((4.2, 6.4), "4.2 to 6.4 s left"),
        ((0.9, 1.4), "900 ms to 1.4 s left"),
        ((9.98, 10.02), "about 10 s left"),
        ((0.1, 20.0), "up to 20 s left"),
        ((3000.0, 9000.0), "50 min 00 s to 2 h 30 min left"),
    ],
)
def test_the_time_left_is_a_range_in_words(
    left_s: tuple[float, float | None] | None, text: str
) -> None:
    assert format_left(left_s) == text


NAMED = Progress(
    40, 18, 2, 3, 12.0, (4.0, 6.0),
    active=(("fit 7", 12.0), ("fit 3", 8.1), ("load <b>", 0.4), ("a\x1b[2J", 0.3), ("fit 9", 0.1)),
    failures=("fit 4", "fit 9"),
    kinds=(KindFacts("load", 4, 4, 0, 0.03), KindFacts("fit", 36, 14, 2, 1.2)),
)  # fmt: skip


def test_a_line_names_what_runs_and_what_failed() -> None:
    assert format_line(NAMED) == (
        "mars: 18/40 done, 3 running, 2 failed, 50 % after 12 s, 4.0 to 6.0 s left; "
        "running: fit 7 (12 s), fit 3 (8.1 s), load <b> (400 ms), a\\x1b[2J (300 ms) and 1 more; "
        "failed: fit 4, fit 9"
    )
    assert format_line(NAMED, final=True) == (
        "mars: 18/40 done, 3 running, 2 failed in 12 s; failed: fit 4, fit 9"
    )


def test_html_names_them_too_and_lets_long_lines_wrap() -> None:
    html = format_html(NAMED)
    for part in (
        "4.0 to 6.0 s left",
        "failed: fit 4, fit 9",
        "running: fit 7 (12 s), fit 3 (8.1 s), load &lt;b&gt; (400 ms)",
        "calls: load 4/4, 30 ms each; fit 14/36, 2 failed, 1.2 s each",
    ):
        assert part in html
    assert "nowrap" not in html
    assert "running:" not in format_html(NAMED, final=True)


def test_a_terminal_of_any_width_shows_counts_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        stream = Terminal()
        display = display_for(True, stream, {"TERM": "xterm", "NO_COLOR": "1"})
        assert display is not None
        display.start(40)
        display.update(NAMED)
        display.finish(NAMED)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        text = " ".join(plain.split())
        for part in ("18/40 done", "fit 7 (12 s)", "failed: fit 4, fit 9", "1.2 s each"):
            assert part in text, columns


def test_hundred_percent_means_that_all_have_ended() -> None:
    assert "99 %" in format_line(Progress(1000, done=999, running=1))


def test_html_shows_counts_and_needs_nothing_from_outside() -> None:
    html = format_html(Progress(36, done=12, failed=1, running=2, elapsed_s=12, left_s=(20, 24)))
    for part in ('value="0.3611"', "12/36 done", "2 running", "1 failed", "20 to 24 s left"):
        assert part in html
    assert "script" not in html
    assert "http" not in html
    assert Progress(3)._repr_html_() == format_html(Progress(3))


# -- who gets what ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [False, "auto"])
def test_pipe_gets_nothing(mode: bool | str) -> None:
    assert display_for(mode, io.StringIO(), {}) is None


def test_off_is_off_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert display_for(False, Terminal(), {"CI": "true"}) is None
    for name, loaded in Notebook().modules.items():
        monkeypatch.setitem(sys.modules, name, loaded)
    assert display_for(False, Terminal(), {}) is None


@pytest.mark.parametrize("mode", ["yes", 1, None, ""])
def test_other_modes_are_refused(mode: object) -> None:
    with pytest.raises(ValueError, match="show_progress"):
        display_for(mode, io.StringIO(), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stream", "environ"),
    [
        (Terminal(), {"TERM": "xterm"}),
        (Terminal(), {"TERM": "dumb"}),
        (io.StringIO(), {"CI": "true"}),
    ],
)
def test_short_run_shows_nothing_in_auto_mode(stream: io.StringIO, environ: dict[str, str]) -> None:
    drive(display_for("auto", stream, environ), total=100, seconds=0.49)
    assert stream.getvalue() == ""


def test_ci_gets_plain_lines_even_on_a_terminal() -> None:
    stream = Terminal()
    drive(display_for("auto", stream, {"CI": "1", "TERM": "xterm"}), total=20, seconds=40.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10  # 10 % … 90 %, and the end
    assert lines[0] == (
        "mars: 2/20 done, 2 running, 10 % after 4.0 s, about 36 s left; running: fit 7 (12 s)"
    )
    assert lines[-1] == "mars: 20/20 done in 40 s"
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_ci_that_is_off_is_no_ci(value: str) -> None:
    assert display_for("auto", io.StringIO(), {"CI": value}) is None


def test_plain_lines_stay_few_however_long_and_large_the_run() -> None:
    stream = io.StringIO()
    drive(display_for("auto", stream, {"CI": "1"}), total=20_000, seconds=4 * 3600.0)
    times = 4 * 3600 / 60  # at most one a minute once the run is long
    assert len(stream.getvalue().splitlines()) < times + 100


def test_asked_for_in_a_pipe_gives_plain_lines_at_once() -> None:
    stream = io.StringIO()
    drive(display_for(True, stream, {}), total=4, seconds=0.01, failed=1)
    assert stream.getvalue().splitlines()[-1] == "mars: 3/4 done, 1 failed in 10 ms"


def test_dumb_terminal_gets_plain_lines() -> None:
    stream = Terminal()
    drive(display_for("auto", stream, {"TERM": "dumb"}), total=4, seconds=8.0)
    assert "\x1b" not in stream.getvalue()
    assert "4/4 done" in stream.getvalue()


def test_terminal_gets_a_bar_that_gives_the_cursor_back() -> None:
    stream = Terminal()
    drive(display_for("auto", stream, {"TERM": "xterm"}), total=40, seconds=60.0, failed=3)
    text = stream.getvalue()
    for part in ("━", "12/40 done", "3 failed", "2 running", " left", "37/40 done", "1 min 00 s"):
        assert part in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.endswith("\n") or text.rindex("\n") > text.rindex("37/40 done")


def test_bar_of_a_failed_run_gives_the_cursor_back_too() -> None:
    stream = Terminal()
    display = display_for("auto", stream, {"TERM": "xterm"})
    assert display is not None
    display.start(10)
    display.update(Progress(10, done=1, running=2, elapsed_s=2.0))
    display.finish(Progress(10, done=1, failed=1, elapsed_s=3.0))
    display.finish(Progress(10, done=1, failed=1, elapsed_s=3.0))
    assert stream.getvalue().count("\x1b[?25h") == 1


def test_no_color_leaves_colours_out() -> None:
    plain, coloured = Terminal(), Terminal()
    drive(display_for("auto", plain, {"NO_COLOR": "1"}), total=4, seconds=8.0, failed=1)
    drive(display_for("auto", coloured, {}), total=4, seconds=8.0, failed=1)
    assert "\x1b[31m" not in plain.getvalue()
    assert "1 failed" in plain.getvalue()


def test_bar_replaces_no_stream_and_starts_no_thread() -> None:
    import threading

    before, threads = (sys.stdout, sys.stderr), set(threading.enumerate())
    display = display_for(True, Terminal(), {"TERM": "xterm"})
    assert display is not None
    display.start(10)
    display.update(Progress(10, done=1, elapsed_s=2.0))
    assert before == (sys.stdout, sys.stderr)
    assert set(threading.enumerate()) <= threads  # others may end meanwhile
    display.finish(Progress(10, done=10, elapsed_s=3.0))


def test_bar_is_redrawn_ten_times_a_second_at_the_most() -> None:
    stream = Terminal()
    drive(display_for(True, stream, {"TERM": "xterm"}), total=5_000, seconds=2.0)
    assert stream.getvalue().count("━") < 60 * 30


def test_notebook_gets_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, stream = Notebook(), io.StringIO()
    for name, loaded in notebook.modules.items():
        monkeypatch.setitem(sys.modules, name, loaded)
    drive(display_for("auto", stream, {}), total=10, seconds=20.0)
    assert notebook.displays == 1
    assert any("5/10 done" in html for html in notebook.shown)
    assert "10/10 done" in notebook.shown[-1]
    assert "left" not in notebook.shown[-1]
    assert stream.getvalue() == ""


def test_plain_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = types.ModuleType("IPython")
    shell = type("TerminalInteractiveShell", (), {})()
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert display_for("auto", io.StringIO(), {}) is None


# -- harmless ---------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [{"TERM": "xterm"}, {"TERM": "dumb"}])
def test_broken_stream_never_reaches_the_run(environ: dict[str, str]) -> None:
    drive(display_for(True, Broken(), environ), total=4, seconds=8.0)


def test_broken_terminal_leaves_the_stdout_of_the_program_alone() -> None:
    before = os.fstat(1)
    drive(display_for(True, Broken(), {"TERM": "xterm"}), total=4, seconds=8.0)
    assert os.path.samestat(before, os.fstat(1))


def test_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert display_for("auto", stream, {}) is None
    drive(display_for(True, stream, {}), total=4, seconds=8.0)


def test_program_without_a_console_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert display_for(True, None, {}) is None


def test_broken_notebook_never_reaches_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    notebook.modules["IPython.display"].display = None  # type: ignore[attr-defined]
    for name, loaded in notebook.modules.items():
        monkeypatch.setitem(sys.modules, name, loaded)
    drive(display_for(True, io.StringIO(), {}), total=4, seconds=8.0)


def test_run_without_tasks_is_shown_as_done() -> None:
    for stream, environ in ((Terminal(), {"TERM": "xterm"}), (io.StringIO(), {})):
        display = display_for(True, stream, environ)
        assert display is not None
        display.start(0)
        display.finish(Progress(0))
        assert "0/0 done" in stream.getvalue()


def test_rich_is_loaded_only_when_a_bar_is_drawn() -> None:
    code = (
        "import sys, io\n"
        "from mars.observe.progress import Progress, display_for\n"
        "class T(io.StringIO):\n"
        "    def isatty(self): return True\n"
        "d = display_for('auto', T(), {'TERM': 'xterm'}); d.start(3)\n"
        "d.update(Progress(3, elapsed_s=0.4)); assert 'rich' not in sys.modules\n"
        "d.update(Progress(3, elapsed_s=0.6)); assert 'rich' in sys.modules\n"
        "d.finish(Progress(3, done=3, elapsed_s=0.7))\n"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(module.__file__)))
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": source}
    )
