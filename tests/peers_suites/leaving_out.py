"""How a suite leaves tests out: they are listed by the ends of their ids, with the reason."""

from __future__ import annotations

import pytest

from tests.peers_suites.__main__ import left_out


def leave_out(plugin: str, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the listed tests out of what was collected."""
    listed = left_out(plugin)
    gone = [item for item in items if _is_listed(item, listed)]
    items[:] = [item for item in items if not _is_listed(item, listed)]
    config.hook.pytest_deselected(items=gone)


def _is_listed(item: pytest.Item, listed: list[str]) -> bool:
    name = f"{item.path.stem}::{item.nodeid.rpartition('::')[2]}"
    return name in listed or name.partition("[")[0] in listed
