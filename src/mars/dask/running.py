"""Graphs of Dask, run by mars: what `compute` and `persist` come to.

Dask hands a scheduler a graph and the keys whose values it wants. `mars.dask.plan` makes calls of
the graph. They are spawned, executed in one run, and their values fetched. What Dask calls
"finalize", the putting together of all chunks, happens here in the program: the chunks are mapped,
not copied, and the result is made once. `mars.dask.backend` calls this.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, SupportsInt, TypeVar

from mars.calls.objects import ExecutableTuple, Object
from mars.calls.put import put
from mars.calls.spawn import spawn
from mars.dask import at_home, locks
from mars.dask.annotations import annotations_of
from mars.dask.fused_frames import fused, renamed
from mars.dask.plan import Plan, Step, needed, nodes_of, priorities
from mars.dask.program import Kept, Program, run_group
from mars.dask.shuffles import by_tasks
from mars.dask.threads import stays_here
from mars.sessions.opening import choose
from mars.sessions.session import AnySession, Session, SessionView

if TYPE_CHECKING:
    from dask._expr import Expr
    from dask._task_spec import GraphNode

    from mars.dask.collection import Collection

Key = Hashable
C = TypeVar("C", bound="Collection")
D = TypeVar("D")
G = TypeVar("G")


def compute(
    given: AnySession | None, dsk: object, keys: object, kwargs: Mapping[str, object]
) -> object:
    """Compute keys of a graph; see `mars.dask.Scheduler.get`."""
    from dask.core import flatten

    flat = list(dict.fromkeys(flatten([keys])))
    dsk, names = _made_ready(dsk, flat)
    asked = [names.get(key, key) for key in flat]
    _, _, values = _results(given, dsk, asked, kwargs, together=True, fetch=True)
    return _nested(keys, {key: values[names.get(key, key)] for key in flat})


def persist(
    given: AnySession | None,
    collections: Sequence[D],
    optimize_graph: bool,
    kwargs: Mapping[str, object],
) -> list[D]:
    """Compute collections and keep their chunks; see `mars.dask.Scheduler.persist`."""
    import dask

    def keep(dsk: object, keys: Sequence[Key], **more: object) -> list[object]:
        # What Dask puts into the new graph as the result of each key.
        return _kept(given, dsk, list(keys), more)

    return list(
        dask.persist(
            *collections, traverse=False, optimize_graph=optimize_graph, scheduler=keep, **kwargs
        )
    )


def _kept(
    given: AnySession | None, dsk: object, keys: list[Key], kwargs: Mapping[str, object]
) -> list[object]:
    from mars.dask.kept import KeptTask

    dsk, names = _made_ready(dsk, keys)
    asked = [names.get(key, key) for key in keys]
    session, home, found = _results(given, dsk, asked, kwargs, together=False, fetch=False)
    nodes = []
    for key, source in zip(keys, asked, strict=True):
        one = found[source]
        if source in home:
            nodes.append(one)  # a target of the program, as it is
            continue
        if session is None:
            session = choose(given)
        stored = one if isinstance(one, Object) else put(one, session=session)
        nodes.append(KeptTask(key, Kept(stored, session)))
    return nodes


def _made_ready(dsk: G, keys: Sequence[Key]) -> tuple[G | Expr, dict[Key, Key]]:
    """A graph as mars runs it, and what some of its keys are called in it."""
    from dask._expr import Expr

    if not isinstance(dsk, Expr):
        return dsk, {}
    made = fused(by_tasks(dsk))
    return made, renamed(dsk, made, keys)


def _results(
    given: AnySession | None,
    dsk: object,
    asked: list[Key],
    kwargs: Mapping[str, object],
    *,
    together: bool,
    fetch: bool,
) -> tuple[Session | None, set[Key], dict[Key, object]]:
    """Have keys computed, by calls and by the program itself.

    The session, the keys that the program itself computed, and the value of each key. Without
    ``fetch``, the object of a call stands for its value.
    """
    nodes = needed(nodes_of(dsk), asked)
    home = at_home.tasks_at_home(nodes, asked, together=together)
    inside = set(home)
    inputs = at_home.inputs_of(nodes, home)
    wanted = list(dict.fromkeys([key for key in asked if key not in inside] + inputs))
    session, found = _run(given, dsk, nodes, wanted, kwargs, may_stay=fetch)
    reads = found if fetch else dict.fromkeys(inputs)
    values = {key: _value(found[key], session) for key in reads}
    at_home.run(nodes, home, values)
    for key in asked:
        if key not in inside and not fetch:
            values[key] = found[key]
    return session, inside, {key: values[key] for key in asked}


def _asked_session(kwargs: Mapping[str, object]) -> AnySession | None:
    asked = kwargs.get("session")
    if asked is None or isinstance(asked, (Session, SessionView)):
        return asked
    raise TypeError(f"session has to be a Session, got {asked!r:.80}")


def _value(one: object, session: Session | None) -> object:
    return session.value(one) if isinstance(one, Object) and session is not None else one


def _run(
    given: AnySession | None,
    dsk: object,
    nodes: dict[Key, GraphNode],
    wanted: list[Key],
    kwargs: Mapping[str, object],
    *,
    may_stay: bool,
) -> tuple[Session | None, dict[Key, object]]:
    """Have keys computed: for each its object, or its value if no call was needed for it.

    ``may_stay`` says whether threads of this process may compute them.
    """
    from dask.task_spec import DataNode

    session = _asked_session(kwargs) or given
    if all(type(nodes.get(key)) is DataNode for key in wanted):
        chosen = None if session is None else choose(session)
        return chosen, {key: nodes[key].value for key in wanted}
    chosen = choose(session)
    if may_stay and stays_here(nodes, chosen.address):
        return chosen, _by_threads(nodes, wanted)
    held = locks.Held(chosen)
    try:
        with held:
            plan, objects = _described(dsk, nodes, wanted, chosen, kwargs)
        targets = list(dict.fromkeys(objects.values()))
        if targets:
            execute: Callable[..., object] = ExecutableTuple(targets).execute
            more = {name: kwargs[name] for name in ("show_progress", "seed") if name in kwargs}
            execute(session=chosen, **more)
    finally:
        held.close()
    found: dict[Key, object] = dict(plan.values)
    for key, root in plan.roots.items():
        found[key] = objects[root] if root in objects else plan.stored[root]
    return chosen, found


def _described(
    dsk: object,
    nodes: dict[Key, GraphNode],
    wanted: list[Key],
    session: Session,
    kwargs: Mapping[str, object],
) -> tuple[Plan, dict[Key, Object[object]]]:
    """The plan for some keys, with its calls spawned: the objects of what is asked for."""
    from dask.base import get_annotations

    asked = kwargs.get("num_workers") or session.get_total_n_cpu()
    if not isinstance(asked, (str, SupportsInt)):
        raise TypeError(f"num_workers has to be a number, got {asked!r}")
    plan = Plan(
        nodes,
        wanted,
        store=lambda value: put(value, session=session),
        workers=max(1, int(asked)),
        annotations=annotations_of(dsk, nodes),
        for_all=get_annotations(),
        adopt=lambda kept: _adopted(kept, session),
    )
    return plan, _spawned(plan)


def _described_as(root: Key, objects: Mapping[Key, Object[object]], plan: Plan) -> Object[object]:
    """What stands for a key of a plan: a call that was described, or a value that was stored."""
    if root in objects:
        return objects[root]
    stored = plan.stored[root]
    if not isinstance(stored, Object):
        raise TypeError(f"{root!r} is stored as {stored!r}, which is no object")
    return stored


def described(collection: object) -> Object[object]:
    """What stands for a collection, to be executed; see `mars.contrib.dask`."""
    from dask._expr import FinalizeCompute
    from dask.base import collections_to_expr
    from dask.core import flatten

    session = choose(None)
    expr = FinalizeCompute(collections_to_expr(collection)).optimize()
    expr, _ = _made_ready(expr, ())
    [key] = flatten(expr.__dask_keys__())
    held = locks.Held(session)
    with held:
        plan, objects = _described(expr, needed(nodes_of(expr), [key]), [key], session, {})
    if key in plan.values:
        return put(plan.values[key], session=session)
    root = plan.roots[key]
    made = _described_as(root, objects, plan)
    weakref.finalize(made, held.close)  # its locks are needed as long as it may be executed
    return made


def stored_parts(
    collections: Sequence[C], session: Session
) -> list[tuple[C, list[Object[object]]]]:
    """Describe the chunks of collections, and run nothing; see `mars.tileables`.

    All collections are described together, so what they share is one call.

    Returns
    -------
    list of tuple
        For each collection the same collection, made of its chunks, and what stands for these.
    """
    import dask
    from dask.core import flatten

    held = locks.Held(session)
    found: dict[Key, Object[object]] = {}

    def keep(dsk: object, keys: Sequence[Key], **_: object) -> list[object]:
        from mars.dask.kept import KeptTask

        dsk, names = _made_ready(dsk, keys)
        asked = [names.get(key, key) for key in keys]
        wanted = list(dict.fromkeys(asked))
        with held:
            plan, objects = _described(dsk, needed(nodes_of(dsk), wanted), wanted, session, {})
        stored: dict[Key, Object[object]] = {
            key: put(value, session=session) for key, value in plan.values.items()
        }
        for key, root in plan.roots.items():
            stored[key] = _described_as(root, objects, plan)
        found.update(zip(keys, [stored[key] for key in asked], strict=True))
        return [KeptTask(key, Kept(found[key], session)) for key in keys]

    # Shuffles on the disk of one machine would leave folders there before `keep` replaces them.
    by_calls = dask.config.set({"dataframe.shuffle.method": "tasks"})
    with warnings.catch_warnings(), by_calls:
        # Arrays and frames together are what tensors and frames are for.
        warnings.filterwarnings("ignore", "Computing mixed collections", UserWarning)
        made = dask.persist(*collections, traverse=False, scheduler=keep)
    parts = []
    for one in made:
        nodes = nodes_of(one)
        objects = []
        for key in flatten(one.__dask_keys__()):
            while hasattr(nodes[key], "target"):
                key = nodes[key].target
            objects.append(nodes[key].func.stored)
        parts.append((one, objects))
    if parts and parts[0][1]:
        weakref.finalize(parts[0][1][0], held.close)  # its locks may be needed until it is gone
    else:
        held.close()
    return parts


def kept_task(key: Key, stored: Object[object], session: Session) -> GraphNode:
    """A task of Dask for a value that a session has, or will have."""
    from mars.dask.kept import KeptTask

    return KeptTask(key, Kept(stored, session))


def _by_threads(nodes: dict[Key, object], wanted: list[Key]) -> dict[Key, object]:
    from dask.threaded import get

    return dict(zip(wanted, get(nodes, wanted), strict=True))


def _spawned(plan: Plan) -> dict[Key, Object[object]]:
    """Spawn the calls of a plan. Only the objects of what is asked for are left."""
    objects: dict[Key, Object[object]] = {}
    wanted = set(plan.roots.values())
    stored = plan.stored
    for step, urgency in zip(plan.steps, priorities(len(plan.steps)), strict=True):
        values = [objects[key] if key in objects else stored[key] for key in step.reads]
        inside = wanted.isdisjoint(step.outputs)
        objects.update(zip(step.outputs, _spawn(step, values, urgency, inside), strict=True))
    return {key: one for key, one in objects.items() if key in wanted}


def _spawn(
    step: Step, values: list[object], urgency: int, inside: bool
) -> Sequence[Object[object]]:
    options: dict[str, object] = dict(step.options)
    given = options.pop("priority", 0)
    # Between two priorities that a program gives there is room for the order of Dask.
    options["priority"] = int(given) * 1000 + urgency if isinstance(given, (int, float)) else given
    options["name"] = step.name
    program = Program(step.nodes, step.outputs, step.names, step.reads, inside)
    args = (program, *values)
    if len(step.outputs) == 1:
        one: Callable[..., Object[object]] = spawn
        return [one(run_group, args, **options)]
    several: Callable[..., list[Object[object]]] = spawn
    return several(run_group, args, n_output=len(step.outputs), **options)


def _adopted(kept: Kept, session: Session) -> Object[object]:
    """What stands for a persisted task in a session: its object, if that is of this session."""
    home = kept.session
    if home is session or home.closed or not home.executed(kept.stored):
        stored: Object[object] = kept.stored  # the call that it stands for runs in this session
        return stored
    return put(kept(), session=session)


def _nested(keys: object, values: Mapping[Key, object]) -> object:
    """Values in the shape of the keys. Lists become tuples, as Dask expects it."""
    if isinstance(keys, list):
        return tuple([_nested(one, values) for one in keys])
    return values[keys]


__all__ = ["compute", "described", "kept_task", "persist", "stored_parts"]
