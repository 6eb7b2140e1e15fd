"""Adds up what several processes show to Prometheus, as if they were one."""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_Key: TypeAlias = tuple[str, str, frozenset[tuple[str, str]]]
"""Family, sample and labels."""

_Values: TypeAlias = dict[_Key, Sample]

_ACCUMULATED: Final = ("counter", "histogram", "summary")
_CREATED: Final = "_created"

_EXTREMES: Final[dict[str, Callable[[float, float], float]]] = {
    "gateway_bus_connected": min,
    "gateway_build_info": max,
    "gateway_clock_skew_seconds": max,
    "gateway_drain_state": min,
    "gateway_event_loop_lag_seconds": max,
    "gateway_replicas": max,
    "process_start_time_seconds": min,
    "python_info": max,
}
"""Gauges whose sum would mean nothing, and what is shown of several: the worst, or what all share."""


class ExpositionSum:
    """The sum of what processes last showed. What those counted that have ended stays in it.

    So a counter goes down only when this process starts anew, and what is counted is lost between the last
    time a process was asked and its end.
    """

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._last: dict[str, _Values] = {}
        self._ended: _Values = {}

    def show(self, process: str, text: str) -> None:
        """Take what a process shows now, in Prometheus' text format.

        Raises:
            ValueError: It is none.
        """
        values: _Values = {}
        for family in text_string_to_metric_families(text):
            self._families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                values[family.name, sample.name, frozenset(sample.labels.items())] = sample
        self._last[process] = values

    def end(self, process: str) -> None:
        """Go on without a process, but for what it has counted."""
        last = self._last.pop(process, {})
        self._add(self._ended, {key: last[key] for key in last if self._is_kept(key)})

    def text(self) -> tuple[bytes, str]:
        """The Prometheus text format: body and content type."""
        total = dict(self._ended)
        for values in self._last.values():
            self._add(total, values)
        registry = CollectorRegistry()
        registry.register(_Families(self._families, total))
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _is_kept(self, key: _Key) -> bool:
        family = key[0]
        return self._families[family].type in _ACCUMULATED or family.endswith(_CREATED)

    def _add(self, total: _Values, values: _Values) -> None:
        for key, sample in values.items():
            there = total.get(key)
            if there is None:
                total[key] = sample
                continue
            how = min if key[0].endswith(_CREATED) else _EXTREMES.get(key[0], float.__add__)
            total[key] = sample._replace(value=how(there.value, sample.value))


class _Families:
    """What a registry collects (``prometheus_client.registry.Collector``)."""

    def __init__(self, families: dict[str, Metric], values: _Values) -> None:
        self._families = families
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """The families with their samples; those of a histogram in order, as each process has them."""
        samples: dict[str, list[Sample]] = {name: [] for name in self._families}
        for (name, _, _), sample in self._values.items():
            samples[name].append(sample)
        for name, family in self._families.items():
            metric = Metric(name, family.documentation, family.type)
            metric.samples = samples[name]
            yield metric
