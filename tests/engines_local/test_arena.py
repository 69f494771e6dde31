"""Space, arenas in real memory files, mappings: what is shared, copied, freed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars.engines.wire import arena
from mars.engines.wire import ledger as ledger_module
from mars.engines.wire.arena import PAGE, Allocator, Inputs, Space, split
from mars.engines.wire.ledger import Ledger
from mars.engines.wire.regions import ON_DISK
from mars.settings import ARENA_BYTES

ALIGN = 64


# -- space ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 50)), max_size=60))
@settings(deadline=None, derandomize=True, database=None, max_examples=300)
def test_regions_never_overlap_and_free_ones_are_joined(
    steps: list[tuple[bool, int, int]],
) -> None:
    space = Space(100)
    held: list[tuple[int, int]] = []
    for give_back, length, which in steps:
        if give_back and held:
            space.give_back(*held.pop(which % len(held)))
        else:
            offset = space.take(length)
            if offset is None:
                assert all(free < length for _, free in space.free)
            else:
                held.append((offset, length))
        everything = sorted(held + space.free)
        assert sum(size for _, size in everything) == 100
        for (start, size), (following, _) in pairwise(everything):
            assert start + size == following
        for (start, size), (following, _) in pairwise(space.free):
            assert start + size < following, "neighbours are one"
        assert space.free_bytes == sum(size for _, size in space.free)


def test_what_is_free_around_a_part_ends_where_something_is_in_use() -> None:
    space = Space(100)
    taken = [space.take(10) for _ in range(6)]
    assert taken == [0, 10, 20, 30, 40, 50]
    for offset in (20, 30, 50):
        space.give_back(offset, 10)
    assert space.around(20, 10, 100) == (20, 20)
    assert space.around(30, 5, 8) == (24, 16)
    assert space.around(50, 10, 16) == (50, 14)
    assert space.around(64, 16, 16) == (64, 16)


def test_the_lowest_place_that_fits_is_taken() -> None:
    space = Space(100)
    first, second, third = (space.take(20) for _ in range(3))
    assert (first, second, third) == (0, 20, 40)
    space.give_back(0, 20)
    assert space.take(30) == 60
    assert space.take(20) == 0
    assert space.take(20) is None


# -- real arenas ------------------------------------------------------------------------------


class Process:
    """An allocator and mappings, in one process here: one writes, the other reads."""

    def __init__(self, budget_bytes: int, spill_directory: str) -> None:
        self.unused: list[tuple[int, int]] = []
        self.inputs = Inputs(lambda number, offset: self.unused.append((number, offset)))
        self.made: list[tuple[int, int]] = []
        self.spill_directory = spill_directory
        self.descriptors: dict[int, int] = {}
        descriptor = Ledger.new()
        self.ledger = Ledger(descriptor, 0, budget_bytes)
        os.close(descriptor)
        self.allocator = Allocator(1, self._announce, self.ledger, spill_directory)

    def _announce(self, number: int, descriptor: int, size: int) -> None:
        self.made.append((number, size))
        self.descriptors[number] = descriptor
        self.inputs.add_arena(number, descriptor, size)

    def put(self, *buffers: Any) -> Any:
        return (None, *self.allocator.put(buffers, "a test"))

    def free(self, value: Any) -> None:
        self.allocator.free(*value[1:4])

    def close(self) -> None:
        self.inputs.close()
        self.allocator.close()
        self.ledger.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(2**30, str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Process]:
    """A process whose objects may take 1 MiB of memory."""
    made = Process(2**20, str(tmp_path))
    yield made
    made.close()


def test_buffers_come_back_as_they_went_in(process: Process) -> None:
    parts = [b"", b"a", os.urandom(ALIGN), os.urandom(PAGE + 1), b"", os.urandom(300_000), b"end"]
    value = process.put(*parts)
    assert [bytes(part) for part in process.inputs.buffers(value)] == parts
    assert value[2] % PAGE == 0 and value[3] % PAGE == 0


def test_buffers_begin_on_cache_lines(process: Process) -> None:
    value = process.put(b"a", b"bb", os.urandom(100))
    numpy = pytest.importorskip("numpy")
    for part in process.inputs.buffers(value):
        assert numpy.frombuffer(part, "u1").ctypes.data % ALIGN == 0


def test_any_buffer_can_be_put(process: Process) -> None:
    numpy = pytest.importorskip("numpy")
    table = numpy.arange(12, dtype="f8").reshape(3, 4)
    value = process.put(table, bytearray(b"xyz"), memoryview(b"uvw"))
    first, second, third = process.inputs.buffers(value)
    assert bytes(first) == table.tobytes()
    assert (bytes(second), bytes(third)) == (b"xyz", b"uvw")


def test_reading_copies_nothing(process: Process) -> None:
    value = process.put(b"before")
    (part,) = process.inputs.buffers(value)
    descriptor = process.descriptors[value[1]]
    os.pwrite(descriptor, b"behind", value[2])
    assert bytes(part) == b"behind", "the same memory, not a copy of it"


def test_a_reader_may_write_and_nobody_else_sees_it(process: Process) -> None:
    value = process.put(b"as it was")
    (part,) = process.inputs.buffers(value)
    part[:2] = b"no"
    assert bytes(part) == b"no it was"
    descriptor = process.descriptors[value[1]]
    assert os.pread(descriptor, 9, value[2]) == b"as it was"
    other = Inputs(lambda *_: None)
    other.add_arena(value[1], descriptor, ARENA_BYTES)
    (there,) = other.buffers(value)
    assert bytes(there) == b"as it was"
    del there
    other.close()


def test_the_next_call_sees_nothing_of_what_one_wrote(process: Process) -> None:
    value = process.put(os.urandom(10 * PAGE))
    (part,) = process.inputs.buffers(value)
    fresh = bytes(part)
    part[5 * PAGE] ^= 255
    del part
    process.inputs.settle()
    (part,) = process.inputs.buffers(value)
    assert bytes(part) == fresh


def test_an_input_that_is_held_is_copied_for_the_next_call(process: Process) -> None:
    value = process.put(b"original")
    (kept,) = process.inputs.buffers(value)
    kept[:] = b"scribble"
    (again,) = process.inputs.buffers(value)
    assert (bytes(kept), bytes(again)) == (b"scribble", b"original")
    process.inputs.settle()
    (later,) = process.inputs.buffers(value)
    assert (bytes(kept), bytes(later)) == (b"scribble", b"original")


def test_two_values_in_one_call_do_not_see_each_other(process: Process) -> None:
    values = [process.put(bytes([n]) * 5000) for n in range(5)]
    parts = [process.inputs.buffers(value)[0] for value in values]
    parts[2][:] = b"\xff" * 5000
    assert [part[0] for part in parts] == [0, 1, 255, 3, 4]
    assert [part[-1] for part in parts] == [0, 1, 255, 3, 4]


def test_the_driver_hears_when_the_last_view_dies(process: Process) -> None:
    value = process.put(b"x" * 100, b"y" * 100)
    parts = process.inputs.lend(value)()
    last = parts[1]
    del parts
    assert process.unused == []
    assert bytes(last) == b"y" * 100
    del last
    assert process.unused == [value[1:3]]


def test_an_array_keeps_its_memory(process: Process) -> None:
    numpy = pytest.importorskip("numpy")
    value = process.put(os.urandom(8000))
    array = numpy.frombuffer(process.inputs.lend(value)()[0], "u1")
    row = array[17:]
    del array
    assert process.unused == []
    del row
    assert process.unused == [value[1:3]]


def test_a_region_is_let_go_when_it_is_asked_for(process: Process) -> None:
    held, idle, never = (process.put(os.urandom(100)) for _ in range(3))
    (part,) = process.inputs.buffers(held)
    process.inputs.buffers(idle)
    process.inputs.settle()
    for value in (held, idle, never):
        process.inputs.unmap(*value[1:3])
    assert sorted(process.unused) == sorted([idle[1:3], never[1:3]])
    process.inputs.unmap(*held[1:3])  # asked again
    assert held[1:3] not in process.unused
    del part
    assert process.unused.count(held[1:3]) == 1


def test_a_region_is_written_again_only_after_it_was_freed(process: Process) -> None:
    first = process.put(b"1" * 100)
    second = process.put(b"2" * 100)
    assert first[1:3] != second[1:3]
    process.free(first)
    third = process.put(b"3" * 100)
    assert third[1:3] == first[1:3]
    assert bytes(process.inputs.buffers(third)[0]) == b"3" * 100
    assert bytes(process.inputs.buffers(second)[0]) == b"2" * 100


def test_what_was_written_here_before_does_not_show_in_the_next_value(process: Process) -> None:
    first = process.put(b"1" * 100)
    parts = process.inputs.lend(first)()
    parts[0][:] = b"x" * 100
    del parts
    assert process.unused
    process.free(first)
    second = process.put(b"2" * 100)
    assert second[1:3] == first[1:3]
    assert bytes(process.inputs.buffers(second)[0]) == b"2" * 100


def test_random_histories_keep_every_value_whole(process: Process) -> None:
    chance = random.Random(20)
    values: list[tuple[Any, bytes]] = []
    for step in range(300):
        if values and chance.random() < 0.45:
            value, _ = values.pop(chance.randrange(len(values)))
            process.inputs.unmap(*value[1:3])
            assert process.unused.pop() == value[1:3]
            process.free(value)
        else:
            data = bytes([step % 256]) * chance.choice((1, 100, PAGE, 70_000, 400_000))
            values.append((process.put(data), data))
        value, data = chance.choice(values) if values else (process.put(b""), b"")
        (part,) = process.inputs.buffers(value)
        assert bytes(part) == data
        if len(part):
            part[0] ^= 1  # a call may scribble
        del part
        process.inputs.settle()
    assert len(process.made) == 1, "all of it fits one arena, over and over"


def test_a_large_value_has_an_arena_of_its_own(process: Process) -> None:
    size = ARENA_BYTES
    process.put(b"small")
    value = process.put(bytes(size))
    assert [number & 0xFFFF for number, _ in process.made] == [1, 2]
    assert size <= process.made[1][1] < size * 1.2
    process.free(value)
    again = process.put(bytes(size - 100))
    assert again[1] == value[1], "a value of about its size finds its arena"


def test_idle_memory_is_given_back_past_a_limit(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "IDLE_ARENA_BYTES", 0)
    value = process.put(os.urandom(2**20))
    descriptor = process.descriptors[value[1]]
    assert os.fstat(descriptor).st_blocks * 512 >= 2**20
    process.free(value)
    assert os.fstat(descriptor).st_blocks == 0
    assert bytes(process.inputs.buffers(process.put(b"again"))[0]) == b"again"


def test_what_the_system_fills_beside_a_part_is_given_back_with_it(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux puts pages of a file together to larger ones, and fills holes for that."""
    monkeypatch.setattr(arena, "IDLE_ARENA_BYTES", 0)
    value = process.put(bytes(5 * PAGE))
    _, number, offset, length = value[:4]
    descriptor = process.descriptors[number]
    os.pwrite(descriptor, bytes(PAGE), offset + length + 3 * PAGE)
    process.free(value)
    assert blocks(process, disk=False) == 0


def on_disk(value: Any) -> bool:
    return bool(value[1] & ON_DISK)


def blocks(process: Process, disk: bool) -> int:
    """Bytes that memory or disk really holds."""
    return sum(
        os.fstat(descriptor).st_blocks * 512
        for number, descriptor in process.descriptors.items()
        if bool(number & ON_DISK) is disk
    )


def test_beyond_the_budget_values_are_on_disk_and_read_alike(tight: Process) -> None:
    data = [os.urandom(2**18) for _ in range(12)]
    values = [tight.put(one) for one in data]
    assert [on_disk(value) for value in values] == [False] * 4 + [True] * 8
    assert tight.ledger.total() == blocks(tight, disk=False) == 2**20
    for value, one in zip(values, data, strict=True):
        (part,) = tight.inputs.buffers(value)
        assert bytes(part) == one
        part[0] ^= 255  # a call may scribble
        del part
        tight.inputs.settle()
        assert bytes(tight.inputs.buffers(value)[0]) == one
        tight.inputs.settle()
    assert os.listdir(tight.spill_directory) == [], "the file has no name"


def test_what_is_freed_on_disk_takes_no_disk(tight: Process) -> None:
    values = [tight.put(os.urandom(2**20)) for _ in range(5)]
    assert blocks(tight, disk=True) >= 4 * 2**20
    for value in values:
        tight.free(value)
    assert blocks(tight, disk=True) == 0
    assert tight.ledger.total() == blocks(tight, disk=False)


def test_memory_that_is_free_again_is_used_before_the_disk(tight: Process) -> None:
    first = tight.put(os.urandom(2**20))
    assert on_disk(tight.put(b"more"))
    tight.free(first)
    assert not on_disk(tight.put(os.urandom(2**20)))


def test_warm_memory_that_fits_nothing_is_given_back_before_the_disk_is_used(
    tight: Process,
) -> None:
    # Freed while the budget was not tight, so its pages were kept.
    small = [tight.put(os.urandom(2**17)) for _ in range(4)]
    for value in small:
        tight.free(value)
    assert tight.ledger.total() == blocks(tight, disk=False) == 2**19
    large = tight.put(os.urandom(2**20))
    assert not on_disk(large)
    assert tight.ledger.total() == blocks(tight, disk=False) == 2**20


def test_processes_share_one_budget(tight: Process, tmp_path: Path) -> None:
    descriptor = Ledger.new()
    first = Ledger(descriptor, 0, 2**20)
    place = first.open_place()
    ledgers = [first, Ledger(descriptor, place, 2**20)]
    os.close(descriptor)
    allocators = [
        Allocator(n, lambda *_: None, one, str(tmp_path)) for n, one in enumerate(ledgers)
    ]
    places = [allocators[n % 2].put([bytes(2**18)], "a test") for n in range(6)]
    assert [bool(place[0] & ON_DISK) for place in places] == [False] * 4 + [True] * 2
    first.close_place(place)  # the second has ended, and its memory is gone
    assert not allocators[0].put([bytes(2**18)], "a test")[0] & ON_DISK
    for allocator, ledger in zip(allocators, ledgers, strict=True):
        allocator.close()
        ledger.close()


@given(st.lists(st.integers(0, 20), max_size=200))
@settings(deadline=None, derandomize=True, database=None, max_examples=100)
def test_no_place_of_a_ledger_serves_two_processes_at_a_time(steps: list[int]) -> None:
    descriptor = Ledger.new()
    ledger = Ledger(descriptor, 0, 2**40)
    os.close(descriptor)
    there: list[int] = []
    for step in steps:
        if there and step % 2:
            ledger.close_place(there.pop(step % len(there)))
        else:
            place = ledger.open_place()
            assert place and place not in there
            ledger.settle(2**20 + place, place)
            there.append(place)
        assert ledger.total() == sum(2**20 + place for place in there)
    assert not steps or max(there, default=0) <= len(steps)
    ledger.close()


def test_a_ledger_without_a_free_place_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "LEDGER_BYTES", 4096)
    descriptor = Ledger.new()
    ledger = Ledger(descriptor, 0, 2**40)
    os.close(descriptor)
    places = [ledger.open_place() for _ in range(510)]
    with pytest.raises(OSError, match="510 worker processes"):
        ledger.open_place()
    ledger.close_place(places[7])
    assert ledger.open_place() == places[7]
    ledger.close()


@given(st.integers(0, 2**32))
@settings(deadline=None, derandomize=True, database=None, max_examples=20)
def test_the_ledger_counts_what_memory_holds(seed: int) -> None:
    chance = random.Random(seed)
    process = Process(2**20, tempfile.gettempdir())
    held: list[Any] = []
    for _ in range(60):
        if held and chance.random() < 0.5:
            process.free(held.pop(chance.randrange(len(held))))
        else:
            held.append(process.put(os.urandom(chance.choice((1, PAGE, 50_000, 300_000, 900_000)))))
        assert process.ledger.total() == blocks(process, disk=False) <= 2**20
    process.close()


def test_a_value_that_fits_neither_memory_nor_disk_is_refused_and_leaves_nothing() -> None:
    out = run(
        LIMITED.replace("2**30", "2**20")
        + """
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, resource.RLIM_INFINITY))
    error = attempt(2**28 + 1)
    assert type(error) is StoreFull and ledger.total() == 0, error
    print(error)
    assert type(attempt(2**21)) is tuple
    """
    )
    assert "budget of 1,048,576 bytes" in out and "File too large" in out


def test_only_what_was_written_counts_as_written(process: Process) -> None:
    value = process.put(os.urandom(20 * PAGE))
    (part,) = process.inputs.buffers(value)
    sum(part[::PAGE])  # reading maps the pages
    mapping = process.inputs._mapping(value[1])
    written = arena.platform.has_own_pages
    assert not written(mapping.address + value[2], value[3])
    part[19 * PAGE] = 1
    assert written(mapping.address + value[2], value[3])
    assert not written(mapping.address + value[2], 19 * PAGE)
    mapping.restore(value[2], value[3])
    assert not written(mapping.address + value[2], value[3])


def test_parts_are_found_by_their_sizes() -> None:
    sizes = (0, 1, 64, 65, 3)
    whole = bytearray(64 * 6)
    parts = split(whole, sizes)
    assert [part.nbytes for part in parts] == list(sizes)
    for number, part in enumerate(parts):
        part[:] = bytes([number + 1]) * part.nbytes
    assert [whole[place] for place in (0, 64, 128, 256)] == [2, 3, 4, 5]


def test_an_arena_whose_arrays_live_on_can_be_closed(process: Process) -> None:
    value = process.put(b"still here")
    (part,) = process.inputs.buffers(value)
    process.inputs.close()
    assert bytes(part) == b"still here"


def run(code: str) -> str:
    """Output of a program in a process of its own, which may use up what it likes."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


LIMITED = """
    import os, resource
    from mars.engines.wire.arena import Allocator
    from mars.engines.wire.ledger import Ledger
    from mars.engines.wire.regions import ON_DISK
    from mars.errors import StoreFull

    ledger = Ledger(Ledger.new(), 0, 2**30)
    descriptors = {}
    def announce(number, descriptor, size):
        descriptors[number] = descriptor
    allocator = Allocator(1, announce, ledger, ".")
    def attempt(size):
        try:
            return allocator.put([bytes(size)], "a result")
        except StoreFull as error:
            return error
"""


def test_a_full_machine_is_an_error_that_names_the_value() -> None:
    # The limit on file sizes holds for memory files, and stands for a machine without memory.
    out = run(
        LIMITED
        + """
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    small = attempt(1000)
    assert type(small) is tuple
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    error = attempt(2**22)
    assert type(error) is StoreFull, error
    print(error)
    # What failed has left nothing behind, and what still fits is taken.
    assert attempt(2**19)[:2] == (small[0], small[1] + small[2])
    assert type(attempt(2**28)) is StoreFull
    assert ledger.total() == 1000 // 4096 * 4096 + 4096 + 2**19
    """
    )
    assert "a result" in out and "4,194,304" in out


def test_no_descriptor_left_is_an_error_and_leaves_nothing_behind() -> None:
    run(
        LIMITED
        + """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1, hard))
    assert type(attempt(10)) is StoreFull
    assert not descriptors and not ledger.total()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert type(attempt(10)) is tuple
    """
    )


def test_a_full_machine_is_never_sigbus() -> None:
    # A value that could not be written whole is never mapped; one that was can be read to the end
    # of its last page.
    run(
        LIMITED
        + """
    import mmap
    number, offset, length, sizes = attempt(mmap.PAGESIZE + 1)
    descriptor = descriptors[number]
    with mmap.mmap(descriptor, offset + length, prot=mmap.PROT_READ) as view:
        assert view[-1] == 0
    """
    )
