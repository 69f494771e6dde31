"""The line between driver and node: who may come in, and what comes in which order."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mars import platform
from mars.engines.cluster import carrier, line
from mars.engines.cluster.line import Door, Line, reach

KEY = bytes(32)


class Side:
    """One end of a line, and what has come there."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.ended: list[str] = []
        self.line: Line

    def begin(self, sending: socket.socket, receiving: socket.socket) -> None:
        def place(arena: int, _size: int, offset: int, data: memoryview) -> None:
            self.came.append((arena, offset, bytes(data)))

        self.line = Line(sending, receiving, self.came.extend, place, self.ended.append)


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    """A driver and a node that have found each other; the node sends nothing before `start`."""
    driver, node = Side(), Side()
    opened = threading.Event()

    def come_in(sending: socket.socket, receiving: socket.socket) -> None:
        node.begin(sending, receiving)
        opened.set()

    door = Door("127.0.0.1", KEY, None, come_in)
    driver.begin(*reach(door.place, KEY, None))
    assert opened.wait(30)
    driver.line.start()
    yield driver, node
    driver.line.close()
    node.line.close()
    door.close()


@pytest.fixture
def file() -> Iterator[int]:
    """10 MB of random bytes."""
    descriptor = platform.memory_file("test")
    os.write(descriptor, os.urandom(10_000_000))
    yield descriptor
    os.close(descriptor)


def value(file: int, attempt: int) -> list[carrier.Part]:
    begin = (carrier.BYTES, attempt, 10_000_000)
    return list(carrier.parts(carrier.File(file), begin, 0, 10_000_000))


def test_who_does_not_know_the_key_is_not_let_in_and_does_not_close_the_door() -> None:
    came: list[socket.socket] = []
    opened = threading.Event()

    def come_in(*connections: socket.socket) -> None:
        came.extend(connections)
        opened.set()

    door = Door("127.0.0.1", KEY, None, come_in)
    with pytest.raises(OSError):
        reach(door.place, b"another key", None)
    with socket.create_connection(door.place) as stranger:
        stranger.sendall(b"\x80\x05" + bytes(500))
        stranger.settimeout(30)
        # Closed with what was not read: no answer in any case.
        with pytest.raises(ConnectionResetError):
            assert stranger.recv(1) == b""
            raise ConnectionResetError
    assert not came
    mine = reach(door.place, KEY, None)
    assert opened.wait(30)
    for connection in (*mine, *came):
        connection.close()
    door.close()


def test_a_door_that_is_closed_lets_nobody_in() -> None:
    door = Door("127.0.0.1", KEY, None, lambda *_: None)
    door.close()
    with pytest.raises(OSError):
        reach(door.place, KEY, None)


def test_a_door_takes_a_free_one_of_its_ports_or_says_that_there_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(line.NoFreePort, match=f"'{port}-{port}' is free at 127"):
            Door("127.0.0.1", KEY, None, lambda *_: None, ports=(port, port))
        door = Door("127.0.0.1", KEY, None, lambda *_: None, ports=(port, port + 50))
        assert door.place[0] == "127.0.0.1" and port < door.place[1] <= port + 50
        door.close()


def test_messages_and_values_come_whole_and_in_their_order(
    sides: tuple[Side, Side], file: int, wait_until: Callable[..., None]
) -> None:
    driver, node = sides
    node.line.start()
    driver.line.send([("one", 1), *value(file, 7), ("two", b"x" * 1_000_000)])
    wait_until(lambda: node.came and node.came[-1][0] == "two")
    assert node.came[0] == ("one", 1) and node.came[-1] == ("two", b"x" * 1_000_000)
    content = os.pread(file, 10_000_000, 0)
    assert b"".join(data for _, _, data in node.came[1:-1]) == content
    assert [offset for _, offset, _ in node.came[1:-1]] == list(
        range(0, 10_000_000, line.PART_BYTES)
    )


def test_what_may_come_later_is_overtaken_hurried_and_dropped(
    sides: tuple[Side, Side], file: int, wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    driver, node = sides
    monkeypatch.setattr(line, "LATER_S", 600.0)
    node.line.start()
    for attempt in (1, 2, 3):
        node.line.send_later(attempt, [*value(file, attempt), (carrier.ARRIVED, [attempt])])
    node.line.send([("now", 0)])
    wait_until(lambda: driver.came == [("now", 0)])
    node.line.drop(1)
    node.line.hurry(2)
    wait_until(lambda: driver.came[-1] == (carrier.ARRIVED, [2]))
    assert {one[0] for one in driver.came} == {"now", 2, carrier.ARRIVED}
    node.line.close(10)  # nothing is held back any more
    wait_until(lambda: driver.came[-1] == (carrier.ARRIVED, [3]))
    content = os.pread(file, 10_000_000, 0)
    for attempt in (2, 3):
        assert b"".join(one[2] for one in driver.came if one[0] == attempt) == content


def test_an_end_is_told_once_to_the_other_side_only(
    sides: tuple[Side, Side], wait_until: Callable[..., None]
) -> None:
    driver, node = sides
    node.line.start()
    node.line.close()
    wait_until(lambda: driver.ended)
    driver.line.send([("nobody", "hears this")])
    driver.line.close()
    assert len(driver.ended) == 1 and not node.ended
