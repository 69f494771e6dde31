"""Random numbers that depend on the run's seed and a call's place in the graph, on nothing else.

It does not matter which worker runs a call, when, or how often: the same seed and the same place
give the same stream. The global state of `random` and `numpy.random` is never touched. Called by
``mars.remote.rng``; numpy is imported here, and only when somebody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy

PLACE_LIMIT: Final = 2**32
"""`SeedSequence` cuts larger numbers into several words, so that (2**32,) would equal (0, 1)."""


def generator(entropy: int | None, place: tuple[int, ...]) -> numpy.random.Generator:
    """Return the generator that belongs to one place.

    Parameters
    ----------
    entropy : int or None
        Seed of the run, not negative. None: taken from the operating system, different each time.
    place : tuple of int
        Place of the call in the graph, each number in ``[0, 2**32)``. Places that differ,
        also in length only, give independent streams.

    Returns
    -------
    numpy.random.Generator
        A fresh one, as from ``default_rng(SeedSequence(entropy, spawn_key=place))``.

    Raises
    ------
    ModuleNotFoundError
        numpy is not installed.
    ValueError
        The seed is negative, or a number of the place is out of range.

    Examples
    --------
    >>> int(generator(0, (3,)).integers(1000)) == int(generator(0, (3,)).integers(1000))
    True
    """
    if entropy is not None and entropy < 0:
        raise ValueError(f"seed has to be at least 0, got {entropy}")
    if not all(0 <= number < PLACE_LIMIT for number in place):
        raise ValueError(f"every number of a place has to be in [0, 2**32), got {place}")
    try:
        from numpy.random import SeedSequence, default_rng
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "numpy":
            raise
        raise ModuleNotFoundError(
            "mr.rng() needs numpy, which is not installed here: pip install numpy", name="numpy"
        ) from error
    return default_rng(SeedSequence(entropy, spawn_key=place))
