"""The clock of a node, as far as it can be known from here."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mars.engines.cluster.clock import Clock

SECOND = 1_000_000_000

answers = st.lists(
    st.tuples(
        st.integers(0, 600 * SECOND),  # since the answer before
        st.integers(0, SECOND),  # there
        st.integers(0, SECOND),  # and back
    ),
    min_size=1,
    max_size=20,
)


@given(answers, st.integers(-(10**6) * SECOND, 10**6 * SECOND), st.integers(-90, 90))
def test_what_is_known_of_a_clock_is_within_the_time_that_its_answer_took(
    given_answers: list[tuple[int, int, int]], ahead: int, drift_ppm: int
) -> None:
    clock = Clock()
    now = 0
    best = float("inf")
    for pause, there, back in given_answers:
        asked = now + pause
        looked = asked + there
        now = looked + back
        clock.learn(asked, looked + ahead + looked * drift_ppm // 10**6, now)
        # What is known may grow old, but a good answer is not given up for a worse one.
        best = min(best + 1e-4 * (pause + there + back), (there + back) / 2)
        error = abs(clock.ahead_ns - (ahead + now * drift_ppm // 10**6))
        # Twice: also where the clock may be ours, and is taken for it.
        assert error <= 2 * best + 1e-4 * (there + back) + 2


def test_a_clock_that_may_be_ours_is_taken_for_ours() -> None:
    clock = Clock()
    clock.learn(1_000, 1_450, 2_000)
    assert clock.ahead_ns == 0
    clock.learn(3_000, 3_900, 3_200)
    assert clock.ahead_ns == 800
