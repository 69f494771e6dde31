"""The report on runs: its numbers, what follows from them, and how it is printed and saved."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import NamedTuple

from mars.errors import UsageError
from mars.observe.observation import EndedAttempt
from mars.observe.progress import format_duration
from mars.report.advice import advice_for
from mars.report.losses import CAUSES, ON_CPU, counted, losses
from mars.report.path import critical_path, own_seconds
from mars.report.record import Record, to_json, windows
from mars.report.words import format_seconds, missing_line


class FunctionRow(NamedTuple):
    """All attempts of one function, of a report; seconds and bytes.

    Attributes
    ----------
    function : str
        Its name.
    calls : int
        Calls that ended, items of maps counted one by one.
    attempts : int
        Attempts; a block of a map is one.
    failed : int
        Attempts that ended otherwise than with a value.
    work_s : float
        How long the function ran, without waiting for calls of its own.
    mean_s, longest_s : float
        For one call. Of blocks of more than 100 items only the mean is known.
    cpu_s : float
        Processor time.
    read_bytes, written_bytes : int
        Arguments and inputs, and results.
    peak_bytes : int
        Memory of the process that took most; 0 if nobody looked.
    """

    function: str
    calls: int
    attempts: int
    failed: int
    work_s: float
    mean_s: float
    longest_s: float
    cpu_s: float
    read_bytes: int
    written_bytes: int
    peak_bytes: int


class WorkerLine(NamedTuple):
    """One worker, of a report: its number, node, process, attempts, and seconds."""

    worker: int
    node: str
    pid: int
    attempts: int
    busy_s: float
    work_s: float


@dataclass(frozen=True)
class Report:
    """Where the time of a session's runs went, and what would help. `Session.report` makes it.

    Attributes
    ----------
    wall_s : float
        Seconds during which a run of the program was under way.
    work_s : float
        Seconds that functions ran, all calls together.
    cores : float
        Cores of the engine.
    critical_path_s : float
        Seconds of the longest chain of calls of which each reads a result of the one before. No
        number of cores makes the runs faster.
    critical_path : list of EndedAttempt
        Its calls, first to last.
    limit_s : float
        The least that the runs can take on these cores: the critical path, or the work divided by
        the cores, whichever is longer. A call with ``cpus=`` counts with its cores.
    efficiency : float
        ``limit_s / wall_s``, 0 to 1.
    losses : dict
        Seconds of core time by cause. They add up to ``wall_s * cores``. "running on a CPU" is the
        only cause that is none of a loss.
    functions : list of FunctionRow
        Those with most work first.
    workers : list of WorkerLine
        By number.
    advice : list of str
        At most three sentences, those that save most first.
    record : Record
        What all of this was made of.

    Examples
    --------
    >>> import mars, mars.remote as mr
    >>> session = mars.new_session(n_cpu=2)
    >>> mr.spawn(sum, [1, 2, 3]).execute().fetch()
    6
    >>> report = session.report()
    >>> report.functions[0].function, report.functions[0].calls
    ('sum', 1)
    >>> session.stop_server()
    """

    wall_s: float
    work_s: float
    cores: float
    critical_path_s: float
    critical_path: list[EndedAttempt]
    limit_s: float
    efficiency: float
    losses: dict[str, float]
    functions: list[FunctionRow]
    workers: list[WorkerLine]
    advice: list[str]
    record: Record = field(repr=False, compare=False)

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        took, share = format_seconds(self.wall_s), f"{self.efficiency:.0%}"
        return f"<Report: {took} on {self.cores:g} cores, {share} of what is possible; print it>"

    def _repr_html_(self) -> str:
        from mars.report.html import summary

        return summary(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a file.

        Parameters
        ----------
        path : str or path
            ``….html``: one page that needs nothing else, with a timeline to zoom into. ``….json``:
            all that ``mars report`` and ``mars what-if`` need.

        Raises
        ------
        UsageError
            The name ends in neither.
        OSError
            The file cannot be written.
        """
        if check_name(path) == ".json":
            text = to_json(self.record)
        else:
            from mars.report.html import page

            text = page(self)
        FilePath(os.fspath(path)).write_text(text, encoding="utf-8")


def check_name(path: str | os.PathLike[str]) -> str:
    """How the name of a file for a report ends.

    Raises
    ------
    UsageError
        It ends in neither .html nor .json.
    """
    ending = FilePath(os.fspath(path)).suffix.lower()
    if ending not in (".json", ".html", ".htm"):
        raise UsageError(
            f"{os.fspath(path)!r}: a report is saved as .html, to be looked at, or as .json, for "
            f"`mars report` and `mars what-if`; give the file one of these endings"
        )
    return ending


def report_of(record: Record) -> Report:
    """The report on what is recorded."""
    own = own_seconds(record)
    useful = counted(record)
    wall_s = sum(end - begin for begin, end in windows(record))
    work_s = sum(seconds for seconds, use in zip(own, useful, strict=True) if use)
    core_s = sum(
        seconds * one.cpus
        for seconds, use, one in zip(own, useful, record.attempts, strict=True)
        if use
    )
    path = critical_path(record, own, useful)
    limit_s = max(path.seconds, core_s / record.cores)
    lost = losses(record, useful)
    functions = _functions(record, own, useful)
    return Report(
        wall_s, work_s, record.cores, path.seconds, path.attempts, limit_s,
        min(1.0, limit_s / wall_s) if wall_s else 1.0, lost, functions, _workers(record, own),
        advice_for(record, path, lost, useful, wall_s, core_s / record.cores), record,
    )  # fmt: skip


def _functions(record: Record, own: list[float], useful: list[bool]) -> list[FunctionRow]:
    by_name: dict[str, list[int]] = defaultdict(list)
    for at, one in enumerate(record.attempts):
        if one.ending != "lost":
            by_name[one.function].append(at)
    rows = []
    for name, places in by_name.items():
        some = [record.attempts[at] for at in places]
        work_s = sum(own[at] for at in places)
        calls = sum(record.attempts[at].size for at in places if useful[at])
        measured = sum(one.size for one in some if one.times is not None)
        rows.append(
            FunctionRow(
                name, calls, len(some), sum(one.ending != "value" for one in some), work_s,
                work_s / max(1, measured),
                max(
                    one.longest_s or own[at] / one.size
                    for at, one in zip(places, some, strict=True)
                ),
                sum(one.cpu_s for one in some), sum(one.read_bytes for one in some),
                sum(one.written_bytes for one in some), max(one.peak_bytes for one in some),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: -row.work_s)


def _workers(record: Record, own: list[float]) -> list[WorkerLine]:
    by_number: dict[int, list[int]] = defaultdict(list)
    for at, one in enumerate(record.attempts):
        by_number[one.worker].append(at)
    lines = []
    for number, places in sorted(by_number.items()):
        some = [record.attempts[at] for at in places]
        lines.append(
            WorkerLine(
                number, some[0].node, some[0].pid, len(some),
                sum(one.times.stored - one.times.received for one in some if one.times is not None),
                sum(own[at] for at in places),
            )
        )  # fmt: skip
    return lines


def as_text(report: Report, width: int = 79) -> str:
    """A report for a terminal, in lines of at most ``width`` characters."""
    total = report.wall_s * report.cores
    calls = sum(row.calls for row in report.functions)
    on_cores = f"{report.cores:g} core{'' if report.cores == 1 else 's'}"
    chain = len(report.critical_path)
    called = f"{calls:,} call{'' if calls == 1 else 's'}"
    took = format_duration(report.wall_s)
    lines = [f"{took} on {on_cores}, {called}: {report.efficiency:.0%} of what is possible"]
    for name, seconds, meaning in (
        ("work", report.work_s, "what functions ran, together"),
        ("critical path", report.critical_path_s, f"{chain} in a row, each reads the one before"),
        ("limit", report.limit_s, f"the least on {on_cores}"),
    ):
        lines.append(f"  {name:<15}{format_seconds(seconds):>9}   {meaning}")
    lines += ["", "core time"]
    for cause in CAUSES:
        seconds = report.losses[cause]
        share = seconds / total if total else 0.0
        if share >= 0.0005 or cause == ON_CPU:
            bar = "█" * round(share * 30)
            lines.append(f"  {cause:<26}{format_seconds(seconds):>9} {share:6.1%}  {bar}")
    if report.functions:
        lines += ["", f"  {'function':<24}{'calls':>9}{'work':>10}{'mean':>10}{'longest':>10}"]
        for row in report.functions[:8]:
            failed = f"  {row.failed} failed" if row.failed else ""
            lines.append(
                f"  {_cut(row.function, 23):<24}{row.calls:>9,}{format_seconds(row.work_s):>10}"
                f"{format_seconds(row.mean_s):>10}{format_seconds(row.longest_s):>10}"
                f"{failed}"[:width]
            )
        if len(report.functions) > 8:
            lines.append(f"  and {len(report.functions) - 8} more")
    if report.record.missing:
        lines += ["", *_wrapped(missing_line(report.record), width, "  ")]
    if report.advice:
        lines += ["", "advice"]
        for sentence in report.advice:
            lines += _wrapped(sentence, width, "  - ")
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(text: str, width: int, lead: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, initial_indent=lead, subsequent_indent=" " * len(lead))
