"""Numbers of a session for Prometheus, at ``/metrics``, from what the page knows anyway."""

from __future__ import annotations

from collections.abc import Iterator

from mars.web.facts import Facts


def text_of(facts: Facts) -> bytes:
    """The numbers, in Prometheus' text format.

    Counters are as far as the page has read attempts: ``mars_calls_behind`` says how many it has
    not. Values of ``function`` are names in the program; those of calls are not given, because
    there may be millions.

    Raises
    ------
    ImportError
        prometheus-client is not installed.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    class Collector:
        """Makes all numbers when Prometheus asks."""

        def collect(self) -> Iterator[object]:
            return _metrics(facts)

    registry = CollectorRegistry()
    registry.register(Collector())  # type: ignore[arg-type, unused-ignore]
    text: bytes = generate_latest(registry)
    return text


def _metrics(facts: Facts) -> Iterator[object]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    seen = facts.overview()
    ended = CounterMetricFamily(
        "mars_calls", "Calls that have ended.", labels=["function", "ending"]
    )
    spent = CounterMetricFamily(
        "mars_call_seconds", "Seconds that functions ran.", labels=["function"]
    )
    for kind in list(facts.index.kinds.values()):
        ended.add_metric([kind.name, "value"], kind.done)
        ended.add_metric([kind.name, "failed"], kind.failed)
        spent.add_metric([kind.name], kind.spent_s)
    yield ended
    yield spent
    for name, told, value in (
        ("mars_runs", "Runs that are under way.", seen["runs"]),
        ("mars_calls_left", "Calls of these runs that have not ended.",
         seen["total"] - seen["done"] - seen["failed"]),
        ("mars_calls_running", "Workers that run a call.", len(seen["running"])),
        ("mars_calls_behind", "Attempts that have not been counted yet.", seen["behind"]),
        ("mars_cores", "Cores that calls share.", seen["cores"]),
        ("mars_cores_busy", "Cores that running calls have.", seen["busy"]),
        ("mars_workers", "Worker processes.", len(seen["workers"])),
    ):  # fmt: skip
        yield GaugeMetricFamily(name, told, value=value)
