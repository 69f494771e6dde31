"""The call that stands for a value which the program has stored itself: it never runs.

`mars.calls.put` makes it. Each session that needs the value gets a task that is done already. So
neither engines nor schedulers know of a second kind of input.
"""

from __future__ import annotations

from typing import Final

from mars.calls.options import DEFAULT_OPTIONS
from mars.engine import SessionRealm
from mars.errors import SessionClosed
from mars.task import Call, Function, Realm, Stage, Task

_PUT: Final = Function(b"", "put", b"")


class HeldCall(Call):
    """A call whose value was there before any run.

    Parameters
    ----------
    home : SessionRealm
        The session that stores the value.
    """

    __slots__ = ("home",)

    adoptable = True

    def __init__(self, home: SessionRealm) -> None:
        super().__init__(_PUT, b"", (), (), DEFAULT_OPTIONS, None)
        self.home = home
        self.satisfied = True

    def hold(self, realm: SessionRealm, value: object) -> Task:
        """Store the value in one more session.

        Raises
        ------
        EncodeError
            It does not pickle.
        StoreFull
            There is no room for it.
        SessionClosed
            The session has ended.
        """
        realm.check_open()
        task = Task(self, realm)
        realm.engine.install(task, value)
        task.stage, task.asked = Stage.DONE, True
        self.attach(task)
        return task

    def value(self) -> object:
        """A fresh copy of the value.

        Raises
        ------
        SessionClosed
            The session that stores it has ended.
        """
        task = self.task_in(self.home)
        if task is None or self.home.closed:
            raise SessionClosed(
                "the session that a value was put into has ended, and the value with it; put it "
                "into the session that needs it: session.put(value)"
            )
        return self.home.engine.value(task, 0)

    def adopt(self, realm: Realm) -> Task | None:
        # Another session asks for it: that one gets a copy of its own.
        return self.hold(realm, self.value()) if isinstance(realm, SessionRealm) else None


__all__ = ["HeldCall"]
