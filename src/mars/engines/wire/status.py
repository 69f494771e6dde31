"""How an attempt ended, as a worker tells the program.

Written by `mars.engines.worker`, read by the scheduler. It is small because every worker process
loads it.
"""

from __future__ import annotations

from typing import Final

VALUE: Final = 0
EXCEPTION: Final = 1
"""The function raised, and another attempt may help."""

FATAL: Final = 2
"""It raised something that another attempt cannot help."""

RETURNED: Final = 3
"""Not started: an input in the worker's queue failed."""

START_REFUSED: Final = 100
"""An exit code from this on is that of a worker to which the system refused something as it began:
100 and the number of the error. Its log may be what was refused."""

INTERRUPTED: Final = 4
"""SIGINT reached it: a timeout, or a cancel."""
