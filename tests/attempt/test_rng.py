"""`mr.rng()`: same seed and place, same numbers; another place, independent ones."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.attempt.rng import generator

np = pytest.importorskip("numpy")

places = st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple)
seeds = st.integers(0, 2**128)


@given(seeds, places)
def test_same_seed_and_place_give_the_same_numbers(seed: int, place: tuple[int, ...]) -> None:
    first, again = generator(seed, place), generator(seed, place)
    assert first.integers(2**63, size=8).tolist() == again.integers(2**63, size=8).tolist()


@given(seeds, places, places)
def test_another_place_gives_other_numbers(
    seed: int, here: tuple[int, ...], there: tuple[int, ...]
) -> None:
    same = (
        generator(seed, here).integers(2**63, size=8).tolist()
        == generator(seed, there).integers(2**63, size=8).tolist()
    )
    assert same == (here == there)


def test_numbers_are_the_same_in_another_process() -> None:
    program = (
        "from mars.attempt.rng import generator\n"
        "print(generator(7, (1, 2)).integers(2**63, size=4).tolist())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert out.decode().strip() == str(generator(7, (1, 2)).integers(2**63, size=4).tolist())


def test_no_seed_means_other_numbers_each_time() -> None:
    assert generator(None, (0,)).integers(2**63) != generator(None, (0,)).integers(2**63)


def test_streams_are_uniform_and_independent() -> None:
    streams = np.array([generator(0, (i,)).random(4_000) for i in range(100)])
    # Mean of 4000 uniform numbers: 0.5 with a standard error of 0.29/sqrt(4000) = 0.0046.
    assert np.abs(streams.mean(axis=1) - 0.5).max() < 5 * 0.0046
    # Correlation of two independent streams: 0 with a standard error of 1/sqrt(4000) = 0.016.
    between = np.corrcoef(streams)[~np.eye(len(streams), dtype=bool)]
    assert np.abs(between).max() < 6 * 0.016
    # Neighbouring places look as unlike as far ones: first draws fill the ten deciles evenly.
    counts = np.histogram([generator(0, (i,)).random() for i in range(2_000)], bins=10)[0]
    assert ((counts - 200) ** 2 / 200).sum() < 33  # chi-square, 9 degrees of freedom, p = 1e-4


def test_pi_comes_out_the_same_in_any_order() -> None:
    def inside(i: int) -> int:
        return int((generator(0, (i,)).random((2, 1_000)) ** 2).sum(axis=0).__le__(1).sum())

    assert [inside(i) for i in range(10)] == [inside(i) for i in reversed(range(10))][::-1]


@pytest.mark.parametrize("bad", [(-1,), (2**32,), (0, -3)])
def test_a_place_out_of_range_is_refused(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="place"):
        generator(0, bad)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed has to be at least 0, got -1"):
        generator(-1, (0,))


def test_missing_numpy_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoNumpy:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == "numpy":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "numpy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoNumpy(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match=r"needs numpy.*pip install numpy"):
        generator(0, (0,))


def test_importing_the_module_does_not_import_numpy() -> None:
    program = "import sys, mars.attempt.rng; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
