"""How calls look in a REPL, in a list and in a notebook: name, state, time, last line of the log.

Reprs are one line for each call. Tables are plain HTML that takes its colours from the notebook,
so that they can be read on light and on dark. Nothing here runs or waits for a call, and nothing
raises: what cannot be read is left out. Loaded when somebody looks.
"""

# Without `from __future__ import annotations`: of text that stands for a type, NamedTuple compiles
# each piece, and the first one in a process takes 2 ms.

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from mars.engines.outcome import failure_of
from mars.logs import escape_control, last_bytes
from mars.observe.states import (
    CANCELLED,
    FAILED,
    HAVE_VALUES,
    NOT_STARTED,
    RUNNING,
    STATES,
    State,
    seconds,
    state_in,
    title_of,
)
from mars.settings import SHOWN_CALLS, SHOWN_CHARACTERS, SHOWN_LOG_BYTES
from mars.task import TIMING, Call, Realm, Task

if TYPE_CHECKING:
    from mars.calls.maps import MapCall
    from mars.engine import SessionRealm

    class _Shown(Protocol):
        """An object or a map."""

        def states(self) -> Sequence[object]: ...
        def rows_shown(self, most: int) -> "Sequence[Row]": ...


_COLOURS: Final = {
    RUNNING: "#3b82f6", FAILED: "#e5484d", CANCELLED: "#d97706",
    **dict.fromkeys(HAVE_VALUES, "#30a46c"),
}  # fmt: skip
"""Of states, in tones that can be read on white and on black. Others have that of the text."""


class Row(NamedTuple):
    """What is shown of one call.

    Attributes
    ----------
    name : str
        Its name; for an item, which one it is.
    state : State
        What it does now.
    took_s : float or None
        Seconds that its last attempt ran, once it has ended.
    last : str
        Its error if it failed, else the last line that it printed.
    where : str
        In which session that is, if it is not the default one.
    """

    name: str
    state: State
    took_s: float | None
    last: str
    where: str = ""

    def told(self, now: float) -> str:
        """The state, with the time that the call has taken."""
        told = self.state.told(now)
        if self.took_s is not None and self.state.word != NOT_STARTED:
            told += f" {'in' if self.state.word in HAVE_VALUES else 'after'} {seconds(self.took_s)}"
        return f"{told}, {self.where}" if self.where else told

    def line(self, now: float) -> str:
        """All of it on one line."""
        last = f" | {self.last}" if self.last else ""
        return _short(f"{self.name}: {self.told(now)}{last}")


def row_of(call: Call, default: "SessionRealm | None") -> Row:
    """What is shown of a call.

    Parameters
    ----------
    call : Call
        The call.
    default : object
        The realm of the default session; None: there is none.
    """
    name = title_of(call)
    last = call.task or (None if call.whole is None else call.whole.task)
    realm: Realm | None = default
    if last is not None and (realm is None or _task_in(call, realm) is None):
        realm = last.realm
    if realm is None:
        return Row(name, State(NOT_STARTED), None, "")
    try:
        state = state_in(call, realm)
    except Exception:  # noqa: BLE001  # its engine is ending just now
        return Row(name, State(NOT_STARTED), None, "")
    task = call.task_in(realm)
    if task is None and call.whole is not None:
        task = call.whole.seen(realm, call.index)  # type: ignore[attr-defined]
    return _row(name, state, task, realm, default)


def rows_of_map(whole: "MapCall", default: "SessionRealm | None", most: int) -> list[Row]:
    """What is shown of the first items of a map.

    Parameters
    ----------
    whole : MapCall
        The map.
    default : object
        The realm of the default session; None: there is none.
    most : int
        So many items.
    """
    last = whole.task
    realm = default
    if last is not None and (realm is None or whole.task_in(realm) is None):
        realm = cast("SessionRealm", last.realm)
    if realm is None:
        states: Sequence[State] = [State(NOT_STARTED)] * whole.count
    else:
        states = whole.states(realm)
    return [
        _row(
            f"item {index} of {whole.name}",
            state,
            None if realm is None else whole.seen(realm, index),
            realm,
            default,
        )
        for index, state in enumerate(states[:most])
    ]


def _row(name: str, state: State, task: Task | None, realm: object, default: object) -> Row:
    where = ""
    if realm is not None and realm is not default and state.word != NOT_STARTED:
        closed = getattr(realm, "closed", False)
        if closed or default is not None:
            where = "in a session that is closed" if closed else "in another session"
    if task is None:
        return Row(name, state, None, "", where)
    text = ""
    with contextlib.suppress(Exception):  # a log or an error that cannot be read is left out
        known = cast("SessionRealm", realm)
        text = _error_of(task) if state.word == FAILED else _last_line(task, known)
    return Row(name, state, _took_s(task), text, where)


def _task_in(call: Call, realm: object) -> Task | None:
    return call.task_in(realm) or (None if call.whole is None else call.whole.task_in(realm))


def _took_s(task: Task) -> float | None:
    if task.timing is None:
        return None
    moments = TIMING.unpack(task.timing)
    return max(0.0, float(moments[3] - moments[2]) * 1e-9)


def _error_of(task: Task) -> str:
    error: BaseException = task.failure() if task.broken else failure_of(task)  # type: ignore[attr-defined]
    text = str(error).strip().partition("\n")[0]
    return escape_control(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _last_line(task: Task, realm: "SessionRealm") -> str:
    source = realm.engine.log(task)
    if source is None:
        return ""
    lines = last_bytes(source, SHOWN_LOG_BYTES).decode("utf-8", "replace").split("\n")
    text = next((line for line in reversed(lines) if line.strip()), "")
    # Of a bar that draws over itself, what stands there now.
    return escape_control(text.rstrip("\r").rpartition("\r")[2].strip())


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def tally(states: Iterable[str]) -> str:
    """How many calls are in which state, for people.

    Examples
    --------
    >>> tally(["done", "running", "done"])
    '2 done, 1 running'
    """
    found = Counter(states)
    if len(found) == 1:
        return next(iter(found))
    order = sorted(found, key=lambda word: (word not in HAVE_VALUES, STATES.index(word)))
    return ", ".join(f"{found[word]:,} {word}" for word in order)


def listing(calls: "Sequence[_Shown]") -> str:
    """Objects, tuples and maps under each other, as the items of a tuple.

    Of many, only the first ones and the last one are shown.
    """
    if len(calls) <= SHOWN_CALLS:
        shown = [repr(one) for one in calls]
    else:
        left_out = calls[SHOWN_CALLS - 2 : -1]
        states = [word for one in left_out for word in _flat(one.states())]
        shown = [
            *(repr(one) for one in calls[: SHOWN_CALLS - 2]),
            f"… {len(left_out):,} more: {tally(states)} …",
            repr(calls[-1]),
        ]
    return f"({f',{chr(10)} '.join(shown)}{',' if len(calls) == 1 else ''})"


def _flat(states: Iterable[object]) -> list[str]:
    nested = (_flat(one) if isinstance(one, list) else [str(one)] for one in states)
    return [word for some in nested for word in some]


def table_of(leaves: "Sequence[_Shown]", caption: str) -> str:
    """Objects and maps as one table for notebooks.

    Parameters
    ----------
    leaves : sequence of Object or MapObjects
        What to show: each object, and the items of each map.
    caption : str
        What they are.
    """
    rows: list[Row] = []
    for leaf in leaves:
        if len(rows) >= SHOWN_CALLS:
            break
        rows += leaf.rows_shown(SHOWN_CALLS - len(rows))
    count = sum(len(leaf) if isinstance(leaf, Sequence) else 1 for leaf in leaves)
    return table(rows, caption, count - len(rows))


def table(rows: Sequence[Row], caption: str, left_out: int = 0) -> str:
    """Calls as a table for notebooks.

    Parameters
    ----------
    rows : sequence of Row
        The calls to show.
    caption : str
        What they are.
    left_out : int, default 0
        How many further calls are not shown.
    """
    now = time.monotonic()
    left, wide = "text-align:left", "text-align:left;max-width:50em;overflow-wrap:anywhere"
    lines = []
    for row in rows:
        colour = _COLOURS.get(row.state.word, "inherit")
        lines.append(
            f'<tr><td style="{left}">{escape(row.name)}</td>'
            f'<td style="{left};white-space:nowrap;color:{colour}">{escape(row.told(now))}</td>'
            f'<td style="{wide}">{_line(row.last)}</td></tr>'
        )
    if left_out:
        lines.append(f'<tr><td style="{left}" colspan="3">… {left_out:,} more</td></tr>')
    heads = "".join(f'<th style="{left}">{head}</th>' for head in ("call", "state", "last line"))
    return (
        f'<table><caption style="{left}">{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _line(text: str) -> str:
    # Notebooks give code a ground of its own, which looks odd if there is none.
    return f"<code>{escape(_short(text))}</code>" if text else ""


__all__ = ["Row", "listing", "row_of", "rows_of_map", "table", "table_of", "tally"]
