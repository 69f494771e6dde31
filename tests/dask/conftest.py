"""One session of two workers for each module."""

from __future__ import annotations

import pytest

from tests.one_session import default, session

pytest.importorskip("dask")

__all__ = ["default", "session"]
