"""Shows what the calls of one run print, while the program waits for the run or goes on.

`mars.sessions.runs` makes an `Echoing` for a run that is to be shown, and has it look now and then;
if nobody waits, a thread does. Lines go to stderr, as what calls print is no result of the program;
in a notebook they go to stdout, as stderr has a red ground there. If a bar is drawn, they go above
it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from mars.engine import Run
from mars.observe.echo import Echo, Feed
from mars.observe.progress import Display, write_line
from mars.observe.watchers import has_colour, in_notebook
from mars.settings import LOG_FOLLOW_S


class Echoing:
    """Shows what the calls of a run print. No method raises.

    Parameters
    ----------
    mode : {"all", "failures"}
        What is shown.
    feeds : sequence of Feed
        What gives the lines.
    """

    def __init__(self, mode: str, feeds: Sequence[Feed]) -> None:
        self._show = _to_stdout if in_notebook() else write_line
        self._echo = Echo(mode, feeds, self._put, colour=has_colour(sys.stderr))
        self._thread: threading.Thread | None = None
        self._broken = False

    def _put(self, line: str) -> None:
        self._show(line)

    def show_in(self, display: Display) -> None:
        """Have lines go above what is drawn."""
        if not in_notebook():
            self._show = display.note

    def look(self) -> None:
        """Show what is new."""
        if self._broken:
            return
        try:
            self._echo.look()
        except Exception as error:  # a session that was closed, say: no reason to lose a run
            self._broken = True
            write_line(f"mars: what calls print is shown no longer ({error!r}); '.log' has it")

    def begin(self, run: Run) -> None:
        """Have a thread look until the run has ended."""

        def go() -> None:
            while not run.wait(LOG_FOLLOW_S):
                self.look()
            self.look()

        thread = threading.Thread(target=go, name="mars-echo", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system refuses a thread
            write_line(f"mars: what calls print is not shown ({error}); '.log' has it")
            return
        self._thread = thread

    def wait(self) -> None:
        """Return once the last lines are shown."""
        if self._thread is not None:
            self._thread.join()


def _to_stdout(line: str) -> None:
    try:
        print(line, flush=True)
    except Exception:  # the notebook went away
        return


__all__ = ["Echoing"]
