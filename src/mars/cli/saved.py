"""What the commands on saved runs have in common: reading the file."""

from __future__ import annotations

import sys
from pathlib import Path

from mars.errors import UsageError
from mars.report.record import Record, from_json


def read_run(path: str) -> Record | None:
    """The saved run in a file. None: it cannot be read, and the user has been told why."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError, UsageError) as error:
        print(error, file=sys.stderr)
        return None
