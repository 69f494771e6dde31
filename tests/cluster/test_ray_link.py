"""How a program gets into a Ray that answers late."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from mars.engines import ray as adapter
from mars.errors import StartupFailed

LATE = "Initialization failure from server:\nRuntimeError: Proxy failed to Connect to backend!"


class LateRay:
    """Says what it is given, one for each try, and then lets in."""

    def __init__(self, *said: str) -> None:
        self.said = list(said)
        self.tries = 0

    def init(self, **_: object) -> None:
        self.tries += 1
        if self.said:
            raise ConnectionAbortedError(self.said.pop(0))


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> adapter.RayLink:
    monkeypatch.setattr(adapter, "_check_tls", lambda *_: None)
    return adapter.RayLink("ray://10.0.0.1:7105")


def test_a_client_server_that_was_too_slow_is_asked_once_more(link: adapter.RayLink) -> None:
    late = LateRay(LATE)
    link._connect(late)
    assert late.tries == 2


@pytest.mark.parametrize(("said", "tries"), [([LATE, LATE], 2), (["no such version"], 1)])
def test_it_is_not_asked_for_ever_nor_after_another_answer(
    link: adapter.RayLink, said: list[str], tries: int
) -> None:
    ray = LateRay(*said)
    with pytest.raises(StartupFailed, match=said[-1].splitlines()[0]):
        link._connect(ray)
    assert ray.tries == tries


def test_what_a_killed_program_left_goes_with_the_next_and_nothing_that_is_in_use(
    tmp_path: Path,
) -> None:
    old, used, new, other = (
        tmp_path / name for name in ("mars-ray-old", "mars-ray-used", "mars-ray-new", "ray-old")
    )
    for folder in (old, used, new, other):
        (folder / "r" / "logs").mkdir(parents=True)
        if folder != new:
            os.utime(folder, (1.0, 1.0))
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    adapter.remove_left(str(tmp_path), new.stat().st_mtime)
    os.close(descriptor)
    assert sorted(tmp_path.iterdir()) == [new, used, other]


class Told:
    """Listens, and does nothing."""

    def left(self, node: str, reason: str) -> None: ...


@pytest.mark.parametrize(
    ("met", "impostor", "taken_again"),
    [(True, False, True), (False, False, False), (True, True, False)],
)
def test_a_node_that_was_lost_and_that_ray_still_has_is_taken_again(
    link: adapter.RayLink, met: bool, impostor: bool, taken_again: bool
) -> None:
    held = adapter._Held("10.0.0.2:7105 1", "node", None, None)
    link._listener = Told()  # type: ignore[assignment]
    link._held[held.name] = held
    link._known.add("node")
    held.met = met
    if impostor:
        link._impostors.append(held)
    link._lost(held, "the way was cut")
    assert link._known == (set() if taken_again else {"node"})


@pytest.mark.parametrize(
    ("host", "address", "leads"),
    [
        ("10.0.0.2", "ray://10.0.0.1:7105", True),
        ("127.0.0.1", "ray://127.0.0.1:7105", True),
        ("10.0.0.2", "auto", True),
        ("10.0.0.2", "ray://127.0.0.1:7105", False),
        ("10.0.0.2", "ray://[::1]:7105", False),
    ],
)
def test_who_comes_through_a_tunnel_does_not_take_others_for_the_nodes(
    host: str, address: str, leads: bool
) -> None:
    assert adapter._leads_to(host, address) is leads


@pytest.mark.parametrize(("free", "why"), [(2.0, False), (1.0, True), (None, True)])
def test_a_ray_whose_cores_are_all_in_use_is_told_of(
    link: adapter.RayLink, free: float | None, why: bool
) -> None:
    class Busy:
        """Has a head without cores and a node with two."""

        def available_resources(self) -> dict[str, float]:
            return {} if free is None else {"CPU": free}

        def nodes(self) -> list[dict[str, object]]:
            return [
                {"Alive": True, "Resources": {}},
                {"Alive": True, "Resources": {"CPU": 2.0}},
            ]

    link._ray = Busy()
    assert ("another program" in link.why_silent()) is why


def test_a_ray_that_cannot_be_asked_is_no_reason(link: adapter.RayLink) -> None:
    assert link.why_silent() == ""
