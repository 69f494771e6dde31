"""What a process of Dask or Ray loads of us before its node answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*[name for name in sys.modules if name.startswith("mars.")])
"""


@pytest.mark.parametrize("part", ["dask_parts", "ray_parts"])
def test_a_node_loads_nothing_of_the_driver_before_it_answers(part: str) -> None:
    module = f"mars.engines.cluster.{part}"
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, module], capture_output=True, text=True, check=True
    )
    loaded = ended.stdout.split()
    assert module in loaded and "mars.engines.cluster.node" in loaded
    driver = ("mars.engines.driver", "mars.engines.cluster.engine", "mars.session", "mars.observe")
    assert [name for name in loaded if name.startswith(driver)] == []
