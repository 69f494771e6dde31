"""Thousands of random histories of the scheduler, each from one seed, each checked throughout.

A failing seed is printed with its story. ``MARS_SEED=1234 pytest -s -k replay`` plays one seed
again and prints all of it.

    graph ──┐                     ┌── values, failures: as the sequential model says
    faults ─┼─► Scheduler ⇄ World ┼── after each event: what `World.check` has
    chance ─┘                     └── at rest: nothing left, nothing held, nobody waits
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from mars.calls.maps import MapCall
from mars.calls.options import Options
from mars.engines.driver.core import DONE, FAILED
from mars.engines.driver.simulation.machine import (
    FOREVER,
    Behaviour,
    Broken,
    SimulatedRun,
    named,
)
from mars.engines.driver.simulation.world import World
from mars.settings import OVERDUE_S
from mars.task import Call, Function, Output

CHUNK: Final = 1000
"""Seeds in one test; ten such tests take about 20 s on one slow core."""

MACHINE: Final = 2.0**34
"""Bytes of memory of the simulated machine."""

FUNCTIONS: Final = tuple(
    (Function(b"f%d" % index, f"f{index}", b""), seconds)
    for index, seconds in enumerate((2e-6, 1e-4, 1e-3, 5e-3, 0.03, 0.2, 3.0))
)


def shape(rng: random.Random, count: int) -> list[list[int]]:
    """For each of ``count`` calls the earlier calls that it reads."""
    kind = rng.choice(("chain", "tree", "diamond", "stencil", "wide", "random", "random"))
    if kind == "chain":
        return [[i - 1] if i else [] for i in range(count)]
    if kind == "tree":
        leaves = (count + 1) // 2
        return [
            [j for j in (2 * (i - leaves), 2 * (i - leaves) + 1) if 0 <= j < i]
            for i in range(count)
        ]
    if kind == "diamond":
        return [[] if not i else [0] if i < count - 1 else list(range(1, i)) for i in range(count)]
    if kind == "stencil":
        width = rng.choice((2, 3, 4))
        return [
            [j for j in (i - width - 1, i - width, i - width + 1) if 0 <= j < i]
            if i >= width
            else []
            for i in range(count)
        ]
    if kind == "wide":
        return [[] for _ in range(count)]
    return [rng.sample(range(i), min(i, rng.choice((0, 0, 1, 1, 2, 3)))) for i in range(count)]


class Plan:
    """How wild a history is."""

    def __init__(self, rng: random.Random, *, calm: bool) -> None:
        self.calm = calm
        chance = rng.random
        self.deaths = 0.0 if calm or chance() < 0.4 else rng.choice((0.02, 0.1, 0.3))
        self.start_deaths = 0.0 if calm or chance() < 0.8 else rng.choice((0.1, 0.5, 1.0))
        self.leaves = 0.0 if chance() < 0.7 else rng.choice((0.1, 1.0))
        self.cancels = 0.0 if calm else rng.choice((0.0, 0.3, 0.8))
        self.drops = 0.0 if calm else rng.choice((0.0, 0.0, 0.3, 0.9))
        self.fails = rng.choice((0.0, 0.1, 0.3))
        self.deadly = 0.0 if calm or chance() < 0.7 else 0.1
        self.timeouts = rng.choice((0.0, 0.0, 0.2))
        self.nested = rng.choice((0.0, 0.0, 0.0, 0.2, 0.5))
        self.maps = rng.choice((0.0, 0.0, 0.2))
        self.shapes = rng.choice((0.0, 0.0, 0.3))
        self.stored = rng.choice((0.0, 0.5))
        # Part of the calls that take much memory. One that waits for calls keeps what it has.
        self.memory = 0.0 if calm and self.nested else rng.choice((0.0, 0.0, 0.4))
        self.wild = rng.choice((0.0, 0.2, 0.6))
        self.functions = [rng.choice(FUNCTIONS) for _ in range(rng.choice((1, 1, 2, 3)))]


class History:
    """A random world, a random program in it, and the model that says how it has to end."""

    def __init__(self, seed: int, *, log: bool = False, largest: int = 12) -> None:
        rng = random.Random(f"history {seed}")
        self.calm = seed % 3 == 0
        self.plan = plan = Plan(rng, calm=self.calm)
        groups = rng.choice(([1.0], [2.0], [2.0], [4.0], [1.0, 1.0], [2.0, 1.0]))
        # By chances of its own, so that the other histories stay as they are.
        self.gpu = gpu = random.Random(f"devices {seed}")
        self.gpu_calls = gpu.choice((0.0, 0.0, 0.0, 0.3, 0.8))
        self.devices = [gpu.choice((0, 1, 2, 2, 3)) for _ in groups] if self.gpu_calls else []
        world = self.world = World(
            seed, [(f"w{index}", cpus) for index, cpus in enumerate(groups)], log,
            devices=self.devices,
        )  # fmt: skip
        self.rng = rng
        self.single = random.Random(f"single calls {seed}")
        self.groups = groups
        world.chances.death = plan.deaths
        world.chances.start_death = plan.start_deaths
        world.chances.leave = plan.leaves
        world.chances.duplicates = 0.0 if self.calm else rng.choice((0.0, 0.1))
        world.chances.torn = 0.0 if self.calm else rng.choice((0.0, 0.0, 0.01))
        world.chances.lazy_reports = rng.random()
        world.chances.latency_s = rng.choice((1e-5, 1e-4, 1e-3))
        world.make_nested = self._nested
        world.machine.memory = MACHINE
        world.machine.object_bytes = 0.0 if self.calm else MACHINE * rng.choice((0.0, 0.05, 0.3))
        world.on_run_end = self._run_ended
        self.losses = 0
        self.made = 0
        far = random.Random(f"far {seed}")  # one of its own, so that seeds keep their histories
        if far.random() < 0.4:
            plan.stored = 0.9
            world.chances.early = far.choice((0.3, 1.0))
            self.losses = 0 if self.calm else far.choice((0, 1, 3))
            world.chances.lost_makers = 0.3 if self.losses else 0.0
        for function, seconds in plan.functions:
            if rng.random() < 0.5:
                world.scheduler.seconds[function.key] = seconds
        self.calls: list[Call] = []
        self.outputs: dict[Call, Output] = {}
        count = rng.randint(2, largest)
        for inputs in shape(rng, count):
            call = self._call(
                [self.calls[i] for i in inputs if type(self.calls[i]) is Call], depth=0
            )
            self.calls.append(call)
            self.outputs[call] = Output(call, 0)
        self.resubmits = 0 if self.calm else 3
        self.stop_on_error = not self.calm and rng.random() < 0.4

    # -- what is called -----------------------------------------------------------------------

    def _call(self, inputs: list[Call], depth: int) -> Call:
        rng, plan, chance = self.rng, self.plan, self.rng.random
        function, usual = rng.choice(plan.functions)
        seconds = usual
        if chance() < plan.wild:
            seconds = min(usual * rng.choice((0.01, 0.1, 10, 100, 10_000)), 20.0)
        options = Options(name=f"c{self.made}")
        self.made += 1
        behaviour = Behaviour(seconds)
        if chance() < plan.shapes:
            if chance() < 0.3:
                index = rng.randrange(len(self.groups))
                options.worker = f"w{index}"
                largest = self.groups[index]
            else:
                largest = max(self.groups)
            options.cpus = min(rng.choice((0.5, 0.5, 1, 2)), largest)
            options.priority = rng.choice((0, 0, 0, 5, -5))
        self._ask_for_gpus(options)
        if chance() < plan.fails:
            options.retries = rng.choice((0, 0, 1, 3))
            behaviour.fails = rng.choice((1, 2, FOREVER))
            behaviour.fatal = chance() < 0.2
        if chance() < plan.timeouts:
            options.timeout_s = max(seconds * rng.choice((0.3, 3.0)), 0.02)
            options.retries = rng.choice((0, 1))
            behaviour.catches = rng.choice(("", "", "ignore", "value"))
        if not self.calm:
            if chance() < 0.2:
                options.death_retries = 0
                options.retries = 0
            if chance() < 0.1:
                behaviour.catches = rng.choice(("ignore", "value"))
        if chance() < plan.deadly:
            behaviour.deadly = rng.choice((1, 3, FOREVER))
        behaviour.stored = chance() < plan.stored
        if chance() < plan.memory:
            behaviour.memory = MACHINE * rng.choice((0.2, 0.5, 0.9, 1.5))
            if chance() < 0.5:
                options.memory = int(behaviour.memory)
        if not inputs and not depth and chance() < plan.maps:
            count = rng.randint(1, 9)
            call: Call = MapCall(function, options, [range(count)])
            if chance() < plan.fails:
                behaviour.items = frozenset(rng.sample(range(count), rng.randint(1, count)))
            options.timeout_s, behaviour.fails, behaviour.fatal = None, 0, False
        else:
            call = Call(function, b"", (), tuple((one, 0) for one in inputs), options, None)
            if chance() < plan.nested / (1 + 2 * depth) and depth < 3:
                behaviour.nested = rng.choice(("wait", "wait", "later", "beside"))
        self.world.behaviours[call] = behaviour
        return call

    def _ask_for_gpus(self, options: Options) -> None:
        most = [
            count
            for index, count in enumerate(self.devices)
            if options.cpus <= self.groups[index] and options.worker in (None, f"w{index}")
        ]
        if max(most, default=0) and self.gpu.random() < self.gpu_calls:
            options.gpus = min(self.gpu.choice((0.25, 0.5, 0.5, 1, 1, 2, 3)), max(most))

    def _nested(self, depth: int) -> list[Call]:
        calls: list[Call] = []
        for inputs in shape(self.rng, self.rng.randint(1, 4)):
            found = [calls[index] for index in inputs if type(calls[index]) is Call]
            calls.append(self._call(found, depth))
        return calls

    # -- what the program does ----------------------------------------------------------------

    def play(self) -> None:
        """The whole history, with all checks."""
        rng, world, plan = self.rng, self.world, self.plan
        world.start()
        self._submit(self.stop_on_error)
        if rng.random() < 0.5:
            for _ in range(rng.randint(1, 3)):
                world.machine.after(self._moment(), lambda: self._submit(rng.random() < 0.3))
        dropped = rng.sample(self.calls, rng.randint(1, len(self.calls)))
        if rng.random() < plan.drops or (world.chances.early and not self.calm):
            for call in dropped:
                world.machine.after(self._moment(), lambda call=call: self.outputs.pop(call, None))
        for _ in range(self.losses):
            index = rng.randrange(len(self.groups))
            world.machine.after(self._moment(), lambda index=index: world.lose(index))
        world.play()
        world.check_quiet()
        if self.calm:
            self._compare()
        self.outputs.clear()
        world.play()
        world.check_quiet()
        for call in self.calls:
            if call.handles != sum(
                (not one.satisfied) * [source for source, _ in one.inputs].count(call)
                for one in self.calls
            ):
                raise Broken(f"{call.name} has {call.handles} handles")
        world.check_freed()

    def _moment(self) -> float:
        rng = self.rng
        return rng.choice((1e-4, 1e-2, 0.1, 1.0)) * rng.random() * 2

    def _submit(self, stop_on_error: bool) -> None:
        rng, world = self.rng, self.world
        known = [call for call in self.calls if call in self.outputs]
        if not known:
            return
        if self.calm:
            stop_on_error = False
        targets = known if rng.random() < 0.5 else rng.sample(known, rng.randint(1, len(known)))
        if world.chances.early:  # what only feeds others is what may be used early
            targets = known[-rng.randint(1, 2) :]
        run = world.submit(targets, stop_on_error=stop_on_error)
        if run is not None and rng.random() < self.plan.cancels:
            world.machine.after(self._moment(), lambda: world.cancel(run))
        # By chances of its own, so that the other histories stay as they are.
        if run is not None and not self.calm and self.single.random() < 0.2:
            task = self.single.choice(run.tasks)
            moment = self.single.choice((1e-3, 0.1, 1.0)) * self.single.random()
            world.machine.after(moment, lambda: world.withdraw(task))

    def _run_ended(self, run: SimulatedRun) -> None:
        if run.worker is None and self.resubmits and self.rng.random() < 0.5:
            self.resubmits -= 1
            self.world.machine.after(self._moment() / 10, lambda: self._submit(self.stop_on_error))

    # -- the model ----------------------------------------------------------------------------

    def _compare(self) -> None:
        """Without chance faults, the calls that fail are those of a program without workers."""
        world = self.world
        wanted: set[Call] = set()
        for run in world.runs:
            if run.worker is None:
                wanted.update(task.call for task in run.tasks)
        good: dict[Call, bool] = {}
        for call in self.calls:
            if call not in wanted:
                if call.task is not None:
                    raise Broken(f"{call.name} was run, and nobody asked for it")
                continue
            behaviour = world.behaviours[call]
            options = call.options
            task = call.task
            assert task is not None
            inputs_good = all(good[source] for source, _ in call.inputs)
            if any(source in world.unkept for source, _ in call.inputs):
                good[call] = task.stage is DONE  # it may have read that before
                continue
            if options.timeout_s is not None:
                own = task.stage is DONE  # it depends on moments
                if not inputs_good and own:
                    raise Broken(f"{call.name} has a value, and its input has none")
            elif isinstance(call, MapCall):
                own = not behaviour.items
            else:
                own = not behaviour.fatal and behaviour.fails <= options.retries
                if len(world.runs) > 1 and behaviour.fails < FOREVER:
                    own = task.stage is DONE  # it may have failed once and been asked for again
            if options.timeout_s is None:
                own = own and behaviour.memory <= MACHINE
            good[call] = inputs_good and own
            if (task.stage is DONE) != good[call] or (task.stage is FAILED) == good[call]:
                raise Broken(f"{call.name} is {task.stage.name}; the model says {good[call]}")
            if not inputs_good and task.failed_input is None:
                raise Broken(f"{call.name} does not tell which input failed")
            if inputs_good and task.failed_input is not None and len(world.runs) == 1:
                raise Broken(f"{call.name} blames {named(task.failed_input)}")


def run_history(seed: int, *, log: bool = False, largest: int = 12) -> History:
    """Play one seed; `Broken` or any other error when a promise does not hold."""
    history = History(seed, log=log, largest=largest)
    try:
        history.play()
    except BaseException:
        if log:
            print("\n".join((history.world.machine.log or [])[-400:]))
        raise
    return history


@contextmanager
def told(seed: int) -> Iterator[None]:
    """Tell the story of a seed that ends badly."""
    try:
        yield
    except Exception as error:
        print(f"MARS_SEED={seed}: {type(error).__name__}: {error}")
        with pytest.raises(type(error)):
            run_history(seed, log=True)
        raise


# -- tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [700508, 703787, 705790])
def test_calls_that_run_while_their_input_is_lost_leave_their_worker_in_order(seed: int) -> None:
    with told(seed):
        assert run_history(seed).world.faults


@pytest.mark.parametrize("chunk", range(10))
def test_no_history_breaks_a_promise(chunk: int) -> None:
    faults: Counter[str] = Counter()
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        with told(seed):
            world = run_history(seed).world
        faults += world.faults
        faults["kill"] += world.kills
        faults["take back"] += world.take_backs
        faults["gpus"] += sum(task.call.options.gpus > 0 for task in world.ledger.tasks)
        faults["nested"] += sum(run.worker is not None for run in world.runs)
    # Nothing is proved unless it happened.
    for fault in (
        "death", "cancel", "withdraw", "interrupt", "duplicate", "kill", "take back", "nested",
        "starved", "torn", "spill", "early", "unneeded", "lost value",
        "copied", "handed on", "no room", "gpus",
    ):  # fmt: skip
        assert faults[fault] > 5, f"only {faults[fault]} x {fault}"
    assert faults["gave up"]


def test_replay() -> None:
    """Not a test of its own: plays MARS_SEED and prints it."""
    seed = int(os.environ.get("MARS_SEED", "0"))
    history = run_history(seed, log=True)
    print("\n".join(history.world.machine.log or ()))


@pytest.mark.slow
@pytest.mark.lab  # five minutes of one core
@pytest.mark.timeout(3600)
def test_no_history_of_a_long_campaign_breaks_a_promise() -> None:
    start = int(os.environ.get("MARS_SEED", "1000000"))
    for seed in range(start, start + 150_000):
        with told(seed):
            run_history(seed)
    for seed in range(start + 150_000, start + 200_000):
        with told(seed):
            run_history(seed, largest=25)


def longest_path(seconds: list[float], inputs: list[list[int]]) -> float:
    """Time that the graph takes with as many cores as it can use."""
    ends: list[float] = []
    for own, sources in zip(seconds, inputs, strict=True):
        ends.append(own + max((ends[source] for source in sources), default=0.0))
    return max(ends)


def makespan(seed: int) -> tuple[float, float, int]:
    """How long calls of one core took, how long they must, and how many there were."""
    rng = random.Random(f"makespan {seed}")
    cores = rng.choice((1, 2, 4))
    world = World(seed, [("w0", float(cores))])
    world.chances.latency_s = 1e-5
    functions = [rng.choice(FUNCTIONS) for _ in range(rng.choice((1, 2, 3)))]
    wild = rng.choice((0.0, 0.0, 0.1, 0.5))
    count = rng.randint(1, 60)
    inputs = shape(rng, count)
    calls: list[Call] = []
    seconds = []
    for sources in inputs:
        function, usual = rng.choice(functions)
        if rng.random() < wild:
            usual = min(usual * rng.choice((0.01, 0.1, 10, 100, 1000)), 20.0)
        seconds.append(usual)
        options = Options(name=f"c{len(calls)}")
        read = tuple((calls[source], 0) for source in sources)
        call = Call(function, b"", (), read, options, None)
        call.handles += 1
        world.behaviours[call] = Behaviour(usual)
        calls.append(call)
    for function, usual in functions:
        if rng.random() < 0.5:
            world.scheduler.seconds[function.key] = usual * rng.choice((0.1, 1, 1, 10))
    world.start()
    run = world.submit(calls, stop_on_error=True)
    assert run is not None
    world.play()
    world.check_quiet()
    assert run.ended_at is not None
    return run.ended_at, max(sum(seconds) / cores, longest_path(seconds, inputs)), count


def test_calls_of_one_core_take_at_most_twice_as_long_as_they_must() -> None:
    for seed in range(400):
        took, bound, count = makespan(seed)
        # A worker needs up to 50 ms to start here; a message takes about 0.01 ms; a call that is
        # stuck behind one that takes longer than predicted waits until that is noticed.
        overhead = 0.06 + count * 2e-4 + 10 * OVERDUE_S
        assert took <= 2 * bound + overhead, f"seed {seed}: {took:.3f} s for {bound:.3f} s"
