"""The tables of TPC-H as Parquet files that pandas reads fast.

tpchgen-cli writes them. Its decimals become floats and its dates timestamps, once, and large tables
get a row group for each chunk.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

NAMES: Final = (
    "customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier",
)  # fmt: skip

ROWS_OF_A_FILE: Final = 1_500_000
"""A table with more rows has several files, each of which becomes a chunk: about 200 MB of
lineitem in memory."""


def made(folder: Path, scale: float) -> Path:
    """The folder that has the tables of a scale factor; they are made if they are not there."""
    home = folder / f"sf{scale:g}"
    if (home / "done").exists():
        return home
    raw = folder / f"raw{scale:g}"
    program = Path(sys.executable).parent / "tpchgen-cli"
    subprocess.run(
        [str(program), "parquet", "-s", f"{scale:g}", "--output-dir", str(raw)], check=True
    )
    for name in NAMES:
        _rewrite(raw / f"{name}.parquet", home / name)
    (home / "done").touch()
    return home


def _rewrite(source: Path, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    target.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(source)
    for number, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_decimal(kind):
            new: pa.DataType = pa.float64()
        elif pa.types.is_date(kind):
            new = pa.timestamp("us")
        elif pa.types.is_string_view(kind):
            new = pa.string()
        else:
            continue
        column = table.column(number)
        if pa.types.is_string_view(kind):
            column = pa.chunked_array([one.cast(new) for one in column.chunks], new)
        else:
            column = column.cast(new)
        table = table.set_column(number, field.name, column)
    count = max(1, -(-table.num_rows // ROWS_OF_A_FILE))
    rows = -(-table.num_rows // count)
    for i in range(count):
        pq.write_table(table.slice(i * rows, rows), target / f"part-{i:03}.parquet")


__all__ = ["NAMES", "made"]
