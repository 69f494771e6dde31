"""What `dask.annotate` says about tasks, as options of the calls that run them.

Pure. `mars.dask.plan` asks for the options of each task.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

from mars.calls.options import CHECKS
from mars.errors import UsageError

Key = Hashable

RESOURCES: Final = {
    "cpu": "cpus", "cpus": "cpus", "cores": "cpus", "threads": "cpus", "memory": "memory",
    "mem": "memory", "gpu": "gpus", "gpus": "gpus",
}  # fmt: skip
"""Names of resources, in small letters, and the options of a call that they mean."""

OPTIONS: Final = tuple(
    name for name in CHECKS if name not in ("name", "depends", "cache", "threads")
)
"""Options of a call that an annotation may give under their own name."""

WAITING: Final = "waiting_threads"
"""The annotation for ``threads=`` of a call. In Dask, threads are what a task computes with."""

Annotations = Mapping[str, Mapping[Key, object]]
"""As Dask has them: for each kind of annotation, the value for each task."""


class Labels:
    """The options of the calls of tasks.

    Tasks with the same options have the same label, so they can be told apart quickly. The label of
    tasks without options is None.

    Parameters
    ----------
    by_task : mapping
        Annotations of single tasks, as ``__dask_annotations__()`` gives them.
    for_all : mapping
        Annotations of the whole graph, as `dask.get_annotations` gives them.
    """

    def __init__(self, by_task: Annotations, for_all: Mapping[str, object]) -> None:
        self._by_task = by_task
        self._for_all = _options(for_all)
        self._plain = not by_task and not self._for_all
        self._known: dict[object, tuple[tuple[str, object], ...]] = {}

    def __call__(self, key: Key) -> object:
        if self._plain:
            return None
        said = dict(self._for_all)
        if self._by_task:
            mine = {kind: of[key] for kind, of in self._by_task.items() if key in of}
            said.update(_options(mine))
        if not said:
            return None
        label = tuple(sorted(said.items(), key=lambda item: item[0]))
        return self._known.setdefault(repr(label), label)

    @staticmethod
    def options(label: object) -> dict[str, object]:
        """The options that a label means."""
        return dict(label) if isinstance(label, tuple) else {}


def annotations_of(graph: object, nodes: Mapping[Key, object]) -> Annotations:
    """What the parts of a graph were annotated with, for each task.

    Dask forgets annotations of arrays where it fuses their tasks. The layers that the arrays were
    made of still have them, and the last task that was fused has the name of its layer.

    Parameters
    ----------
    graph : mapping or expression
        As Dask gives it to a scheduler.
    nodes : mapping
        Its nodes.
    """
    found: dict[str, dict[Key, object]] = {}
    layers: dict[str, Mapping[str, object]] = {}
    for part in getattr(graph, "operands", ()):
        for name, layer in getattr(getattr(part, "hlg", None), "layers", {}).items():
            if layer.annotations:
                layers[name] = layer.annotations
    if layers:
        for key, node in nodes.items():
            said = layers.get(str(key[0] if isinstance(key, tuple) and key else key))
            for kind, value in (said or {}).items():
                given = value(key) if callable(value) else value
                found.setdefault(kind, {})[getattr(node, "target", key)] = given
    for kind, of in getattr(graph, "__dask_annotations__", dict)().items():
        found.setdefault(kind, {}).update(of)
    return found


def _options(said: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for kind, value in said.items():
        if value is None:
            continue
        if kind == "resources":
            found.update(_resources(value))
        elif kind == "retries":
            if value:
                found["retries"] = value
        elif kind == "threads":
            raise UsageError(
                f"annotate(threads={value!r}) could mean two things. For cores that a task "
                f"computes with, write annotate(resources={{'cpus': {value!r}}}). For tasks that "
                f"mostly wait, so many of which may share one process, write "
                f"annotate({WAITING}={value!r})"
            )
        elif kind == WAITING:
            found["threads"] = value
        elif kind in OPTIONS:
            found[kind] = value
    return found


def _resources(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise UsageError(
            f"annotate(resources={value!r}): resources have to be a dict, such as "
            f"{{'cpus': 2, 'memory': '4GiB', 'gpus': 1}}"
        )
    found: dict[str, object] = {}
    for name, amount in value.items():
        option = RESOURCES.get(str(name).lower())
        if option is None:
            raise UsageError(
                f"annotate(resources={{{name!r}: ...}}): mars has no resource of this name; it "
                f"knows 'cpus', 'memory' and 'gpus'. Leave the annotation away, or name one of them"
            )
        if option == "gpus" and isinstance(amount, float) and amount.is_integer():
            amount = int(amount)
        found[option] = amount
    return found


__all__ = ["Annotations", "Labels", "annotations_of"]
