"""A record of attempts as a table of pandas or Arrow, which are imported here and nowhere else."""

from __future__ import annotations

from math import nan

from mars.observe.attempts import Times
from mars.observe.observation import EndedAttempt
from mars.report.record import Record


def columns_of(record: Record) -> dict[str, list[object]]:
    """Its attempts by column."""
    names = [name for name in EndedAttempt._fields if name != "times"]
    columns: dict[str, list[object]] = {
        name: [getattr(one, name) for one in record.attempts] for name in names
    }
    for place, name in enumerate(Times._fields):
        if name not in columns:
            columns[name] = [
                nan if one.times is None else one.times[place] for one in record.attempts
            ]
    return columns


def frame_of(record: Record) -> object:
    """Its attempts as a DataFrame; without pandas, as a table of pyarrow.

    Raises
    ------
    ImportError
        Neither is installed.
    """
    columns = columns_of(record)
    try:
        import pandas
    except ImportError:
        try:
            import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise ImportError(
                "attempts_frame() needs pandas or pyarrow: pip install pandas"
            ) from None
        return pyarrow.table(columns)
    return pandas.DataFrame(columns)
