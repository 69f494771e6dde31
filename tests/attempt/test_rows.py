"""Arguments of many calls, each pickled by itself."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.attempt import codec
from mars.attempt.rows import Rows, is_fixed, parts, unpacked

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    | st.tuples(inner, inner),
    max_leaves=8,
)  # fmt: skip


@dataclasses.dataclass
class Own:
    value: Any


def taken(items: list[tuple[Any, ...]]) -> Rows:
    rows = Rows()
    rows.take(lambda: items)
    return rows


def back(rows: Rows, indices: Any) -> list[tuple[Any, ...]]:
    data, buffers = rows.block(indices)
    raw = [bytes(one.raw()) for one in buffers]
    shared, items = unpacked(pickle.loads(pickle.dumps(data)), raw)
    return [codec.decode_arguments(*parts(item), shared)[0] for item in items]


@given(st.lists(st.tuples(values, values), max_size=6))
def test_what_was_taken_comes_back(items: list[tuple[Any, ...]]) -> None:
    rows = taken(items)
    assert rows.plain and rows.shared is None
    assert back(rows, range(len(items))) == items
    assert [rows.arguments(i) for i in range(len(items))] == items
    for i in range(0, len(items), 2):
        assert back(rows, [i]) == [items[i]]


@given(st.lists(values, min_size=1, max_size=4))
def test_a_class_of_the_program_stands_beside_the_rows_and_not_in_each(given: list[Any]) -> None:
    rows = taken([(Own(value), [Own(value)]) for value in given])
    assert not rows.plain and rows.shared is not None
    assert all(b"Own" not in parts(row)[0] for row in rows.rows)
    got = back(rows, range(len(given)))
    assert [[args[0].value, args[1][0].value] for args in got] == [[v, v] for v in given]
    assert rows.arguments(0)[0] == Own(given[0])
    data, _ = rows.alone(0)
    assert pickle.loads(data)[0][0].value == given[0]


def test_large_buffers_stay_apart_and_are_not_copied() -> None:
    array = np.zeros(100_000)
    rows = taken([(array,), (np.ones(3),)])
    data, buffers = rows.block(range(2))
    assert len(data) < 2_000 and len(buffers) == 1
    assert np.shares_memory(np.frombuffer(buffers[0].raw(), float), array)
    first, second = back(rows, range(2))
    assert first[0].shape == (100_000,) and (second[0] == 1).all()


def test_the_first_row_that_does_not_pickle_is_the_one_after_the_last_taken() -> None:
    rows = Rows()
    with pytest.raises(TypeError):
        rows.take(lambda: [(1,), ([2],), (iter([3]), open), ((i for i in ()),), (4,)])
    assert len(rows.rows) == 3


@pytest.mark.parametrize(
    ("column", "fixed"),
    [
        (range(3), True), ([1, "a", None], True), ([(1, ("b", (2.0,)))], True),
        ([frozenset({1})], True), ([datetime.date(2026, 1, 1)], True), (list(np.arange(3)), True),
        ([[1]], False), ([(1, [2])], False), ([Own(1)], False), ([np.ones(2)], False),
        ([bytearray(b"x")], False), ([object()], False), ([int], False),
        ([(((((1,),),),),)], False),
        ([np.array([(1,)], [("a", int)])[0]], False),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_change_is_known(column: Any, fixed: bool) -> None:
    assert is_fixed(column) is fixed


def test_a_subclass_of_a_fixed_type_is_looked_at_as_any_other() -> None:
    class Text(str):
        pass

    assert not is_fixed([Text("a")])
    assert back(taken([(Text("a"),)]), [0])[0][0] == "a"


def test_what_cannot_stand_beside_the_rows_stands_in_them() -> None:
    lock = threading.Lock()

    class Holder:
        guard = lock

    with pytest.raises(TypeError, match="lock"):
        taken([(Own(1),), (Holder(),)])
