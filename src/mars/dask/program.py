"""The function of a group's call: it computes the tasks of the group, one after the other.

`mars.dask.plan` puts the program of a group together, and `mars.dask.running` spawns `run_group`
with it. A value is dropped as soon as no task of the group needs it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from mars.attempt import context

if TYPE_CHECKING:
    from dask._task_spec import GraphNode
    from numpy import ndarray

    from mars.calls.objects import Object
    from mars.sessions.session import Session

from mars.dask.small_frames import Packer, unpacked

Key = Hashable


class Program:
    """The tasks of a group.

    Parameters
    ----------
    nodes : sequence of GraphNode
        The tasks, each after those of the group that it needs.
    outputs : sequence
        Keys of the tasks whose values are the result.
    names : dict
        Other names that tasks use for keys.
    reads : sequence
        Keys of what the group is given.
    inside : bool
        Whether only other groups read its outputs: these may travel in any form.
    """

    __slots__ = ("inside", "names", "nodes", "outputs", "reads")

    def __init__(
        self,
        nodes: Sequence[GraphNode],
        outputs: Sequence[Key],
        names: dict[Key, Key],
        reads: Sequence[Key],
        inside: bool = False,
    ) -> None:
        self.nodes = nodes
        self.outputs = outputs
        self.names = names
        self.reads = reads
        self.inside = inside

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Program, (self.nodes, self.outputs, self.names, self.reads, self.inside)

    def __repr__(self) -> str:
        # Errors and reports show it as the argument of the call.
        count = len(self.nodes)
        return f"<{count} tasks>" if count > 1 else "<1 task>"


def run_group(program: Program, *values: object) -> object:
    """Run the tasks of a group.

    Parameters
    ----------
    program : Program
        The tasks.
    *values
        What other groups have made, and data of the graph.

    Returns
    -------
    object
        The value of the output, or a list of the values of several outputs.
    """
    nodes, outputs, names = program.nodes, program.outputs, program.names
    pack: Callable[[object], object] = Packer() if program.inside else _as_it_is
    known: dict[Key, object] = dict(zip(program.reads, map(unpacked, values), strict=True))
    if len(nodes) == 1 and not names:
        return pack(_run(nodes[0], known))
    del values
    uses: dict[Key, int] = dict.fromkeys(outputs, 1)
    needs = []
    for node in nodes:
        found = [(key, names.get(key, key)) for key in node.dependencies]
        needs.append(found)
        for _, key in found:
            uses[key] = uses.get(key, 0) + 1
    given: dict[Key, object] = {}
    for node, found in zip(nodes, needs, strict=True):
        for key, source in found:
            given[key] = known[source]
        known[node.key] = _run(node, given)
        given.clear()
        for _, source in found:
            left = uses[source] = uses[source] - 1
            if not left:
                del known[source]
    if len(outputs) == 1:
        return pack(known[outputs[0]])
    return [pack(known[key]) for key in outputs]


def _run(node: GraphNode, given: dict[Key, object]) -> object:
    try:
        return node(given)
    except BaseException:
        context.show_arguments(node.key)  # which chunk it was
        raise


def _as_it_is(value: object) -> object:
    return value


def part_of(
    stored: memoryview, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str
) -> ndarray:
    """A part of an array whose bytes are stored as a whole. Nothing is copied."""
    import numpy

    return numpy.ndarray(shape, dtype, buffer=stored, offset=offset, strides=strides)


class Stands:
    """The value of a persisted task, where a task has to be: called, it gives the value."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self) -> object:
        return self.value


class Kept:
    """A persisted task in a graph: called, it fetches the value. So any scheduler can run it.

    Parameters
    ----------
    stored : Object
        Stands for the value. Our scheduler takes it as it is.
    session : Session
        The session that has the value.
    """

    __slots__ = ("session", "stored")

    def __init__(self, stored: Object[object], session: Session) -> None:
        self.stored = stored
        self.session = session

    def __call__(self) -> object:
        return self.session.fetch(self.stored)

    def __dask_tokenize__(self) -> object:
        return ("mars-kept", self.stored.key, self.stored.index)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        # Inside the arguments of a call the object becomes its value.
        return Stands, (self.stored,)


__all__ = ["Kept", "Program", "Stands", "part_of", "run_group"]
