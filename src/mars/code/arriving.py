"""The world of a pickle that has just arrived.

A worker makes one for each function that it loads. So does whoever else loads a call. The code that
reads and compares states of modules is imported when a state arrives, as most functions bring none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mars.code.world import World

if TYPE_CHECKING:
    from mars.code.changes import State
    from mars.code.modules import Source


class _Reading:
    """Reads what came beside a pickle, and compares it with what is there."""

    @staticmethod
    def read(data: bytes) -> tuple[list[Source], list[State]]:
        from mars.code import states

        return states.read(data)

    @staticmethod
    def outline(value: object) -> bytes | None:
        from mars.code import states

        return states.outline_of(value)

    @staticmethod
    def compare(
        state: State, now: object, held: dict[tuple[str, str], object]
    ) -> tuple[object] | None:
        from mars.code.pickling import compare_state

        return compare_state(state, now, held)


_READING: Final = _Reading()


def new_world() -> World:
    """A world that nothing has come to yet."""
    return World(_READING)
