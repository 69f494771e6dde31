"""The sessions and engines that are open in this process.

`opened` knows no class of sessions, so that a program begins to start its workers before all that
sessions need is loaded. Sessions enter themselves here, and `mars.sessions.opening` reads which one
is the default.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final, Generic, TypeVar

TYPE_CHECKING = False  # known to type checkers; the contract is loaded with the engine
if TYPE_CHECKING:
    from typing import Protocol

    from mars.engine import Engine, SessionRealm

    class Openable(Protocol):
        """A session, as far as its end is concerned."""

        session_id: str
        engine: Engine
        realm: SessionRealm

        def close_checkpoints(self) -> None: ...
        def close_views(self) -> None: ...

    S = TypeVar("S", bound=Openable)
else:
    S = TypeVar("S")  # the first text that stands for a type takes a process 3 ms to read


class Opened(Generic[S]):
    """The sessions and engines that are open in this process, and the default session.

    Attributes
    ----------
    default : Session or None
        The default session.
    engines : dict of str to (Engine, set of Session)
        Each engine by its address, with the sessions that use it.
    places : dict of str to (str, int) or None
        Of sessions that another one may replace, by id: the file and line where each was made.
        None: at a prompt or in a notebook. See `mars.sessions.replacing`.
    notebook : object
        The notebook or prompt that tells us of the end of each cell. None: there is none.
    lock : threading.RLock
        Whoever reads or changes `engines` holds it.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin without sessions, as a process does that the program forks."""
        self.default: S | None = None
        self.engines: dict[str, tuple[Engine, set[S]]] = {}
        self.places: dict[str, tuple[str, int] | None] = {}
        self.notebook: object = None
        self.lock = threading.RLock()

    def leave(self, session: S) -> None:
        """A session has ended. Its engine ends with the last session on it."""
        engine = session.engine
        with self.lock:
            _, sessions = self.engines.get(engine.address, (engine, set()))
            sessions.discard(session)
            if sessions:
                known = {other.session_id for other in sessions}
            else:
                self.engines.pop(engine.address, None)
                known = set()
        with contextlib.ExitStack() as ending:
            if not known:
                ending.callback(engine.close)
            if session.session_id not in known:
                engine.drop_objects(session.session_id)

    def stop(self, engine: Engine) -> None:
        """End an engine, and all sessions on it."""
        with self.lock:
            _, sessions = self.engines.pop(engine.address, (engine, set()))
        with contextlib.ExitStack() as ending:  # whatever fails, no process is left
            ending.callback(engine.close)
            for session in list(sessions):
                session.realm.closed = True
                if self.default is session:
                    self.default = None
                ending.callback(engine.drop_objects, session.session_id)
                ending.callback(session.close_checkpoints)
                ending.callback(session.close_views)

    def close(self) -> None:
        """End all engines, at the end of the program."""
        with self.lock:
            engines = list(self.engines.values())
        with contextlib.ExitStack() as ending:  # whatever fails, no process is left
            for engine, sessions in engines:
                ending.callback(engine.close)
                for session in list(sessions):
                    ending.callback(session.close_checkpoints)
                    ending.callback(session.close_views)


opened: Final[Opened[Openable]] = Opened()
os.register_at_fork(after_in_child=opened.clear)

__all__ = ["Opened", "opened"]
