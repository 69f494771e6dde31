"""How far a run is, and how people see that while it runs.

Two halves. Pure: `Progress` (facts), and what formats them. `mars.sessions.tally` makes the facts.
Shell: displays, chosen by `display_for` for whoever watches:

- a notebook gets a bar and a few lines in HTML, which change in place;
- a terminal gets the same (by rich, imported only when the first bar is drawn);
- CI, and whoever asks for progress in a pipe or file, gets a plain line now and then;
- a pipe gets nothing, and so does a run that is over before anybody could read.

A display starts no thread, reads no clock (time comes with each `Progress`), and lets no
exception into the run: what cannot draw falls silent. Called by the session while it waits.
"""

from __future__ import annotations

import os
import sys
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TextIO

from mars.logs import escape_control
from mars.observe.watchers import in_notebook, is_terminal
from mars.settings import (
    PROGRESS_LINE_MAX_S,
    PROGRESS_LINE_S,
    PROGRESS_LINE_SHARE,
    PROGRESS_NAMES,
    PROGRESS_QUIET_S,
    PROGRESS_REDRAW_HTML_S,
    PROGRESS_REDRAW_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class KindFacts(NamedTuple):
    """The calls of one name in a run."""

    name: str
    total: int
    done: int
    failed: int
    mean_s: float | None  # what one took on average; None: none has ended


class Progress:
    """How far a run is.

    Attributes
    ----------
    total : int
        Tasks of the run.
    done : int
        Tasks that ended well.
    failed : int
        Tasks that ended otherwise: an exception, a timeout, cancelled, an input that failed.
    running : int
        Tasks that run right now.
    elapsed_s : float
        Seconds since the run began.
    left_s : tuple of (float, float or None), or None
        Seconds until it ends, from and to. To None: at least so many. None: not known yet.
    partial : float
        What running tasks have done already, in tasks: the sum of what they said of themselves
        with ``get_context().set_progress``, 0 to 1 each.
    reused : int
        Calls besides these that a checkpoint had.
    saved_s : float
        Seconds that those took when they ran.
    active : tuple of (str, float)
        What runs, and for how many seconds, the longest running first.
    failures : tuple of str
        Calls that failed by themselves; of very many, the first ones.
    kinds : tuple of KindFacts
        Counts and times by name.
    """

    __slots__ = (
        "active", "done", "elapsed_s", "failed", "failures", "kinds", "left_s", "partial", "reused",
        "running", "saved_s", "total",
    )  # fmt: skip

    def __init__(
        self,
        total: int,
        done: int = 0,
        failed: int = 0,
        running: int = 0,
        elapsed_s: float = 0.0,
        left_s: tuple[float, float | None] | None = None,
        partial: float = 0.0,
        reused: int = 0,
        saved_s: float = 0.0,
        *,
        active: tuple[tuple[str, float], ...] = (),
        failures: tuple[str, ...] = (),
        kinds: tuple[KindFacts, ...] = (),
    ) -> None:
        self.total: Final = total
        self.done: Final = done
        self.failed: Final = failed
        self.running: Final = running
        self.elapsed_s: Final = elapsed_s
        self.left_s: Final = left_s
        self.partial: Final = partial
        self.reused: Final = reused
        self.saved_s: Final = saved_s
        self.active: Final = active
        self.failures: Final = failures
        self.kinds: Final = kinds

    @property
    def ended(self) -> int:
        """Tasks that will not run again."""
        return self.done + self.failed

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1; 1 exactly when all tasks have ended."""
        if self.ended >= self.total:
            return 1.0
        started = max(0.0, min(self.partial, self.total - self.ended))
        return min(0.9999, (self.ended + started) / self.total)

    def __repr__(self) -> str:
        return f"<Progress {format_counts(self)}, {format_duration(self.elapsed_s)}>"

    def _repr_html_(self) -> str:
        return format_html(self)


def format_duration(seconds: float | None) -> str:
    """Return a duration as people write it: ``320 ms``, ``4.2 s``, ``3 min 05 s``, ``2 h 07 min``.

    Parameters
    ----------
    seconds : float or None
        None, and what is not a number, is ``?``; less than zero counts as zero.
    """
    if seconds is None or not isfinite(seconds):
        return "?"
    seconds = max(0.0, seconds)
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    if not minutes:
        return f"{second} s"
    if minutes < 60:
        return f"{minutes} min {second:02d} s"
    hours, minute = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minute:02d} min"
    days, hour = divmod(round(seconds / 3600), 24)
    return f"{days} d {hour} h"


def format_counts(progress: Progress) -> str:
    """Return the counts in words, those that are zero left out: ``12/36 done, 2 running``."""
    text = f"{progress.done}/{progress.total} done"
    if progress.running:
        text += f", {progress.running} running"
    if progress.failed:
        text += f", {progress.failed} failed"
    if progress.reused:
        text += f", {progress.reused:,} reused"
    return text


def format_left(left_s: tuple[float, float | None] | None) -> str:
    """Return how long a run will take as people say it: ``4 to 6 s left``; "" if nobody knows.

    Examples
    --------
    >>> format_left((4.2, 6.4)), format_left((50, 130)), format_left((9.98, 10.02))
    ('4.2 to 6.4 s left', '50 s to 2 min 10 s left', 'about 10 s left')
    >>> format_left((3.0, None)), format_left(None)
    ('at least 3.0 s left', '')
    """
    if left_s is None:
        return ""
    low_s, high_s = left_s
    low = format_duration(low_s)
    if high_s is None:
        return f"at least {low} left" if low_s >= 1.0 else ""
    high = format_duration(high_s)
    if low == high:
        return f"about {low} left"
    if low_s < 0.1 * high_s:
        return f"up to {high} left"
    if low.partition(" ")[2] == high.partition(" ")[2]:  # one unit, said once
        low = low.partition(" ")[0]
    return f"{low} to {high} left"


def _some(names: Sequence[str], total: int) -> str:
    shown = ", ".join(names[:PROGRESS_NAMES])
    more = max(total, len(names)) - min(len(names), PROGRESS_NAMES)
    return f"{shown} and {more:,} more" if more > 0 else shown


def format_active(progress: Progress) -> str:
    """Return what runs, the longest running first: ``fit 7 (12 s), fit 3 (8.1 s)``."""
    names = [f"{name} ({format_duration(taken)})" for name, taken in progress.active]
    return _some([escape_control(one) for one in names], len(names))


def format_failures(progress: Progress) -> str:
    """Return which calls failed: ``fit 4, fit 9 and 3 more``."""
    return _some([escape_control(one) for one in progress.failures], len(progress.failures))


def format_kinds(progress: Progress) -> str:
    """Return counts and times by name: ``load 4/4, 30 ms each; fit 14/36, 1.2 s each``."""
    parts = []
    for one in progress.kinds[:PROGRESS_NAMES]:
        each = "" if one.mean_s is None else f", {format_duration(one.mean_s)} each"
        failed = f", {one.failed:,} failed" if one.failed else ""
        parts.append(f"{escape_control(one.name)} {one.done:,}/{one.total:,}{failed}{each}")
    more = len(progress.kinds) - len(parts)
    return "; ".join(parts) + (f"; {more} more" if more else "")


def format_line(progress: Progress, *, final: bool = False) -> str:
    """Return one plain line about a run.

    Parameters
    ----------
    progress : Progress
        How far it is.
    final : bool, default False
        It has ended: how long it took stands in place of how long it will.
    """
    took = format_duration(progress.elapsed_s)
    failures = f"; failed: {format_failures(progress)}" if progress.failures else ""
    if final:
        saved = f", {format_duration(progress.saved_s)} saved" if progress.reused else ""
        return f"mars: {format_counts(progress)} in {took}{saved}{failures}"
    line = f"mars: {format_counts(progress)}, {_percent(progress)} % after {took}"
    left = format_left(progress.left_s)
    if left:
        line += f", {left}"
    if progress.active:
        line += f"; running: {format_active(progress)}"
    return line + failures


def _below(progress: Progress, *, final: bool) -> list[tuple[str, str]]:
    """The lines below a bar: what each is about, and its text."""
    lines = [("failed", format_failures(progress))] if progress.failures else []
    if progress.active and not final:
        lines.append(("running", format_active(progress)))
    if len(progress.kinds) > 1 or any(one.mean_s is not None for one in progress.kinds):
        lines.append(("calls", format_kinds(progress)))
    return lines


def format_html(progress: Progress, *, final: bool = False) -> str:
    """Return a bar and lines of HTML: no script, no outside resource, colours of the page.

    Parameters
    ----------
    progress : Progress
        How far it is.
    final : bool, default False
        It has ended.
    """
    from html import escape

    tail = f"{_percent(progress)} %, {format_duration(progress.elapsed_s)}"
    left = "" if final else format_left(progress.left_s)
    if left:
        tail += f", {left}"
    failed = ""
    counts = f"{progress.done}/{progress.total} done"
    if progress.running:
        counts += f", {progress.running} running"
    if progress.failed:
        failed = f', <span style="color:#e53935">{progress.failed} failed</span>'
    if progress.reused:
        failed += f", {progress.reused:,} reused"
    below = "".join(
        f'<div style="opacity:.75">{what}: {escape(text)}</div>'
        for what, text in _below(progress, final=final)
    )
    return (
        '<div style="font-family:monospace;overflow-wrap:anywhere">'
        f'<progress max="1" value="{progress.fraction:.4f}" '
        f'style="width:16em;max-width:100%;vertical-align:middle"></progress> {counts}{failed} '
        f'<span style="opacity:.75">({tail})</span>{below}</div>'
    )


def write_line(line: str) -> None:
    """Write a line to stderr, unless that is gone."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except Exception:  # closed, or none, as in pythonw: no reason to lose a run
        return


def tell(line: str) -> None:
    """Write a line that is no error: in a notebook below the cell, as stderr is red there."""
    if in_notebook():
        print(line)
    else:
        write_line(line)


class Display(Protocol):
    """Where one run's progress is shown. No method raises."""

    def start(self, total: int) -> None:
        """Begin a run of ``total`` tasks."""

    def update(self, progress: Progress) -> None:
        """Show how far it is. Cheap: call it as often as you like, ten times a second is enough."""

    def note(self, line: str) -> None:
        """Show a line of text that stays."""

    def finish(self, progress: Progress) -> None:
        """Show how it ended, and give the terminal back. After a failure, too; twice is once."""


def display_for(
    mode: bool | str,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> Display | None:
    """Choose how to show a run's progress.

    Parameters
    ----------
    mode : bool or "auto"
        False: not at all. True: in any case, at once. "auto": in a notebook, on a terminal and
        in CI, once the run has taken 0.5 s.
    stream : text file, default `sys.stderr`
        Where to draw.
    environ : mapping, default `os.environ`
        ``CI``, ``NO_COLOR`` and ``TERM`` are heeded.

    Returns
    -------
    Display or None
        None: nothing is to be shown.

    Raises
    ------
    ValueError
        ``mode`` is none of these.
    """
    if not (isinstance(mode, bool) or mode == "auto"):
        raise ValueError(f"show_progress has to be True, False or 'auto', got {mode!r}")
    if mode is False:
        return None
    environ = os.environ if environ is None else environ
    stream = sys.stderr if stream is None else stream
    quiet_s = 0.0 if mode is True else PROGRESS_QUIET_S
    if in_notebook():
        return _Guarded(_HtmlDisplay, quiet_s)
    if stream is None:  # a program without a console, such as pythonw
        return None
    in_ci = environ.get("CI", "").strip().lower() not in ("", "0", "false", "no")
    terminal = is_terminal(stream)
    # CI often has a terminal that nobody watches: a bar there ends up as a mile of log.
    if terminal and not in_ci and environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        colour = not environ.get("NO_COLOR")
        return _Guarded(lambda: _BarDisplay(stream, colour=colour), quiet_s)
    if terminal or in_ci or mode is True:
        return _Guarded(lambda: _LineDisplay(stream), quiet_s)
    return None


def reused_line(count: int, where: str, saved_s: float) -> str:
    """What a run found in its checkpoint, in words."""
    calls = "1 call is" if count == 1 else f"{count:,} calls are"
    saved = format_duration(saved_s)
    return f"mars: {calls} taken from the checkpoint {where}, which saves {saved} of running"


def _percent(progress: Progress) -> int:
    return int(progress.fraction * 100)  # rounded down: 100 % means that all have ended


class _Guarded:
    """Keeps a display quiet while the run is short, and away from the run when it fails."""

    __slots__ = ("_inner", "_make", "_over", "_quiet_s")

    def __init__(self, make: Callable[[], Display], quiet_s: float) -> None:
        self._make = make
        self._quiet_s = quiet_s
        self._inner: Display | None = None
        self._over = False

    def start(self, total: int) -> None:
        if self._quiet_s == 0.0:
            self._draw(total, lambda inner: None)

    def update(self, progress: Progress) -> None:
        if self._inner or progress.elapsed_s >= self._quiet_s:
            self._draw(progress.total, lambda inner: inner.update(progress))

    def note(self, line: str) -> None:
        if self._inner and not self._over:
            self._draw(0, lambda inner: inner.note(line))
        else:
            write_line(line)

    def finish(self, progress: Progress) -> None:
        if self._inner or progress.elapsed_s >= self._quiet_s:
            self._draw(progress.total, lambda inner: inner.finish(progress))
        self._over = True

    def _draw(self, total: int, act: Callable[[Display], None]) -> None:
        if self._over:
            return
        try:
            if self._inner is None:
                inner = self._make()
                inner.start(total)
                self._inner = inner
            act(self._inner)
        except Exception:
            # A closed terminal or a browser that went away is no reason to lose a run, and
            # there is nowhere left to report it.
            self._over = True


class _LineDisplay:
    """Plain lines, few of them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown_s = 0.0
        self._shown_fraction = 0.0

    def start(self, total: int) -> None:
        pass

    def update(self, progress: Progress) -> None:
        if progress.total <= progress.ended:
            return  # `finish` says it
        pause_s = min(PROGRESS_LINE_MAX_S, max(PROGRESS_LINE_S, progress.elapsed_s * 0.05))
        if (
            progress.fraction - self._shown_fraction >= PROGRESS_LINE_SHARE - 1e-9
            or progress.elapsed_s - self._shown_s >= pause_s
        ):
            self._shown_s, self._shown_fraction = progress.elapsed_s, progress.fraction
            self._write(format_line(progress))

    def note(self, line: str) -> None:
        self._write(line)

    def finish(self, progress: Progress) -> None:
        self._write(format_line(progress, final=True))

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


class _BarDisplay:
    """A bar on a terminal, drawn by rich."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
        from rich.text import Text

        class Calm(Console):
            def on_broken_pipe(self) -> None:
                # rich would point the program's stdout to nowhere and end the program.
                raise BrokenPipeError

        class Named(Bar):
            """A bar, and lines of text below it."""

            below: Sequence[RenderableType] = ()

            def get_renderables(self) -> Iterator[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                yield from self.below

        console = Calm(file=stream, force_terminal=True, force_jupyter=False, no_color=not colour)
        self._text = Text
        self._column = BarColumn(bar_width=_BAR_WIDTH)
        self._bar = Named(
            TextColumn("mars"),
            self._column,
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,  # no thread of its own
            # A user's sys.stdout is not ours to replace, not even for a while.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._shown_s = -PROGRESS_REDRAW_S

    def start(self, total: int) -> None:
        self._task = self._bar.add_task("", total=1.0, text="")
        self._bar.start()

    def update(self, progress: Progress) -> None:
        if progress.elapsed_s - self._shown_s >= PROGRESS_REDRAW_S:
            self._shown_s = progress.elapsed_s
            self._show(progress, final=False)

    def note(self, line: str) -> None:
        self._bar.console.print(
            self._text.from_ansi(line), markup=False, highlight=False, soft_wrap=True
        )

    def finish(self, progress: Progress) -> None:
        try:
            self._show(progress, final=True)
        finally:
            self._bar.stop()  # shows the cursor again

    def _show(self, progress: Progress, *, final: bool) -> None:
        parts = [f"{_percent(progress):3d} %", f"{progress.done}/{progress.total} done"]
        if progress.running and not final:
            parts.append(f"{progress.running} running")
        if progress.failed:
            parts.append(f"[red]{progress.failed} failed[/red]")
        if progress.reused:
            parts.append(f"{progress.reused:,} reused")
        parts.append(format_duration(progress.elapsed_s))
        if progress.reused and final:
            parts.append(f"{format_duration(progress.saved_s)} saved")
        left = "" if final else format_left(progress.left_s)
        if left:
            parts.append(left)
        text = " · ".join(parts)
        width = self._bar.console.width
        # The text is what matters: the bar has what is left of the line.
        written = len(text.replace("[red]", "").replace("[/red]", "")) + len("mars") + 2
        self._column.bar_width = max(_BAR_LEAST, min(_BAR_WIDTH, width - written))
        self._bar.below = [
            self._text(
                f"     {what}: {line}",
                style="red" if what == "failed" else "dim",
            )
            for what, line in _below(progress, final=final)
        ]
        self._bar.update(self._task, completed=progress.fraction, text=text, refresh=True)


_BAR_WIDTH: Final = 40  # columns
_BAR_LEAST: Final = 5


class _Handle(Protocol):
    """What IPython gives for something that it has shown."""

    def update(self, shown: object) -> None: ...


class _HtmlDisplay:
    """One line in a notebook's output, changed in place."""

    def __init__(self) -> None:
        from importlib import import_module  # IPython is loaded: it is what called us

        self._ipython = import_module("IPython.display")
        self._handle: _Handle | None = None
        self._shown_s = -PROGRESS_REDRAW_HTML_S

    def start(self, total: int) -> None:
        html = self._ipython.HTML(format_html(Progress(total)))
        self._handle = self._ipython.display(html, display_id=True)

    def update(self, progress: Progress) -> None:
        if progress.elapsed_s - self._shown_s >= PROGRESS_REDRAW_HTML_S:
            self._shown_s = progress.elapsed_s
            self._show(progress)

    def note(self, line: str) -> None:
        write_line(line)

    def finish(self, progress: Progress) -> None:
        self._show(progress, final=True)

    def _show(self, progress: Progress, final: bool = False) -> None:
        assert self._handle is not None
        self._handle.update(self._ipython.HTML(format_html(progress, final=final)))
