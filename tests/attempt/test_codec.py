"""Arguments of calls, with outputs of other calls among them."""

from __future__ import annotations

import pytest

from mars import remote as mr
from mars.attempt import codec


def objects(count: int) -> list[mr.Object[int]]:
    return [mr.spawn(abs, args=(-number,)) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 8, 9])
def test_arguments_that_are_outputs_alone_arrive_in_their_order(count: int) -> None:
    given = objects(count)
    data, buffers, found = codec.encode_arguments((*given,), {})
    assert (found, list(buffers)) == (given, [])
    values = [object() for _ in given]
    args, kwargs = codec.decode_arguments(data, (), values)
    assert len(args) == count and kwargs == {}
    assert all(one is value for one, value in zip(args, values, strict=True))


def test_an_output_that_is_given_twice_is_one_object_in_the_call() -> None:
    one, other = objects(2)
    data, _, found = codec.encode_arguments((one, other, one), {})
    assert found == [one, other]
    values: list[list[int]] = [[], []]
    (first, second, third), _ = codec.decode_arguments(data, (), values)
    assert first is third is values[0] and second is values[1]


def test_outputs_among_other_arguments_arrive_in_their_places() -> None:
    one, other = objects(2)
    data, _, found = codec.encode_arguments((one, 5, [other]), {})
    assert found == [one, other]
    args, _ = codec.decode_arguments(data, (), ["first", "second"])
    assert args == ("first", 5, ["second"])
    data, _, found = codec.encode_arguments((one,), {"other": other})
    assert found == [one, other]
    args, kwargs = codec.decode_arguments(data, (), ["first", "second"])
    assert args == ("first",) and kwargs == {"other": "second"}
