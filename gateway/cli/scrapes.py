"""Scrapes of a running gateway: Prometheus' text format taken apart, and what two scrapes make of it."""

import math
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

Series: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""

_LINE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(text: str) -> Series:
    """The samples of Prometheus' text format; what is none is passed over."""
    series: Series = {}
    for line in text.splitlines():
        if (found := _LINE.fullmatch(line)) is not None:
            name, labels, value = found.groups()
            try:
                series[name, frozenset(_LABEL.findall(labels or ""))] = float(value)
            except ValueError:
                continue
    return series


class Scrapes(msgspec.Struct, frozen=True):
    """What one scrape shows, and the one before.

    Attributes:
        seconds: Between the two.
    """

    now: Series
    before: Series
    seconds: float

    def value(self, name: str, **labels: str) -> float:
        """The sum of all series of a metric that have these labels, ``gateway_`` left away; 0 for none."""
        return _sum(self.now, f"gateway_{name}", labels)

    def process(self, name: str) -> float:
        """A metric of the process, ``process_`` left away."""
        return _sum(self.now, f"process_{name}", {})

    def processor(self) -> float:
        """The share of one core that it took."""
        name = "process_cpu_seconds_total"
        return max(0.0, _sum(self.now, name, {}) - _sum(self.before, name, {})) / self.seconds

    def rate(self, name: str, **labels: str) -> float:
        """By how much a counter grows a second; what a restart set back has grown from zero."""
        name = f"gateway_{name}"
        return sum(self._grown(key) for key in _of(self.now, name, labels)) / self.seconds

    def rates(self, name: str, label: str) -> list[tuple[str, float]]:
        """The series of a counter that grow, the fastest first: the value of a label, and the rate."""
        values = {dict(key[1])[label] for key in _of(self.now, f"gateway_{name}", {})}
        rates = [(value, self.rate(name, **{label: value})) for value in values]
        return sorted(((v, r) for v, r in rates if r > 0), key=lambda each: (-each[1], each[0]))

    def quantile(self, name: str, share: float) -> float | None:
        """What so great a share of a histogram's observations between the scrapes stayed below.

        As Prometheus' ``histogram_quantile``: linear within a bucket, and of the last one its lower bound.

        Returns:
            Seconds; None if nothing was observed.
        """
        buckets = sorted(
            (float(dict(key[1])["le"]), self._grown(key))
            for key in _of(self.now, f"gateway_{name}_bucket", {})
        )
        total = buckets[-1][1] if buckets else 0.0
        if total <= 0:
            return None
        wanted = share * total
        below, counted = 0.0, 0.0
        for bound, upto in buckets:
            if upto >= wanted:
                if math.isinf(bound) or upto == counted:
                    return below
                return below + (bound - below) * (wanted - counted) / (upto - counted)
            below, counted = bound, upto
        return below

    def _grown(self, key: tuple[str, frozenset[tuple[str, str]]]) -> float:
        now, before = self.now[key], self.before.get(key, 0.0)
        return now - before if now >= before else now


def _of(
    series: Series, name: str, labels: dict[str, str]
) -> Iterator[tuple[str, frozenset[tuple[str, str]]]]:
    wanted = labels.items()
    return (key for key in series if key[0] == name and wanted <= key[1])


def _sum(series: Series, name: str, labels: dict[str, str]) -> float:
    return sum(series[key] for key in _of(series, name, labels))
