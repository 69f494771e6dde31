"""How long the campaigns are: a slice of each in every test run, all of it with `make faults`."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

SCALE: Final = float(os.environ.get("MARS_CAMPAIGN", "1"))
"""Factor on the length of the campaigns; 0.1 for a first look, 10 for a night."""

SEED: Final = int(os.environ.get("MARS_SEED", "1"))
"""Where chance begins; a failure is looked at again with the same."""


def lengths(name: str, slice_of: int, whole: int, limit_s: float) -> pytest.MarkDecorator:
    """Parametrize a test with its slice and with its campaign, which has ``limit_s`` seconds."""
    long: Any = [pytest.mark.campaign, pytest.mark.timeout(limit_s * max(1.0, SCALE))]
    return pytest.mark.parametrize(
        name,
        [
            pytest.param(slice_of, id="slice"),
            pytest.param(max(slice_of, round(whole * SCALE)), id="campaign", marks=long),
        ],
    )
