"""A ring of samples of a replica's counters, and the rates, quantiles and charts made of it."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from markupsafe import Markup

from gateway.metrics import BUCKET_SECONDS, Metrics

SAMPLE_SECONDS: Final = 5
"""Time between two samples."""

KEPT: Final = 60
"""Samples kept: five minutes."""

RECENT: Final = 12
"""Steps, the last of them, that a quantile is taken of: one minute."""

_WIDTH: Final = 120
_HEIGHT: Final = 30


class Sample(NamedTuple):
    """Counters and gauges at one moment; counters are totals since the start.

    Attributes:
        at: Unix seconds.
        lag: How late the event loop was, in seconds.
        waits: Messages by how long they took from the publish to the fan-out, by bucket.
        drops: Messages that sockets should have got and did not, by reason.
    """

    at: float
    connections: int
    topics: int
    received: int
    delivered: int
    lag: float
    waits: tuple[int, ...]
    drops: dict[str, float]


class Trend:
    """The samples of the last minutes, the oldest first."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def take(self, metrics: Metrics, *, connections: int, topics: int, now: float) -> None:
        """Add a sample."""
        self.samples.append(
            Sample(
                at=now,
                connections=connections,
                topics=topics,
                received=metrics.messages_received.value,
                delivered=metrics.messages_delivered.value,
                lag=metrics.values(metrics.event_loop_lag)[""],
                waits=metrics.publish_to_deliver.counts,
                drops=metrics.values(metrics.messages_dropped),
            )
        )

    def gauge(self, name: str) -> list[float]:
        """A gauge's values."""
        return [getattr(sample, name) for sample in self.samples]

    def rates(self, name: str) -> list[float]:
        """How much a counter grew in each second, from sample to sample."""
        return [
            max(0.0, (getattr(b, name) - getattr(a, name)) / max(b.at - a.at, 0.001))
            for a, b in pairwise(self.samples)
        ]

    def quantile(self, share: float) -> float | None:
        """What this share of the messages of the last minute took at most, seconds; None without any."""
        recent = list(self.samples)[-RECENT - 1 :]
        return quantile(share, _grown(recent[0], recent[-1])) if len(recent) > 1 else None

    def quantiles(self, share: float) -> list[float]:
        """The same from sample to sample; 0 where no message came."""
        return [quantile(share, _grown(a, b)) or 0.0 for a, b in pairwise(self.samples)]

    def dropped(self) -> list[tuple[str, int, int]]:
        """Drops by reason: those of the kept minutes, and all; the most first, those without any left out."""
        if not self.samples:
            return []
        first, last = self.samples[0].drops, self.samples[-1].drops
        found = [
            (reason, int(total - first.get(reason, 0)), int(total))
            for reason, total in last.items()
            if total
        ]
        return sorted(found, key=lambda each: (-each[1], -each[2], each[0]))


def _grown(before: Sample, after: Sample) -> list[int]:
    return [b - a for a, b in zip(before.waits, after.waits, strict=True)]


def quantile(share: float, counts: Sequence[int]) -> float | None:
    """A quantile from a histogram's buckets, in seconds, as PromQL's ``histogram_quantile`` reckons it.

    Args:
        counts: Observations by bucket of :data:`~gateway.metrics.BUCKET_SECONDS`, above the last of them
            at the end; such are taken for as long as the last.
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted = share * total
    below = 0
    lower = 0.0
    for bound, count in zip(BUCKET_SECONDS, counts, strict=False):
        if below + count >= wanted and count:
            return lower + (bound - lower) * (wanted - below) / count
        below += count
        lower = bound
    return lower


def sparkline(values: Sequence[float], label: str) -> Markup:
    """A line chart from zero upwards, as inline SVG that takes its colour and size from the style sheet.

    Args:
        label: What a screen reader says.
    """
    most = max(values, default=0.0) or 1.0
    step = _WIDTH / (KEPT - 1)
    begin = _WIDTH - step * max(0, len(values) - 1)  # what is newest stands at the right edge
    points = " ".join(
        f"{begin + step * index:.1f},{_HEIGHT - 1 - (_HEIGHT - 3) * value / most:.1f}"
        for index, value in enumerate(values)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
        ' aria-label="{label}"><polygon points="{begin:.1f},{height} {points} {width},{height}"/>'
        '<polyline points="{points}"/></svg>'
    ).format(width=_WIDTH, height=_HEIGHT, label=label, begin=begin, points=points)
