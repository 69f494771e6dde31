"""How far the clock of a node is ahead of ours.

`time.monotonic` counts from the start of a machine: what a node says of its moments means nothing
here by itself. A node that is asked for its clock answers at once. It looked at its clock between
our question and our hearing of the answer; we take the middle, which is wrong by half of that time
at the most. Pure.
"""

from __future__ import annotations

import math

from mars.settings import CLOCK_DRIFT


class Clock:
    """What is known of the clock of one node.

    Attributes
    ----------
    ahead_ns : int
        What it shows when ours shows zero, in nanoseconds; 0 as long as both may be one clock.
    """

    def __init__(self) -> None:
        self.ahead_ns = 0
        self._error_ns = math.inf
        self._learned_ns = 0  # when, by our clock

    def learn(self, asked_ns: int, there_ns: int, heard_ns: int) -> None:
        """Take an answer, unless what is known is still better.

        Parameters
        ----------
        asked_ns, heard_ns : int
            When we asked and when we heard, by our clock, in nanoseconds.
        there_ns : int
            What the node's clock showed between the two.
        """
        error = (heard_ns - asked_ns) / 2
        if error > self._error_ns + CLOCK_DRIFT * (heard_ns - self._learned_ns):
            return
        ahead = there_ns - (asked_ns + heard_ns) // 2
        self.ahead_ns = 0 if abs(ahead) <= error else ahead
        self._error_ns, self._learned_ns = error, heard_ns
