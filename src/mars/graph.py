"""Which calls an `execute` needs, inputs before the calls that read them.

Pure and without recursion, so chains of a million calls are no problem. A call's inputs exist
before the call does, so there are no cycles to look for. Called by `mars.sessions.runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mars.task import Call


def needed_calls(
    targets: Iterable[Call],
    realm: object,
    adopt: Callable[[Call], bool] | None = None,
    recall: Callable[[Call], bool] | None = None,
) -> list[Call]:
    """Calls that have to run in ``realm``, a session, so that ``targets`` are there.

    They come in topological order: inputs first.
    A call whose result is available is left out, and so is all that only it needs. ``adopt`` is
    asked of an item of a map that never came there whether its result is there all the same,
    ``recall`` of any other call.
    """
    order: list[Call] = []
    seen: set[Call] = set()
    for target in targets:
        if target in seen:
            continue
        if not target.inputs:
            seen.add(target)
            fresh = target.task is None and not target.adoptable and recall is None
            if fresh or not _available(target, realm, adopt, recall):
                order.append(target)
            continue
        # Depth first. A call is pushed twice: None marks the second visit, when all its inputs
        # stand in `order` already.
        stack: list[tuple[Call, bool]] = [(target, False)]
        while stack:
            call, inputs_done = stack.pop()
            if inputs_done:
                order.append(call)
                continue
            if call in seen:
                continue
            seen.add(call)
            if _available(call, realm, adopt, recall):
                continue
            if not call.inputs:
                order.append(call)
                continue
            stack.append((call, True))
            stack.extend(
                (source, False) for source, _ in reversed(call.inputs) if source not in seen
            )
    return order


def _available(
    call: Call,
    realm: object,
    adopt: Callable[[Call], bool] | None,
    recall: Callable[[Call], bool] | None,
) -> bool:
    task = call.task_in(realm) if call.task is not None else None
    if task is None:
        if call.adoptable and adopt is not None and adopt(call):
            return True
        return recall is not None and recall(call)
    return task.available
