"""One session outlives a hundred faults of its nodes, one after the other, on hosts of their own.

Nodes are killed, cut off, filled up, stopped, and join unreachable, while calls run all the time.
What chance chooses comes from ``MARS_SEED``; ``MARS_CAMPAIGN=0.1`` has ten faults.
"""

from __future__ import annotations

import collections
import json
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.campaign import SCALE, SEED
from tests.lab.clusters import WEB, Driver, LabCluster
from tests.lab.hosts import Lab, why_not

pytest.importorskip("distributed")
pytest.importorskip("ray")

FAULTS = max(5, round(100 * SCALE))
NODES = ("one", "two", "three")
KEPT = "/mnt/kept"
"""A disk of each host that no fault fills: for the ledger of what has begun there."""

LOST_S = 50.0
"""A node that cannot be reached is lost by then: about 30 s are promised."""

BACK_S = 15.0
"""A node that comes back by itself is there by then; else its people start it again."""

THERE_S = 120.0
"""One that was started anew is there by then, on a busy machine, too."""

LEFT_S = 90.0
"""What is promised: so long after the session nothing of it is on the nodes."""

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.campaign,
    pytest.mark.timeout(300 + 60 * FAULTS),
]

PROGRAM = """
import collections, json, os, random, socket, sys, threading, time
import numpy as np
import mars, mars.remote as mr

MIB = 1 << 20
chance = random.Random(int(sys.argv[2]))

def say(word, value=""):
    print(f"{word} {json.dumps(value)}\\n", end="", flush=True)

def sign(key):
    ledger = os.open("/mnt/kept/ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(ledger, f"{key}\\n".encode())
    os.close(ledger)
    print(key, "on", socket.gethostname())

def short(key, seconds, value):
    sign(key)
    time.sleep(seconds)
    return value

def make(key, size, value):
    sign(key)
    return np.full(size, value, "u1")

def read(key, arrays):
    sign(key)
    assert all((array == array[0]).all() for array in arrays)
    return sum(int(array[-1]) for array in arrays)

def host():
    return socket.gethostname()

class Asked:
    def __init__(self, key, call, value, inputs=()):
        self.key, self.call, self.value, self.inputs = key, call, value, inputs

def asked(number):
    made = []
    for i in range(160):
        once = i % 3 == 0
        key = f"{'once' if once else 'short'}-{number}-{i}"
        seconds = chance.uniform(0.001, 0.02)
        call = mr.spawn(short, (key, seconds, 3 * i), idempotent=not once)
        made.append(Asked(key, call, 3 * i))
    makers = []
    for i in range(4):
        once = i == 0
        key = f"{'once' if once else 'make'}-{number}-m{i}"
        size = chance.randint(MIB, 6 * MIB)
        call = mr.spawn(make, (key, size, i + 1), idempotent=not once)
        makers.append(Asked(key, call, (size, i + 1)))
    for i in range(12):
        inputs = chance.sample(range(4), chance.randint(1, 2))
        once = i % 4 == 0
        key = f"{'once' if once else 'read'}-{number}-r{i}"
        arrays = [makers[one].call for one in inputs]
        call = mr.spawn(read, (key, arrays), idempotent=not once)
        value = sum(one + 1 for one in inputs)
        made.append(Asked(key, call, value, [makers[one] for one in inputs]))
    chance.shuffle(made)
    return made + makers

def look(session, one, file):
    # What became of a call: a row for the books, and what is wrong with it.
    error = session.error(one.call)
    ending = "value" if error is None else type(error).__name__
    attempts = [attempt.ending for attempt in one.call.attempts()]
    file.write(json.dumps([one.key, ending, len(attempts)]) + "\\n")
    if error is None:
        value = one.call.fetch()
        if one.key.split("-")[2].startswith("m"):
            size, element = one.value
            right = value.nbytes == size and (value == element).all()
        else:
            right = value == one.value
        if not right:
            say("wrong", [one.key, "value", repr(value)[:200]])
    else:
        endings[ending] += 1
        of_input = any(session.error(maker.call) is not None for maker in one.inputs)
        if not (of_input or ending == "WorkerDied" and (
                one.key.startswith("once") or len(attempts) > 3)):
            say("wrong", [one.key, ending, attempts, str(error)[:500],
                          getattr(error, "__notes__", [])[-1:]])
    log = str(one.call.fetch_log())
    # An attempt that was killed may have printed its line, too. Where a disk was full a line may
    # be cut, and one of "mars: " tells what is missing.
    begin = f"{one.key} on "
    strange = [line for line in log.splitlines()
               if not begin.startswith(line) and not line.startswith((begin, "mars: "))]
    if strange:
        say("wrong", [one.key, "log", strange[:5]])
    if error is None and not log:
        unlogged.append(one.key)

endings = collections.Counter()
unlogged = []
ending = threading.Event()
threading.Thread(target=lambda: (input(), ending.set()), daemon=True).start()

with mars.new_session(sys.argv[1]) as session:
    done = longest = 0
    def tell():
        while not ending.wait(0.3):
            say("state", [session.get_worker_addresses(), done])
    teller = threading.Thread(target=tell)
    teller.start()
    running = collections.deque()
    last = time.monotonic()
    with open("/mnt/kept/books", "w") as file:
        number = 0
        while running or not ending.is_set():
            while len(running) < 3 and not ending.is_set():
                made = asked(number)
                number += 1
                run = mr.ExecutableTuple([one.call for one in made]).execute(
                    wait=False, on_error="continue")
                running.append((made, run))
            made, run = running.popleft()
            try:
                run.result(240)
            except mars.errors.MarsError as error:
                if not isinstance(error, mars.errors.WorkerDied):
                    say("error", [type(error).__name__, str(error)[:2000]])
            for one in made:
                look(session, one, file)
            done += len(made)
            longest = max(longest, time.monotonic() - last)
            last = time.monotonic()
            del made, run, one
    teller.join()
    deadline = time.monotonic() + 90  # a node that was closed is tried again every 30 seconds
    while True:
        calls = [mr.spawn(host, expect_worker=a) for a in session.get_worker_addresses()]
        run = mr.ExecutableTuple(calls).execute(wait=False, on_error="continue")
        try:
            run.result(60)
        except Exception as error:
            say("not yet", repr(error)[:500])
        ran = sorted({one.fetch() for one in calls if session.error(one) is None})
        if len(ran) == 3 or time.monotonic() > deadline:
            break
        time.sleep(1)
    say("ran on", ran)
    say("endings", endings)
    say("unlogged", unlogged)
    say("done", [done, longest])
say("over")
"""


class Program(Driver):
    """A program that says how it is while the test does something else."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.addresses: list[str] = []
        self.done = 0
        self.wrong: list[str] = []
        self.told: dict[str, str] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, rest = line.partition(" ")
            if word == "state":
                self.addresses, self.done = json.loads(rest)
            elif word in ("wrong", "error"):
                self.wrong.append(line)
                print(f"          {line}", end="", flush=True)
            else:
                self.said += line
                print(f"          {line}", end="", flush=True)

    def alive(self) -> bool:
        return self.process.poll() is None

    def finish(self, limit_s: float) -> int:
        self.go()
        self.process.wait(limit_s)
        self._reader.join(10)
        return self.process.returncode

    def close(self) -> None:
        self.kill()
        self.process.wait(10)
        self._reader.join(10)
        super().close()


@pytest.fixture(scope="module")
def hosts(leak_guard: None) -> Iterator[Lab]:
    """A head, three nodes, and a client; each with a disk for the ledger."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab(["head", *NODES, "client"]) as made:
        for host in made.hosts.values():
            host.run("mkdir", "-p", KEPT)
            host.run("mount", "-t", "tmpfs", "-o", "mode=700", "kept", KEPT)
        yield made


@pytest.fixture(params=["dask", "ray"])
def cluster(hosts: Lab, request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    """Three nodes of one core."""
    for host in hosts.hosts.values():
        host.run("sh", "-c", f"rm -f {KEPT}/*")
    made = LabCluster(hosts, request.param, NODES)
    yield made
    for name in NODES:
        made.lab.mend(name)
        made[name].run("kill", "-CONT", "-1", check=False)
    made.close()


class Faults:
    """What is done to the nodes, and what their people do then."""

    def __init__(self, cluster: LabCluster, program: Program, chance: random.Random) -> None:
        self.cluster, self.program, self.chance = cluster, program, chance
        self.counts: collections.Counter[str] = collections.Counter()

    def do(self) -> str:
        """One fault at one node; returns when the node is there again."""
        kinds: list[tuple[Callable[[str], None], int]] = [
            (self.killed, 25),
            (self.cut, 25),
            (self.cut_off, 8),
            (self.full, 15),
            (self.joins_unreachable, 10),
            (self.slow, 17),
        ]
        (fault,) = self.chance.choices([one for one, _ in kinds], [often for _, often in kinds])
        name = self.chance.choice(NODES)
        self.counts[fault.__name__] += 1
        fault(name)
        return f"{name} {fault.__name__}"

    def killed(self, name: str) -> None:
        """All processes of its host at once, as in a crash; it joins again."""
        before = self._address(name)
        self.cluster.kill(name)
        time.sleep(self.chance.choice([0, 0, 1, 5]))
        self._start(name, before)

    def cut(self, name: str) -> None:
        """For a moment."""
        self.cluster.lab.cut(name)
        time.sleep(self.chance.uniform(0.5, 8))
        self.cluster.lab.mend(name)
        self._back(name)

    def cut_off(self, name: str) -> None:
        """Until it is lost."""
        before = self._address(name)
        self.cluster.lab.cut(name)
        lost = self._wait(lambda: before not in self.program.addresses, LOST_S)
        self.cluster.lab.mend(name)
        assert lost, f"{name} was not lost within {LOST_S} s"
        self._back(name)

    def full(self, name: str) -> None:
        """Its disk, for some seconds."""
        host = self.cluster[name]
        used = int(host.run("sh", "-c", "du -smx /mnt | cut -f1").stdout)
        try:
            host.run("mount", "-o", f"remount,size={used + self.chance.randint(1, 20)}m", "/mnt")
            host.run("sh", "-c", FILL)
            if self.chance.random() < 0.3:  # and its workers have to be started anew
                host.run("sh", "-c", "pkill -KILL -f zygote", check=False)
            time.sleep(self.chance.uniform(1, 8))
        finally:
            host.run("sh", "-c", "rm -f /mnt/fill*")
            host.run("mount", "-o", "remount,size=50%", "/mnt")
        self._back(name)

    def joins_unreachable(self, name: str) -> None:
        """It joins, and the program cannot reach it, or another node is cut off meanwhile."""
        host, before = self.cluster[name], self._address(name)
        self.cluster.kill(name)
        if self.chance.random() < 0.5:
            way = ("blackhole", self.cluster["client"].address)
            host.run("ip", "route", "add", *way)
            try:
                self._start(name, before, wait=False)
                time.sleep(self.chance.uniform(1, 8))
            finally:
                host.run("ip", "route", "delete", *way)
        else:
            other = self.chance.choice([one for one in NODES if one != name])
            self.cluster.lab.cut(other)
            mending = threading.Timer(self.chance.uniform(1, 8), self.cluster.lab.mend, (other,))
            mending.start()
            self._start(name, before, wait=False)
            mending.join()
            self._back(other)
        self._there(name, before)

    def slow(self, name: str) -> None:
        """Nothing of it runs for some seconds."""
        host = self.cluster[name]
        host.run("kill", "-STOP", "-1", check=False)
        time.sleep(self.chance.choice([1, 3, 8, 8, 40]))
        host.run("kill", "-CONT", "-1", check=False)
        self._back(name)

    # -- what its people do ---------------------------------------------------------------------

    def _address(self, name: str) -> str | None:
        """Of the node on a host, as the program has it."""
        where = f"{self.cluster[name].address}:"
        return next((one for one in self.program.addresses if where in one), None)

    def _wait(self, condition: Callable[[], object], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert self.program.alive(), f"the program has ended:\n{self.program.said}"
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _back(self, name: str) -> None:
        """It is there, or comes back by itself, or is started again."""
        time.sleep(1)  # for what is told late
        before = self._address(name)
        if before is None and not self._wait(lambda: self._address(name), BACK_S):
            self._start(name, before)

    def _start(self, name: str, before: str | None, wait: bool = True) -> None:
        self.cluster[name].mars("cluster", "down", check=False, limit_s=100)
        self.cluster.join(name)
        if wait:
            self._there(name, before)

    def _there(self, name: str, before: str | None) -> None:
        there = self._wait(lambda: self._address(name) not in (None, before), THERE_S)
        assert there, f"{name} has joined, and the program has not got it:\n{self.program.said}"


FILL = """
for size in 1M 64k 4k; do for cpu in $(seq 0 $(($(nproc) - 1))); do
    taskset -c $cpu dd if=/dev/zero of=/mnt/fill-$size-$cpu bs=$size count=300 2>/dev/null
done; done; true
"""
"""From each core, as each has a count of its own of what is free."""

LEFT = (
    "find /mnt/home /mnt/tmp /dev/shm -mindepth 1 "
    "-not -path '/mnt/home/.local*' -not -name 'sem.mp-*'"
)
"""All but what a host knows of clusters, as on the client the credentials that it was given, and
semaphores of 32 bytes that Dask's nanny had by multiprocessing, when all was killed at once."""


def test_a_hundred_faults_of_nodes_end_no_session_and_lose_or_double_nothing(
    cluster: LabCluster, wait_until: Callable[..., None]
) -> None:
    print(f"\nMARS_SEED={SEED}, {FAULTS} faults on {cluster.engine}", flush=True)
    begun = time.monotonic()
    program = Program(cluster["client"], PROGRAM, WEB, str(SEED))
    try:
        faults = Faults(cluster, program, random.Random(SEED))
        there = faults._wait(lambda: len(program.addresses) == 3 and program.done, 100)
        assert there, program.said
        for number in range(1, FAULTS + 1):
            at, done = time.monotonic() - begun, program.done
            what = faults.do()
            took = time.monotonic() - begun - at
            print(
                f"{at:7.1f} s  {number:3} {what}, {took:.1f} s, {program.done - done} calls ended",
                flush=True,
            )
        status = program.finish(400)
    finally:
        program.close()
    assert status == 0, program.said
    assert program.wrong == []
    said = dict(line.split(" ", 1) for line in program.said.splitlines() if " " in line)
    print(dict(faults.counts), f"{time.monotonic() - begun:.0f} s", flush=True)
    assert 'ran on ["one", "three", "two"]' in program.said
    assert json.loads(said["endings"]).keys() <= {"WorkerDied", "DependencyFailed"}

    wait_until(lambda: not any(cluster.workers(name) for name in NODES), LEFT_S)
    _compare_books(cluster)

    for name in ("client", *NODES, "head"):
        cluster[name].mars("cluster", "down", "--all", check=False)
        found = cluster[name].run("sh", "-c", LEFT).stdout.splitlines()
        assert (cluster[name].processes(), found) == ([], []), name


def _compare_books(cluster: LabCluster) -> None:
    """What has begun on the nodes is what the program was told."""
    ran: collections.Counter[str] = collections.Counter()
    for name in NODES:
        ran.update(cluster[name].run("cat", f"{KEPT}/ledger").stdout.split())
    rows = cluster["client"].run("cat", f"{KEPT}/books").stdout.splitlines()
    books = {key: (ending, attempts) for key, ending, attempts in map(json.loads, rows)}
    assert ran.keys() <= books.keys()
    often = {key: (ran[key], told) for key, told in books.items() if ran[key] > told[1]}
    assert not often, f"ran more often than attempts() says: {often}"
    twice = [key for key in books if key.startswith("once") and ran[key] > 1]
    assert not twice, f"began twice: {twice}"
    unseen = [key for key, (ending, _) in books.items() if ending == "value" and not ran[key]]
    assert not unseen, f"have values without having run: {unseen}"
    print(f"{len(books)} calls, {sum(ran.values())} beginnings", flush=True)
