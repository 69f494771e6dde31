"""What a session knows of each of its objects: value, error, state, times and attempts.

A task of the session says it, or a block of a map, or a checkpoint. Most of it is read without
running anything. A value that is still on a node, or that a checkpoint has damaged, is run for.
"""

from __future__ import annotations

from collections.abc import Sequence

from mars.engine import Engine, SessionRealm
from mars.engines.outcome import cancelled, no_value
from mars.errors import NotExecuted
from mars.observe.attempts import Attempt, Times, attempts_of, times_of
from mars.sessions.runs import Runs
from mars.task import Call, Handle, Output, Stage, Task

TYPE_CHECKING = False  # known to type checkers; states are loaded when somebody looks
if TYPE_CHECKING:
    from mars.observe.states import State


class Outcomes:
    """The part of `mars.session.Session` that knows what came of calls."""

    realm: SessionRealm
    engine: Engine
    runs: Runs

    def values(self, handles: Sequence[Handle]) -> list[object]:
        """The values of several objects, as a list. It raises what `fetch` raises.

        Parameters
        ----------
        handles : sequence of Object
            Objects, maps and the like that were executed in this session.
        """
        self.realm.check_open()
        task, value = self._sound if self.runs.checkpoints else self.task_of, self.engine.value
        try:
            return [
                value(task(one), one.index) if isinstance(one, Output) else one.value_in(self)
                for one in handles
            ]
        except SystemExit as error:
            self.runs.tell_exit(error)
            raise
        except NotExecuted:
            # One that failed is most likely why others were not executed: that is the news.
            for one in handles if len(handles) > 1 else ():
                if isinstance(one, Output) and self._failed(one.call):
                    raise self.engine.failure(self.task_of(one)) from None
            raise

    def _failed(self, call: Call) -> bool:
        task = call.task_in(self.realm)
        return task is not None and task.stage is Stage.FAILED and task.parts is None

    def value(self, output: Output) -> object:
        """The value of one object."""
        return self.values((output,))[0]

    def _sound(self, output: Output) -> Task:
        """The task of an object. If a checkpoint has a damaged result of it, it is run again."""
        from mars.checkpoint.kept import Damaged, KeptTask

        task = self.task_of(output)
        if isinstance(task, KeptTask):
            try:
                task.load()
            except Damaged:
                task.forget()
                self.runs.run([output], finish=lambda: None, show_progress=False)
                return self.task_of(output)
        return task

    def task_of(self, output: Output) -> Task:
        """The task that has the value or the error of an object.

        Raises
        ------
        NotExecuted
            It has not ended, or was not executed here. The message says which, and what to do.
        CancelledError
            It was cancelled.
        """
        call = output.call
        task = call.task
        if task is None or task.realm is not self.realm:
            task = self._known(call)
            if task is None:
                raise self._no_value(call)
        stage = task.stage
        if stage is not Stage.DONE and stage is not Stage.FAILED:
            if stage is not Stage.MADE or task.cancelled:
                raise self._no_value(call)
            # Its value is on a node of the cluster. Whoever asks for it has it brought here.
            self.runs.run([output], finish=lambda: None, show_progress=False)
            return self.task_of(output)
        return task

    def withdraw(self, call: Call) -> bool:
        """Cancel one call; False: it has ended, or no run is at it."""
        self.realm.check_open()
        task = call.task_in(self.realm)
        return task is not None and not task.finished and self.engine.withdraw(task)

    def _no_value(self, call: Call) -> BaseException:
        """The error of a call that has neither a value nor an error of its own here."""
        from mars.observe.states import CANCELLED, NOT_STARTED, state_in, title_of

        state = state_in(call, self.realm)
        if state.word == CANCELLED:
            return cancelled(call)
        other = call.task
        if state.word != NOT_STARTED or other is None or other.realm is self.realm:
            return no_value(title_of(call), state)
        realm: object = other.realm
        if getattr(realm, "closed", False):
            reason = (
                "was executed in a session that is closed. Call execute() to run it again in "
                "this one"
            )
        else:
            reason = (
                f"was executed in another session, {getattr(realm, 'session_id', '')}. Read it "
                f"there with fetch(session=...), or call execute() to run it in this one, too"
            )
        return NotExecuted(title_of(call), reason, NOT_STARTED)

    def state(self, output: Output) -> State:
        """The state of the call of an object in this session; see `mars.observe.states`.

        Parameters
        ----------
        output : Object
            The object.
        """
        from mars.observe.states import state_in

        return state_in(output.call, self.realm)

    def _known(self, call: Call) -> Task | None:
        return call.task_in(self.realm) or call.adopt(self.realm)

    def times(self, output: Output) -> Times | None:
        """When the last attempt of the call of an object went through its stages.

        Parameters
        ----------
        output : Object
            The object.

        Returns
        -------
        Times or None
            Eight moments, in seconds of `time.monotonic`. None: the call has not ended.
        """
        task = self._known(output.call)
        return None if task is None else times_of(task)

    def attempts(self, output: Output) -> list[Attempt]:
        """Where each attempt of the call of an object ran, and how it ended, first to last.

        Parameters
        ----------
        output : Object
            The object.

        Returns
        -------
        list of Attempt
            The attempts that have ended. Empty if the result came from a checkpoint.
        """
        task = self._known(output.call)
        return [] if task is None else attempts_of(task)

    def error(self, output: Output) -> BaseException | None:
        """The error of the call of an object. None: it has a value.

        A call that has not ended, or was not run, has a `NotExecuted` that says so.
        """
        call = output.call
        task = self._known(call)
        if task is None or task.stage not in (Stage.FAILED, Stage.DONE):
            if task is not None and task.stage is Stage.MADE and not task.cancelled:
                return None  # it has a value, which is still on its node
            return self._no_value(call)
        if task.stage is Stage.DONE and not (call.may_hold_errors or task.broken):
            return None
        try:
            self.engine.value(task, output.index)
        except BaseException as error:
            return error
        return None

    def executed(self, output: Output) -> bool:
        """Whether the object has a value here."""
        task = output.call.task_in(self.realm)
        return task is not None and task.available
