"""Attempts as spans of OpenTelemetry: ``mars.options.open_telemetry``.

It uses the API alone, so what becomes of the spans is what the program has set up. Called by
`mars.sessions.following`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mars.observe.events import ATTEMPT, BEGAN, Event

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Status


class Spans:
    """Makes a span for each run, and below it one for each attempt.

    Parameters
    ----------
    ahead_s : float
        How far `time.time` is ahead of `time.monotonic`, in seconds.

    Raises
    ------
    ImportError
        The extra ``otel`` is not installed.
    """

    def __init__(self, ahead_s: float) -> None:
        try:
            from opentelemetry import context, trace
        except ImportError as error:
            raise ImportError(
                "mars.options.open_telemetry needs the extra 'otel': "
                "pip install 'mars-remote[otel]'"
            ) from error
        from mars._version import __version__

        self._trace, self._context = trace, context
        self._tracer = trace.get_tracer("mars", __version__)
        self._ahead_s = ahead_s
        self._runs: dict[int, Span] = {}

    def here(self) -> Context:
        """The context of the thread that asks: the program's own span, if it has one."""
        return self._context.get_current()

    def tell(self, event: Event, parent: Context | None) -> None:
        """Make, or end, the span of an event.

        Parameters
        ----------
        event : Event
            The event.
        parent : Context, optional
            `here` of the thread that began the run.
        """
        at_ns = int(event.time * 1e9)
        if event.kind == BEGAN:
            self._runs[event.run] = self._tracer.start_span(
                "mars run", context=parent, start_time=at_ns,
                attributes={"mars.session": event.session, "mars.run": event.run,
                            "mars.calls": event.total},
            )  # fmt: skip
        elif event.kind == ATTEMPT:
            self._attempt(event, parent)
        else:
            span = self._runs.pop(event.run, None)
            if span is not None:
                span.set_attribute("mars.failed", event.failed)
                if event.failed:
                    span.set_status(self._failed(f"{event.failed} calls failed"))
                span.end(end_time=at_ns)

    def _attempt(self, event: Event, parent: Context | None) -> None:
        one = event.attempt
        assert one is not None
        above = self._runs.get(event.run)
        if above is not None:
            parent = self._trace.set_span_in_context(above, parent)
        ended_s = one.ended or event.time - self._ahead_s
        began_s = min(one.times.received if one.times else one.sent or ended_s, ended_s)
        attributes: dict[str, str | int | float] = {
            "mars.session": event.session, "mars.run": one.run, "mars.call": one.call,
            "mars.name": one.name, "mars.function": one.function, "mars.attempt": one.attempt,
            "mars.ending": one.ending, "mars.worker": one.worker, "mars.node": one.node,
            "mars.items": one.size, "mars.cpu_seconds": one.cpu_s,
            "mars.read_bytes": one.read_bytes, "mars.written_bytes": one.written_bytes,
            "process.pid": one.pid,
        }  # fmt: skip
        if one.times is not None:
            attributes["mars.running_seconds"] = one.times.running_s
            attributes["mars.waiting_seconds"] = one.times.waiting_s
        span = self._tracer.start_span(
            one.function or one.name, context=parent, start_time=self._ns(began_s),
            attributes=attributes,
        )  # fmt: skip
        if one.times is not None:
            for name in ("called", "returned"):
                span.add_event(name, timestamp=self._ns(getattr(one.times, name)))
        if one.ending != "value":
            span.set_status(self._failed(one.ending))
        span.end(end_time=self._ns(ended_s))

    def _ns(self, moment_s: float) -> int:
        return int((moment_s + self._ahead_s) * 1e9)

    def _failed(self, why: str) -> Status:
        return self._trace.Status(self._trace.StatusCode.ERROR, why)


__all__ = ["Spans"]
