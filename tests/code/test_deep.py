"""A pickler with a stack of its own writes what `pickle` writes."""

from __future__ import annotations

import copyreg
import datetime
import io
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.code import deep
from mars.code.deep import DeepPickler


class Plain(DeepPickler):
    """Asks nobody else about objects."""

    dispatch_table = copyreg.dispatch_table

    def reducer_override(self, value: object) -> Any:
        return NotImplemented


def written(value: object) -> bytes:
    file = io.BytesIO()
    Plain(file, 5).dump(value)
    return file.getvalue()


ATOMS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates()
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(ATOMS)
        | st.lists(inner).map(deque)
    ),
)


@given(VALUES)
def test_any_value_comes_back_equal(value: object) -> None:
    assert pickle.loads(written(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        list(range(2_500)), dict.fromkeys(range(1_001)), set(range(1_001)), OrderedDict(a=1),
        defaultdict(list, a=[1]), Counter("aab"), len, int, datetime.UTC, 2**200,
        ValueError("x", 1).args, Ellipsis, complex(1, 2),
    ],
    ids=repr,
)  # fmt: skip
def test_objects_of_many_types_come_back_equal(value: object) -> None:
    assert pickle.loads(written(value)) == value


def test_one_object_stays_one_object_and_cycles_close() -> None:
    shared: list[Any] = [1]
    around: list[Any] = [shared, shared]
    ring = (around, "end")
    around.append(ring)
    made, end = pickle.loads(written(ring))
    assert made[0] is made[1]
    assert made[2][0] is made
    assert end == "end"


class Endless:
    def __reduce__(self) -> tuple[Any, ...]:
        return Endless, (Endless(),)


def test_what_never_ends_is_a_recursion_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep, "PICKLE_LEVELS", 2_000)
    with pytest.raises(RecursionError, match="2,000 levels"):
        written(Endless())
