"""What calls print, shown where the program is watched: as whole lines, each with a name.

Pure but for `Echo`, which shows lines by a function that it is given. The lines come from feeds,
see `mars.sessions.logs`; a feed is asked again and again by whoever waits for the calls. Loaded
when somebody wants to see what calls print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from mars.logs import escape_control
from mars.settings import ECHO_COLOURS, ECHO_NAMES
from mars.task import Call

MODES: Final = ("all", "failures", "summary")


class Feed(Protocol):
    """Lines of one call, or of the items of one map; see `mars.sessions.logs`."""

    def look(self) -> tuple[list[tuple[str, str]], bool]: ...
    def failed(self) -> tuple[list[tuple[str, str]], bool]: ...
    def loud(self) -> list[str]: ...
    def size(self) -> int: ...


def check_mode(value: object, what: str = "echo") -> str | bool:
    """The mode that a value of ``echo=`` or of ``mars.options.echo`` means; False: show nothing.

    Parameters
    ----------
    value : bool or str
        True means "all".
    what : str, default "echo"
        What errors call the value.

    Raises
    ------
    ValueError
        It is none of them.
    """
    if value is True:
        return "all"
    if value is False or (isinstance(value, str) and value in MODES):
        return value
    raise ValueError(
        f"{what} has to be True, False, 'all', 'failures' or 'summary', got {value!r:.80}"
    )


def labels(calls: Sequence[Call]) -> list[tuple[str, Call]]:
    """Names that tell calls apart: calls with one name are numbered from 0, in their order.

    An item of a map has its index as its number.
    """
    count = Counter([call.name for call in calls if call.whole is None])
    next_number: Counter[str] = Counter()
    named = []
    for call in calls:
        name = call.name
        if call.whole is not None:
            name = f"{name} {getattr(call, 'index', '')}".rstrip()
        elif count[name] > 1:
            number = next_number[name]
            next_number[name] += 1
            name = f"{name} {number}"
        named.append((name, call))
    return named


def label_line(name: str, line: str, colour: str = "") -> str:
    """A line of a call behind the name of the call, safe to show on a terminal.

    Parameters
    ----------
    name : str
        The name.
    line : str
        One line. Of what a progress bar has drawn over itself, the last state is shown.
    colour : str, default ""
        Code of a colour for the name, as terminals know it; "": none.

    Examples
    --------
    >>> label_line("fit 7", "loss 0.5")
    'fit 7 | loss 0.5'
    """
    shown = escape_control(line.rstrip("\r").rpartition("\r")[2])
    name = escape_control(name)
    return f"\x1b[{colour}m{name}\x1b[0m | {shown}" if colour else f"{name} | {shown}"


def colour_of(name: str) -> str:
    """The colour of a name: always the same one, most often not that of its neighbours."""
    return ECHO_COLOURS[sum(name.encode("utf-8", "replace")) % len(ECHO_COLOURS)]


def summary_line(names: Sequence[str], total: int) -> str:
    """One line about the calls that wrote to stderr.

    Examples
    --------
    >>> summary_line(["fit 7", "fit 9"], 40)
    "mars: 2 of 40 calls wrote to stderr: fit 7, fit 9; '.log' of each shows it"
    """
    shown = ", ".join(names[:ECHO_NAMES])
    if len(names) > ECHO_NAMES:
        shown += ", …"
    calls = "call" if total == 1 else "calls"
    each = " of each" if len(names) > 1 else ""
    return escape_control(
        f"mars: {len(names)} of {total:,} {calls} wrote to stderr: {shown}; '.log'{each} shows it"
    )


class Echo:
    """Shows what calls print while they run, or what those printed that have failed.

    Parameters
    ----------
    mode : {"all", "failures"}
        What is shown.
    feeds : iterable of Feed
        What gives the lines.
    show : callable
        Shows one line.
    colour : bool, default False
        Whether names have colours.
    """

    def __init__(
        self,
        mode: str,
        feeds: Iterable[Feed],
        show: Callable[[str], object],
        *,
        colour: bool = False,
    ) -> None:
        self._all = mode == "all"
        self._left = list(feeds)
        self._show = show
        self._colour = colour

    def look(self) -> bool:
        """Show what is new; whether more can come."""
        left = []
        for feed in self._left:
            lines, over = feed.look() if self._all else feed.failed()
            for name, line in lines:
                self._show(label_line(name, line, colour_of(name) if self._colour else ""))
            if not over:
                left.append(feed)
        self._left = left
        return bool(left)


__all__ = [
    "Echo", "Feed", "MODES", "check_mode", "colour_of", "label_line", "labels", "summary_line",
]  # fmt: skip
