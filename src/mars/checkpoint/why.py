"""Why a call ran again: what differs between it and an earlier one.

Called by ``mars runs why``.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import tokenize
from typing import TYPE_CHECKING, Final

from mars.checkpoint.history import History, PastCall
from mars.checkpoint.journal import Kept

if TYPE_CHECKING:
    from mars.checkpoint.folder import Facts


def nearest(history: History, entry: PastCall) -> PastCall | None:
    """Find the earlier call that is most like this one; None: no run before had one of its name."""
    best, best_score = None, (-1, -1)
    for other in history.entries.values():
        if other.name != entry.name or other.found.raw.position >= entry.found.raw.position:
            continue
        if other.run is entry.run:
            continue
        same = sum(a == b for a, b in zip(other.arguments, entry.arguments, strict=False))
        same += 2 * (other.found.function == entry.found.function)
        same += sum(a == b for a, b in zip(other.inputs, entry.inputs, strict=False))
        score = (2 * same + (other.place == entry.place), other.found.raw.position)
        if score > best_score:
            best, best_score = other, score
    return best


def differences(history: History, old: PastCall, new: PastCall) -> list[str]:
    """Say in words what differs between two calls."""
    lines = []
    if old.found.function != new.found.function:
        lines += _code_differences(old.code, new.code)
    before, after = old.arguments, new.arguments
    if len(before) != len(after) or old.names != new.names:
        lines.append(f"it has {len(after)} argument(s) instead of {len(before)}, or other names")
    else:
        lines += [
            f"argument `{new.label(position)}` differs"
            for position, (a, b) in enumerate(zip(before, after, strict=True))
            if a != b
        ]
    for position, pair in enumerate(itertools.zip_longest(old.inputs, new.inputs)):
        if pair[0] != pair[1]:
            source = history.input(pair[1][0]) if pair[1] else None
            name = "?" if source is None else f"{source.name} ({source.key.hex()[:8]})"
            lines.append(f"input {position} comes from another call: {name}")
    one, two = old.found, new.found
    if isinstance(one, Kept) and isinstance(two, Kept):
        if one.n_output != two.n_output:
            lines.append(f"n_output is {two.n_output} instead of {one.n_output}")
        if one.ordinal != two.ordinal:
            lines.append(f"{two.ordinal} equal call(s) stand before it instead of {one.ordinal}")
    if new.code.get("draws") and (old.place != new.place or old.run.entropy != new.run.entropy):
        lines.append(
            "it may draw from mars.remote.rng, and its seed or its place among the calls is another"
        )
    return lines or ["what depends= declares differs, or a seed"]


def _code_differences(old: Facts, new: Facts) -> list[str]:
    if not old or not new:
        return ["its function, of which no more is known: that record is damaged"]
    before, after = old["parts"], new["parts"]
    lines = []
    for part in sorted(before.keys() | after.keys()):
        if before.get(part) == after.get(part):
            continue
        if part not in after:
            lines.append(f"{part} is not reached any more")
        elif part not in before:
            lines.append(f"{part} is reached now")
        elif part.startswith(("package ", "python")):
            lines.append(f"{part} is {after[part]} instead of {before[part]}")
        elif part in new["sources"] and part in old["sources"]:
            lines.append(f"{part} changed{_where(old['sources'][part], new['sources'][part])}")
        else:
            lines.append(f"{part} changed")
    return lines or ["its function reaches the same parts in another way"]


def _where(old: tuple[str, int, str], new: tuple[str, int, str]) -> str:
    """Say at which line a source differs; comments do not count."""
    before, after = _meaning(old[2]), _meaning(new[2])
    for number, line in after:
        if before and before[0][1] == line:
            before.pop(0)
        else:
            return f" at line {new[1] + number - 1} of {new[0]}"
    return f" at the end, line {new[1] + new[2].count(chr(10))} of {new[0]}" if before else ""


def _meaning(text: str) -> list[tuple[int, str]]:
    """Return number and text of each line that is more than a comment."""
    lines: dict[int, list[str]] = {}
    # A lambda may be cut out of the middle of an expression: what comes before the error counts.
    with contextlib.suppress(tokenize.TokenError, IndentationError):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _SILENT and token.string.strip():
                lines.setdefault(token.start[0], []).append(token.string)
    return [(number, " ".join(words)) for number, words in lines.items()]


_SILENT: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
)
