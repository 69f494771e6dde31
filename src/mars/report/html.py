"""A report as HTML: a summary for notebooks, and a page of its own with a timeline. Pure.

The page asks for nothing outside itself. What comes from the program (names of calls and nodes) is
escaped; in the script it stands as JSON without ``<``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Final, Protocol

from mars.observe.observation import EndedAttempt
from mars.observe.progress import format_duration
from mars.report.losses import CAUSES
from mars.report.record import Record
from mars.report.timeline import start_of
from mars.report.words import format_seconds, missing_line

SHOWN: Final = 100_000
"""Attempts in the timeline of a page, the newest: 10 MB."""

# From blue over grey to orange: told apart by people who do not see red and green apart, too.
COLOURS: Final = (
    "#2563a8", "#8fb3d9", "#b9a3d6", "#7d5fb2", "#5aa59a", "#b3402e", "#d9a441", "#e0c890",
    "#8c6d31", "#9aa3ad", "#d5d9de", "#eef0f2",
)  # fmt: skip


class ShownFunction(Protocol):
    """What is shown of the calls of one function."""

    @property
    def function(self) -> str: ...
    @property
    def calls(self) -> int: ...
    @property
    def work_s(self) -> float: ...
    @property
    def mean_s(self) -> float: ...
    @property
    def longest_s(self) -> float: ...
    @property
    def cpu_s(self) -> float: ...
    @property
    def failed(self) -> int: ...


class Shown(Protocol):
    """What is shown of a `mars.report.report.Report`."""

    @property
    def wall_s(self) -> float: ...
    @property
    def work_s(self) -> float: ...
    @property
    def cores(self) -> float: ...
    @property
    def critical_path_s(self) -> float: ...
    @property
    def critical_path(self) -> list[EndedAttempt]: ...
    @property
    def limit_s(self) -> float: ...
    @property
    def efficiency(self) -> float: ...
    @property
    def losses(self) -> dict[str, float]: ...
    @property
    def functions(self) -> Sequence[ShownFunction]: ...
    @property
    def advice(self) -> list[str]: ...
    @property
    def record(self) -> Record: ...


def summary(report: Shown) -> str:
    """The numbers of a report, for a notebook or as a part of its page."""
    total = report.wall_s * report.cores or 1.0
    shown = [
        (cause, report.losses[cause], colour)
        for cause, colour in zip(CAUSES, COLOURS, strict=True)
        if report.losses[cause] >= 0.0005 * total
    ]
    bar = "".join(
        f'<span style="flex:{seconds / total:.5f};background:{colour}" '
        f'title="{escape(cause)}: {format_seconds(seconds)} ({seconds / total:.1%})"></span>'
        for cause, seconds, colour in shown
    )
    causes = "".join(
        f'<tr><td><span style="display:inline-block;width:.8em;height:.8em;margin-right:.5em;'
        f'background:{colour}"></span>{escape(cause)}</td><td>{format_seconds(seconds)}</td>'
        f"<td>{seconds / total:.1%}</td></tr>"
        for cause, seconds, colour in shown
    )
    functions = "".join(
        f"<tr><td>{escape(row.function)}</td><td>{row.calls:,}</td>"
        f"<td>{format_seconds(row.work_s)}</td><td>{format_seconds(row.mean_s)}</td>"
        f"<td>{format_seconds(row.longest_s)}</td><td>{format_seconds(row.cpu_s)}</td>"
        f"<td>{row.failed or ''}</td></tr>"
        for row in report.functions[:50]
    )
    advice = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.advice)
    missing = (
        f"<p><em>{escape(missing_line(report.record))}</em></p>" if report.record.missing else ""
    )
    on_cores = f"{report.cores:g} core{'' if report.cores == 1 else 's'}"
    return f"""<div class="mars-report">
<p><strong>{escape(format_duration(report.wall_s))}</strong> on {on_cores}:
<strong>{report.efficiency:.0%}</strong> of what is possible. Work
{format_seconds(report.work_s)}, critical path {format_seconds(report.critical_path_s)}, limit
{format_seconds(report.limit_s)}.</p>{missing}
<div role="img" aria-label="core time by cause" style="display:flex;height:1.4em;max-width:60em">\
{bar}</div>
{f"<h4>Advice</h4><ol>{advice}</ol>" if advice else ""}
<table><thead><tr><th scope="col">core time</th><th scope="col">seconds</th>\
<th scope="col">share</th></tr></thead><tbody>{causes}</tbody></table>
<table><thead><tr><th scope="col">function</th><th scope="col">calls</th><th scope="col">work</th>\
<th scope="col">mean</th><th scope="col">longest</th><th scope="col">CPU</th>\
<th scope="col">failed</th></tr></thead><tbody>{functions}</tbody></table>
</div>"""


def page(report: Shown) -> str:
    """A page that needs nothing else, with a timeline to zoom into."""
    template = files("mars.report").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(_data(report), separators=(",", ":")).replace("<", "\\u003c")
    for mark, text in (("@@SUMMARY@@", summary(report)), ("@@DATA@@", data)):
        template = template.replace(mark, text)
    return template


def _data(report: Shown) -> dict[str, object]:
    record = report.record
    zero = start_of(record)
    critical = {one.number for one in report.critical_path}
    lanes: dict[int, int] = {}
    names: dict[str, int] = {}
    rows = []
    for one in record.attempts[-SHOWN:]:
        begin = one.times.received if one.times is not None else one.sent
        if one.ending == "lost" or (one.times is None and not begin):
            continue
        lane = lanes.setdefault(one.worker, len(lanes))
        name = names.setdefault(one.name, len(names))
        called, returned = (
            (one.times.called, one.times.returned) if one.times is not None else (begin, one.ended)
        )
        rows.append(
            [
                lane, name, *[round(x - zero, 6) for x in (begin, called, returned, one.ended)],
                one.ending, one.attempt, one.size, round(one.cpu_s, 6),
                int(one.number in critical),
            ]
        )  # fmt: skip
    workers = record.workers
    return {
        "rows": rows,
        "names": list(names),
        "lanes": [
            f"{workers[number].node} · {number}" if number in workers else str(number)
            for number in lanes
        ],
        "left out": max(0, len(record.attempts) - SHOWN),
    }
