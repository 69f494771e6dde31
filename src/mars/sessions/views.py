"""What a session tells of its past: a report, a timeline, a prediction, a table.

All of it is read from the engine's table of attempts, and made in the thread that asks.
"""

from __future__ import annotations

from mars.engine import Engine
from mars.errors import UsageError

TYPE_CHECKING = False  # known to type checkers; loaded when somebody asks
if TYPE_CHECKING:
    import os

    from mars.report.record import Record
    from mars.report.report import Report
    from mars.report.what_if import WhatIf


class Views:
    """The part of `mars.session.Session` that looks back."""

    session_id: str
    engine: Engine
    _nested: bool

    def _record(self) -> Record:
        if self._nested:
            raise UsageError(
                "inside a call there is no record of its calls: the program's own session has it"
            )
        from mars.report.record import record_of

        return record_of(self.engine.table(), self.session_id)

    def report(self) -> Report:
        """Where the time of all runs of this session went, and what would help.

        It may be asked for at any time, also after `close`. Calls that run are not in it.

        Returns
        -------
        Report
            ``print`` it, show it in a notebook, or ``save`` it as ``.html`` or ``.json``.

        Raises
        ------
        UsageError
            This is the session of a nested call.

        Examples
        --------
        >>> import mars, mars.remote as mr
        >>> with mars.new_session(n_cpu=1) as session:
        ...     _ = mr.map(abs, [-1, 2]).execute()
        ...     session.report().functions[0].calls
        2
        """
        from mars.report.report import report_of

        return report_of(self._record())

    def timeline(self, path: str | os.PathLike[str]) -> None:
        """Write all attempts as a timeline, for https://ui.perfetto.dev or chrome://tracing.

        Parameters
        ----------
        path : str or path
            The file, such as ``trace.json``.

        Raises
        ------
        UsageError
            This is the session of a nested call.
        OSError
            The file cannot be written.
        """
        from pathlib import Path

        from mars.report.timeline import trace_of

        Path(path).write_text(trace_of(self._record()), encoding="utf-8")

    def what_if(
        self, nodes: int = 1, cpus: float = 1, price: float | None = None, gpus: int | None = None
    ) -> WhatIf:
        """Predict how long the runs of this session would take on other machines.

        The measured calls go through the same scheduler once more, on simulated machines.

        Parameters
        ----------
        nodes : int, default 1
            Machines.
        cpus : float, default 1
            Cores of each machine.
        price : float, optional
            What one core costs for an hour.
        gpus : int, optional
            GPUs of each machine. None: as many as the call needs that has asked for most.

        Returns
        -------
        WhatIf
            ``print`` it for the curve from one machine on, its knee, and what is assumed.

        Raises
        ------
        UsageError
            No call has ended, or a call would not fit into such a machine.
        """
        from mars.report.what_if import what_if

        return what_if(self._record(), nodes, cpus, price, gpus)

    def attempts_frame(self) -> object:
        """All attempts that have ended, as a table with a row for each.

        Returns
        -------
        pandas.DataFrame or pyarrow.Table
            The first if pandas is installed. The columns are those of
            `mars.observe.observation.EndedAttempt`, with the eight moments one by one; moments are
            seconds of `time.monotonic`.

        Raises
        ------
        ImportError
            Neither pandas nor pyarrow is installed.
        UsageError
            This is the session of a nested call.
        """
        from mars.report.frame import frame_of

        return frame_of(self._record())
