"""Which tasks of a graph run together in one call.

A graph of Dask has many small tasks. If each of them were a call, its result would be stored and
read again by the next one. So tasks are put into groups, and each group is one call: what only the
group itself needs is made and dropped in one worker. ::

    chain       a → b → c               one group: nothing else could run beside it
    diamond     a → b, c → d            one group, if there are enough other groups
    tree        a, b, c, d → sum        likewise
    selection   s → s[0], s[1], s[2]    one group with three outputs, so that readers of s[1]
                                        get only this part
    many alike  t0, t1, …, t99999       groups of neighbours, if there are very many

A group has more than one output if other groups read several of its tasks. Groups never wait for
each other in a circle.

Pure: keys and their dependencies come in, groups go out. `mars.dask.plan` calls `fuse`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

from mars.errors import UsageError
from mars.settings import (
    DASK_GROUP_TASKS,
    DASK_GROUPS_PER_WORKER,
    DASK_NEIGHBOURS_PER_WORKER,
)

Key = Hashable
Dependencies = Mapping[Key, Collection[Key]]


class Group:
    """Tasks that run in one call.

    Attributes
    ----------
    keys : list
        The tasks, inputs before the tasks that read them.
    outputs : list
        The tasks whose values leave the group.
    needs : dict
        The tasks of other groups whose values the group reads. A dict without values, because its
        order is always the same.
    label : object
        What the tasks have in common. Tasks with different labels never run together.
    weight : int
        How many of the tasks do some work.
    """

    __slots__ = ("heads", "keys", "label", "needs", "outputs", "taken_by", "weight")

    def __init__(self, key: Key, needs: Iterable[Key], label: object, weight: int) -> None:
        self.keys: list[Key] = []
        self.outputs: list[Key] = []
        self.needs = dict.fromkeys(needs)
        self.label = label
        self.weight = weight
        self.heads = [key]  # tasks that other groups may read
        self.taken_by: Group | None = None  # the group that it is a part of


def sorted_tasks(graph: Dependencies, wanted: Iterable[Key]) -> list[Key]:
    """The tasks that are needed, each after its dependencies, depth first.

    Parameters
    ----------
    graph : mapping
        The dependencies of each task. A dependency that is no key of the graph is left out.
    wanted : iterable
        Tasks whose values are asked for.

    Raises
    ------
    UsageError
        Tasks depend on each other in a circle.
    """
    found: list[Key] = []
    done: dict[Key, bool] = {}  # False: its dependencies are being looked at
    for target in wanted:
        if target in done or target not in graph:
            continue
        stack: list[tuple[Key, bool]] = [(target, False)]
        while stack:
            key, known = stack.pop()
            if known:
                done[key] = True
                found.append(key)
                continue
            if key in done:
                continue
            done[key] = False
            stack.append((key, True))
            for need in graph[key]:
                if need not in graph:
                    continue
                state = done.get(need)
                if state is None:
                    stack.append((need, False))
                elif not state:
                    raise UsageError(
                        f"the graph has a circle: {need!r} is needed for its own result. "
                        f"Dask graphs have to be free of circles; look at what made this key"
                    )
    return found


def fuse(
    graph: Dependencies,
    wanted: Collection[Key],
    *,
    workers: int,
    selections: Collection[Key] = (),
    label: Callable[[Key], object] = lambda key: None,
    family: Callable[[Key], object] = lambda key: None,
) -> list[Group]:
    """Put tasks into groups.

    Parameters
    ----------
    graph : mapping
        The dependencies of each task. A dependency that is no key of the graph is no task.
    wanted : collection
        Tasks whose values are asked for. What they do not need is left out.
    workers : int
        How many calls may run at the same time. There will be groups enough for all of them.
    selections : collection, default ()
        Tasks that only take a part of their single dependency. They cost nothing.
    label : callable, optional
        What tasks must have in common to run together, such as options of their calls.
    family : callable, optional
        What tasks must have in common to run together as neighbours, such as their name.

    Returns
    -------
    list of Group
        Each after those that it needs.

    Raises
    ------
    UsageError
        Tasks depend on each other in a circle.
    """
    order = sorted_tasks(graph, wanted)
    if not order:
        return []
    asked = set(wanted)
    readers: dict[Key, list[Key]] = {key: [] for key in order}
    needs_of: dict[Key, list[Key]] = {}
    for key in order:
        needs = needs_of[key] = [need for need in graph[key] if need in readers]
        for need in needs:
            readers[need].append(key)
    chosen = selections if isinstance(selections, (set, frozenset, dict)) else set(selections)
    cheap = {key for key in order if key in chosen and len(needs_of[key]) == 1}
    work = len(order) - len(cheap)
    limit = min(DASK_GROUP_TASKS, work // (DASK_GROUPS_PER_WORKER * workers))
    home = Home()
    for key in order:
        needs = needs_of[key]
        mark = label(key)
        if key in cheap and _only_selected(needs[0], readers, cheap, asked):
            group = home[needs[0]]
            if group.label == mark:
                group.heads.append(key)
                home.first[key] = group
                continue
        group = Group(key, needs, mark, 0 if key in cheap else 1)
        home.first[key] = group
        _absorb(group, home, readers, limit)
    groups = _filled(order, home)
    if len(groups) > DASK_NEIGHBOURS_PER_WORKER * workers:
        _join_neighbours(groups, home, workers, family)
        groups = _filled(order, home)
    for group in groups:
        group.outputs = [
            key
            for key in group.keys
            if key in asked or any(home[one] is not group for one in readers[key])
        ]
    return _sorted_groups(groups, home)


class Home:
    """The group of each task. Groups that were joined are known by the last one."""

    __slots__ = ("first",)

    def __init__(self) -> None:
        self.first: dict[Key, Group] = {}  # where each task was at the beginning

    def __getitem__(self, key: Key) -> Group:
        group = self.first[key]
        if group.taken_by is None:
            return group
        way = [group]
        while group.taken_by is not None:
            group = group.taken_by
            way.append(group)
        for one in way[:-1]:
            one.taken_by = group  # the next look is short
        self.first[key] = group
        return group


def _only_selected(
    key: Key, readers: Mapping[Key, Sequence[Key]], cheap: set[Key], asked: set[Key]
) -> bool:
    """Whether a value is only read in parts, and by more than one task."""
    return key not in asked and len(readers[key]) > 1 and cheap.issuperset(readers[key])


def _absorb(group: Group, home: Home, readers: Mapping[Key, Sequence[Key]], limit: int) -> None:
    """Take in the groups whose values only this group reads, as long as that costs no time.

    ``limit`` is the number of tasks that a group of several branches may have. Without it, a tree
    would become one group, and one worker would do all of the work.
    """
    while group.needs:
        producers = list({id(one): one for one in map(home.__getitem__, group.needs)}.values())
        own = [one for one in producers if _read_only_by(one, group, home, readers)]
        if len(producers) > 1 and own:
            if len(own) < len(producers):
                # What has to wait for the others would keep `own` from starting, unless `own`
                # waits for the same.
                rest = {id(one) for one in producers} - {id(one) for one in own}
                own = [one for one in own if not one.weight or rest <= _awaited(one, home)]
            if group.weight + sum([one.weight for one in own]) > limit:
                own = [one for one in own if not one.weight]
        if not own:
            return
        for one in own:
            one.taken_by = group
            group.weight += one.weight
            group.needs.update(one.needs)
        group.needs = {need: None for need in group.needs if home[need] is not group}


def _read_only_by(
    producer: Group, group: Group, home: Home, readers: Mapping[Key, Sequence[Key]]
) -> bool:
    if producer.label != group.label:
        return False
    first = home.first
    # The last ones first: they are parts of the value of the first one, so all of its readers are
    # of the producer, and there may be hundreds.
    for key in reversed(producer.heads):
        for one in readers[key]:
            if one not in first:
                return False  # it comes later
            place = home[one]
            if place is not group and place is not producer:
                return False
    return True


def _awaited(producer: Group, home: Home) -> set[int]:
    return {id(home[need]) for need in producer.needs}


def _filled(order: Iterable[Key], home: Home) -> list[Group]:
    """All groups with their tasks, each in the order of all tasks."""
    groups: dict[int, Group] = {}
    for key in order:
        group = home[key]
        if id(group) not in groups:
            groups[id(group)] = group
            group.keys = []
        group.keys.append(key)
    return list(groups.values())


def _sorted_groups(groups: Sequence[Group], home: Home) -> list[Group]:
    """Groups after those that they need. Where that leaves a choice, as they come."""
    waiting: dict[int, int] = {}
    next_ones: dict[int, list[Group]] = {id(group): [] for group in groups}
    ready: deque[Group] = deque()
    for group in groups:
        before = {id(home[need]) for need in group.needs}
        waiting[id(group)] = len(before)
        for mark in before:
            next_ones[mark].append(group)
        if not before:
            ready.append(group)
    found = []
    while ready:
        group = ready.popleft()
        found.append(group)
        for one in next_ones[id(group)]:
            waiting[id(one)] -= 1
            if not waiting[id(one)]:
                ready.append(one)
    assert len(found) == len(groups), "groups wait for each other"
    return found


def _join_neighbours(
    groups: Sequence[Group], home: Home, workers: int, family: Callable[[Key], object]
) -> None:
    """Join groups that are alike, where there are so many that each call would be tiny.

    Only groups of one level are joined. A group of one level never needs another one of it, and
    all that a joined group needs is of lower levels: so no circle comes of it.
    """
    level: dict[int, int] = {}
    alike: dict[tuple[int, object, object], list[Group]] = {}
    for group in _sorted_groups(groups, home):
        height = 1 + max([level[id(home[need])] for need in group.needs], default=0)
        level[id(group)] = height
        alike.setdefault((height, group.label, family(group.heads[0])), []).append(group)
    for members in alike.values():
        at_once = len(members) // (DASK_NEIGHBOURS_PER_WORKER * workers)
        if at_once < 2:
            continue
        first: Group | None = None
        count = 0
        for group in members:
            if first is None or count >= at_once or first.weight + group.weight > DASK_GROUP_TASKS:
                first, count = group, 1
                continue
            group.taken_by = first
            first.weight += group.weight
            first.heads += group.heads
            first.needs.update(group.needs)
            count += 1


__all__ = ["Group", "fuse", "sorted_tasks"]
