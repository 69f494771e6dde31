"""Words that all views of a run share. Pure."""

from __future__ import annotations

from mars.report.record import Record


def missing_line(record: Record) -> str:
    """What views say of attempts that are not kept any more."""
    return (
        f"{record.missing:,} older attempts are not in these numbers: only their sums by function "
        f"are kept (`record.folded`)"
    )


def format_seconds(seconds: float) -> str:
    """A time for tables: ``1.2 s``, ``3.4 ms``, ``12 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1 or unit == "us":
            value = seconds * scale
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return ""
