"""How many lines of each package say `Any`: the count can only fall.

`Any` switches the type checker off. It is right where a program of the user decides (what `fetch`
gives), where a package has no types (what Ray makes, named once in each module), and where a lower
floor carries what a higher one made. What Dask makes has types in `stubs/`, which are counted, too.
A change that needs one more says so here; one that needs fewer lowers the ceiling.
"""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "mars"
STUBS = Path(__file__).parents[1] / "stubs"

CEILINGS = {
    "": 26,
    "attempt": 8,
    "calls": 17,
    "checkpoint": 4,
    "cli": 2,
    "code": 2,
    "dask": 2,
    "dataframe": 13,
    "deploy/kubernetes": 1,
    "engines": 3,
    "engines/cluster": 8,
    "engines/driver": 10,
    "engines/worker": 1,
    "executors": 1,
    "joblib": 3,
    "learn": 14,
    "learn/contrib": 6,
    "observe": 3,
    "report": 1,
    "sessions": 19,
    "stubs": 5,
    "tensor": 17,
    "tileables": 4,
    "web": 3,
}
"""Lines of code that say `Any`, by package; "" are the modules beside the packages."""


def lines_with_any(text: str) -> set[int]:
    """The lines on which the name stands as code: not in texts, comments or an import of it."""
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.NAME
    ]
    imports = {token.start[0] for token in tokens if token.string == "import"}
    found = {token.start[0] for token in tokens if token.string == "Any"}
    return found - imports


def counted() -> Counter[str]:
    found: Counter[str] = Counter()
    for path in ROOT.rglob("*.py"):
        folders = path.relative_to(ROOT).parts[:-1]
        lines = lines_with_any(path.read_text(encoding="utf-8"))
        found["/".join(folders)] += len(lines)
    for path in STUBS.rglob("*.pyi"):
        found["stubs"] += len(lines_with_any(path.read_text(encoding="utf-8")))
    return +found


def test_what_counts_is_code() -> None:
    text = 'from typing import Any\n\n"""Any."""\nx: Any = 1  # Any\ny: dict[Any, Any] = {}\n'
    assert lines_with_any(text) == {4, 5}


def test_no_package_has_more_of_any_than_its_ceiling() -> None:
    above = {
        package: (count, CEILINGS.get(package, 0))
        for package, count in counted().items()
        if count > CEILINGS.get(package, 0)
    }
    assert not above, f"(lines, ceiling), give them types: {above}"
