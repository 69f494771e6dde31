"""Which packages a function needs for certain: those that a node has to have."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mars.attempt.codec import Keep
from mars.code.functions import describe


def needed(func: Callable[..., Any]) -> frozenset[str]:
    return describe(func, Keep).packages()


def imports() -> None:
    import far_away.inside  # noqa: F401
    from nowhere_at_all import something  # noqa: F401


def imports_the_standard_library() -> None:
    import json  # noqa: F401
    import xml.dom  # noqa: F401

    import mars  # noqa: F401


def may_import(wanted: bool) -> None:
    try:
        import nowhere_at_all  # noqa: F401
    except ImportError:
        print("it goes on without")
    if wanted:
        import far_away  # noqa: F401
    else:
        import further_away  # noqa: F401
    for _ in range(2):
        import in_a_loop  # noqa: F401


def tries_and_then_imports() -> None:
    try:
        import nowhere_at_all  # noqa: F401
    except ImportError:
        pass
    import far_away  # noqa: F401


def test_what_a_function_imports_whatever_it_does_is_needed() -> None:
    assert needed(imports) == {"far_away", "nowhere_at_all"}
    assert needed(tries_and_then_imports) == {"far_away"}


def test_what_may_be_optional_is_not_needed() -> None:
    assert needed(may_import) == set()
    assert needed(imports_the_standard_library) == set()


def test_what_a_function_takes_from_an_installed_package_is_needed() -> None:
    def by_its_module(x: Any) -> Any:
        return np.sum(x)

    whole: Any = np.sum
    kind: Any = np.float32

    def through_a_closure(x: Any) -> Any:
        return whole(kind(x))

    def by_another_function(x: Any) -> Any:
        return by_its_module(x)

    for func in (by_its_module, through_a_closure, by_another_function, np.sum):
        assert needed(func) == {"numpy"}, func


def test_modules_of_the_program_are_not_needed_but_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_helper.py").write_text(
        textwrap.dedent(
            """
            import sys
            from typing import TYPE_CHECKING
            import needs_inner
            if TYPE_CHECKING:
                import only_for_types
            try:
                import only_if_there
            except ImportError:
                pass
            def helps(x):
                import needs_later
                import far_away
                return needs_inner.inner(x)
            """
        )
    )
    (tmp_path / "needs_inner.py").write_text("import numpy\ndef inner(x): return x\n")
    (tmp_path / "needs_later.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import needs_helper  # type: ignore[import-not-found]

    try:
        assert needed(needs_helper.helps) == {"numpy", "far_away"}
        assert needed(lambda x: needs_helper.helps(x)) == {"numpy", "far_away"}
    finally:
        for name in ("needs_helper", "needs_inner"):
            del sys.modules[name]
