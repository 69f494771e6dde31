"""Dask's own test of schedulers, any random graph, and what annotations and names become."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Hashable
from operator import add, getitem
from typing import Any

import dask
import pytest
from dask.local import get_sync
from dask.utils_test import GetFunctionTestMixin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mars
import mars.dask
import mars.remote as mr
from mars.dask.plan import Plan, name_of, nodes_of, priorities
from mars.errors import UsageError


class TestMarsGet(GetFunctionTestMixin):  # type: ignore[misc]  # untyped
    get = staticmethod(mars.dask.get)


def combine(*values: Any) -> Any:
    return tuple(values)


def fail(text: str) -> None:
    raise OSError(text)


def keep(value: object) -> object:
    return value


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[dict[Hashable, Any], list[Any]]:
    count = draw(st.integers(1, 25))
    rng = random.Random(draw(st.integers(0, 10_000)))
    graph: dict[Hashable, Any] = {}
    keys: list[Hashable] = []
    for i in range(count):
        key: Hashable = draw(st.sampled_from([f"t-{i}", ("chunk", i)]))
        kind = draw(st.sampled_from(["data", "task", "alias", "nested", "part"]))
        needs = rng.sample(keys, min(len(keys), rng.randint(0, 3)))
        if kind == "data" or not keys:
            graph[key] = rng.choice([i, "text", [1, 2], b"x" * 20_000])
        elif kind == "alias":
            graph[key] = rng.choice(keys)
        elif kind == "nested":
            graph[key] = (combine, [*needs, (combine, *needs)], {"k": 1})
        elif kind == "part":
            source = ("pair", i)
            graph[source] = (combine, *needs, i)
            graph[key] = (getitem, source, 0)
        else:
            graph[key] = (combine, *needs, i)
        keys.append(key)
    wanted = rng.sample(keys, min(len(keys), rng.randint(1, 4)))
    return graph, wanted if rng.random() < 0.7 else [wanted, wanted[0]]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(random_graphs())
def test_any_graph_gives_what_the_synchronous_scheduler_of_dask_gives(drawn: Any) -> None:
    graph, wanted = drawn
    assert mars.dask.get(graph, wanted) == get_sync(graph, wanted)


def test_the_name_is_known_to_dask_and_enable_lasts_to_the_end_of_its_block() -> None:
    one = dask.delayed(os.getpid)()
    assert one.compute(scheduler="mars") != os.getpid()
    with mars.dask.enable():
        assert one.compute() != os.getpid()
    assert one.compute() == os.getpid()
    mars.dask.enable()
    assert one.compute() != os.getpid()
    mars.dask.disable()
    mars.dask.disable()
    assert one.compute() == os.getpid()


def test_a_session_of_ones_own_can_be_given(session: mars.Session) -> None:
    with mars.new_session(engine="inline") as other:
        one = dask.delayed(os.getpid)()
        assert one.compute(scheduler=mars.dask.Scheduler(other)) == os.getpid()
        assert one.compute(scheduler="mars", session=other) == os.getpid()
        assert one.compute(scheduler=mars.dask.Scheduler(session)) != os.getpid()


def test_the_error_of_a_task_is_raised_with_its_own_type() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        mars.dask.get({"half-1": (lambda a: a / 0, 1)}, "half-1")
    assert any("half" in note for note in caught.value.__notes__)


def test_a_graph_that_lacks_a_key_says_which_task_needs_it() -> None:
    from dask.task_spec import Task, TaskRef

    with pytest.raises(UsageError, match=r"'b' needs 'gone'"):
        mars.dask.get({"b": Task("b", add, TaskRef("gone"), 1)}, "b")


def test_calls_are_called_what_dask_calls_the_tasks() -> None:
    assert name_of(["sum-partial-0f3a", "add-12ab"]) == "sum-partial-add"
    assert name_of([("random_sample-ab12cd", 0, 0)]) == "random_sample"
    with pytest.raises(OSError, match="no") as caught:
        mars.dask.get({"load-table-12ab34": (fail, "no")}, "load-table-12ab34")
    assert "load-table('load-table-12ab34') · " in caught.value.__notes__[0]


def test_an_error_names_the_task_of_its_group_that_failed() -> None:
    graph = {("load", 0): (add, 1, 2), ("fail", 0): (fail, ("load", 0)), "end": ("fail", 0)}
    with pytest.raises(OSError) as caught:
        mars.dask.get(graph, "end")
    assert "(('fail', 0)) · " in caught.value.__notes__[0]


def test_a_node_may_have_another_key_than_its_place_in_the_graph() -> None:
    from dask.task_spec import DataNode, Task, TaskRef

    graph = {
        "data": DataNode("other", 1),
        "task": Task("another", add, TaskRef("data"), 1),
        "end": Task("end", add, TaskRef("task"), TaskRef("data")),
    }
    assert mars.dask.get(graph, ["end", "task"]) == (3, 2)


def plan_of(graph: Any, wanted: Any, **said: Any) -> Plan:
    return Plan(nodes_of(graph), wanted, store=lambda value: value, workers=1, **said)


def test_annotations_become_options_of_the_calls_and_tasks_of_other_options_stay_apart() -> None:
    graph = {"a": (keep, 1), "b": (keep, "a"), "c": (keep, "b")}
    said = {
        "retries": {"b": 3},
        "resources": {"b": {"GPU": 1.0, "memory": "1GiB", "CPU": 2}},
        "priority": {"b": 7},
    }
    plan = plan_of(graph, ["c"], annotations=said)
    assert [step.options for step in plan.steps] == [
        {}, {"retries": 3, "gpus": 1, "memory": "1GiB", "cpus": 2, "priority": 7}, {},
    ]  # fmt: skip
    plan = plan_of(graph, ["c"], for_all={"timeout": 5, "color": "blue"})
    assert [step.options for step in plan.steps] == [{"timeout": 5}]


def test_a_resource_that_no_call_can_ask_for_is_refused() -> None:
    with pytest.raises(UsageError, match="'fpga'"), dask.annotate(resources={"fpga": 1}):
        mars.dask.get({"a": (keep, 1)}, "a")


def test_threads_of_an_annotation_are_cores_or_waiting_tasks_but_never_a_guess() -> None:
    both = r"resources=\{'cpus': 4\}.*waiting_threads=4"
    with pytest.raises(UsageError, match=both), dask.annotate(threads=4):
        mars.dask.get({"a": (keep, 1)}, "a")
    plan = plan_of({"a": (keep, 1)}, ["a"], for_all={"resources": {"threads": 2}})
    assert [step.options for step in plan.steps] == [{"cpus": 2}]

    def process_and_thread() -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    with dask.annotate(waiting_threads=8):
        calls = [dask.delayed(process_and_thread)() for _ in range(4)]
        found = dask.compute(*calls, scheduler="mars")
    assert len({pid for pid, _ in found}) == 1 and found[0][0] != os.getpid()
    assert all(name != "MainThread" for _, name in found)


def test_retries_are_made(tmp_path: Any) -> None:
    def flaky() -> int:
        tried = len(list(tmp_path.iterdir()))
        (tmp_path / str(tried)).touch()
        if tried < 2:
            raise OSError("not yet")
        return tried

    with dask.annotate(retries=2):
        assert dask.delayed(flaky)().compute(scheduler="mars") == 2


def test_the_order_of_dask_becomes_a_few_steps_of_priority() -> None:
    assert priorities(4) == [0, -1, -2, -3]
    many = priorities(10_000)
    assert many == sorted(many, reverse=True) and len(set(many)) == 32


def test_what_is_computed_inside_a_task_runs_too() -> None:
    def inner(n: int) -> int:
        return int(dask.delayed(sum)([1, n]).compute(scheduler="mars"))

    assert dask.delayed(inner)(2).compute(scheduler="mars") == 3


def kill_once(path: str, value: int) -> int:
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), 9)
    return value


def test_a_worker_that_is_killed_in_the_middle_costs_no_result(tmp_path: Any) -> None:
    path = str(tmp_path / "killed")
    parts = [dask.delayed(kill_once)(path, i) for i in range(20)]
    assert dask.delayed(sum)(parts).compute(scheduler="mars") == sum(range(20))
    assert os.path.exists(path)


def test_logs_of_tasks_are_read_from_what_stands_for_them(session: mars.Session) -> None:
    def loud() -> int:
        print("from a task of dask")
        return 1

    [kept] = mars.dask.persist([dask.delayed(loud)()])
    [node] = kept.dask.values()
    assert isinstance(node.func.stored, mr.Object)
    assert "from a task of dask" in str(node.func.stored.fetch_log())
