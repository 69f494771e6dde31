"""Tensors and frames as arguments and results of calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import mars
import mars.dataframe as md
import mars.remote as mr
import mars.tensor as mt


def look(tensor: Any) -> tuple[Any, ...]:
    total = float((tensor + 1).sum().execute().fetch())
    return type(tensor).__name__, tensor.shape, total, tensor[1, :2].fetch().tolist()


def test_a_tensor_arrives_executed() -> None:
    tensor = mt.tensor(np.arange(12).reshape(4, 3), chunk_size=2)
    kind, shape, total, part = mr.spawn(look, (tensor,)).execute().fetch()
    assert (kind, shape, total, part) == ("Tensor", (4, 3), 78.0, [3, 4])


def test_a_frame_arrives_executed() -> None:
    def count(frames: dict[str, Any]) -> tuple[Any, ...]:
        frame = frames["x"]
        return type(frame).__module__, len(frame), int(frame.a.sum().execute().fetch())

    frame = md.DataFrame(pd.DataFrame({"a": range(10)}), chunk_size=3)
    assert mr.spawn(count, ({"x": frame},)).execute().fetch() == ("mars.dataframe", 10, 45)


def test_with_resolve_tileable_input_plain_values_arrive() -> None:
    def kinds(tensor: Any, frame: Any) -> list[str]:
        return [
            type(tensor).__module__,
            type(frame).__module__.partition(".")[0],
            str(tensor.sum()),
        ]

    tensor = mt.ones((4, 4), chunk_size=2)
    frame = md.DataFrame(pd.DataFrame({"a": range(10)}), chunk_size=3)
    call = mr.spawn(kinds, (tensor, frame), resolve_tileable_input=True)
    assert call.execute().fetch() == ["numpy", "pandas", "16.0"]


def test_tensors_in_containers_are_inputs_that_are_computed_once() -> None:
    tensor = mt.ones(4, chunk_size=2).map_chunk(lambda chunk: print("made") or chunk)
    calls = [mr.spawn(lambda box: float(box[0].fetch().sum()), ([tensor],)) for _ in range(3)]
    assert mr.ExecutableTuple(calls).execute().fetch() == [4.0, 4.0, 4.0]
    assert str(tensor.fetch_log()).count("made") == 2


def test_results_can_be_tensors_and_frames() -> None:
    tensor = mr.spawn(np.arange, 10, output_types="tensor")
    assert isinstance(tensor, mt.Tensor)
    assert (tensor + 1).sum().execute().fetch() == 55
    frame = mr.spawn(lambda: pd.DataFrame({"a": [1, 2, 3]}), output_types="dataframe")
    assert frame.a.sum().execute().fetch() == 6
    assert frame.shape == (3, 1)
    one, two = mr.spawn(lambda: (1, np.ones(2)), n_output=2, output_types=["object", "tensor"])
    assert [one.execute().fetch(), two.execute().fetch().sum()] == [1, 2.0]


def test_a_call_may_return_an_executed_tensor() -> None:
    def make() -> Any:
        return mt.ones((3, 3), chunk_size=2).execute()

    made = mr.spawn(make).execute().fetch()
    assert isinstance(made, mt.Tensor) and made.fetch().sum() == 9
    assert (made + 1).to_numpy().sum() == 18


def test_all_kinds_are_executed_together() -> None:
    tensor = mt.ones((4, 4), chunk_size=2)
    frame = md.DataFrame(pd.DataFrame({"a": range(10)}), chunk_size=3)
    call = mr.spawn(sum, ([1, 2],))
    mars.execute(tensor, frame, call)
    assert mars.fetch(call) == 3
    both = mr.ExecutableTuple([tensor.sum(), frame.a.sum(), call]).execute().fetch()
    assert both == [16.0, 45, 3]


def test_a_tensor_of_a_session_that_ended_says_so_or_runs_again() -> None:
    other = mars.new_session(engine="inline", default=False)
    tensor = mt.ones(3).execute(session=other)
    assert tensor.fetch(session=other).sum() == 3
    other.stop_server()
    assert tensor.execute().fetch().sum() == 3
    assert (tensor + 1).execute().fetch().sum() == 6
