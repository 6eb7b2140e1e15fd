"""Rates, quantiles and charts from samples of counters."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.busiest import LOOK_SECONDS, Busiest
from gateway.console.trend import KEPT, Trend, quantile, sparkline
from gateway.hub.registry import Member, Registry
from gateway.metrics import BUCKET_SECONDS, Metrics

NONE = [0] * (len(BUCKET_SECONDS) + 1)


def counts(**by_bound: int) -> list[int]:
    """A histogram's buckets: ``_0_5=3`` are three of up to 0.5 s, ``above`` those above the last bound."""
    found = list(NONE)
    for name, count in by_bound.items():
        index = -1
        if name != "above":
            index = BUCKET_SECONDS.index(float(name[1:].replace("_", ".")))
        found[index] = count
    return found


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, NONE, None),
        (0.5, counts(_0_001=10), 0.00075),
        (1.0, counts(_0_001=10), 0.001),
        (0.5, counts(_0_001=5, _1=5), 0.001),
        (0.75, counts(_0_001=5, _1=4), pytest.approx(0.71875)),
        (0.99, counts(_0_001=1, above=99), 10),
    ],
)
def test_a_quantile_is_reckoned_as_prometheus_does(
    share: float, buckets: list[int], expected: float | None
) -> None:
    assert quantile(share, buckets) == expected


@given(st.lists(st.integers(0, 1000), min_size=len(NONE), max_size=len(NONE)))
def test_quantiles_grow_with_their_share(buckets: list[int]) -> None:
    found = [quantile(share, buckets) for share in (0.01, 0.5, 0.99, 1)]

    assert found == sorted(found, key=lambda value: value or 0)


def test_rates_drops_and_quantiles_are_of_the_kept_samples() -> None:
    metrics, trend = Metrics(), Trend()
    metrics.messages_dropped.labels("no_binary").inc(7)
    for step in range(KEPT + 5):
        trend.take(metrics, connections=step, topics=1, now=5.0 * step)
        metrics.messages_delivered.inc(50)
        metrics.publish_to_deliver.observe(0.002)
    metrics.messages_dropped.labels("slow_consumer").inc(2)
    trend.take(metrics, connections=9, topics=1, now=5.0 * (KEPT + 5))

    assert len(trend.samples) == KEPT
    assert trend.rates("delivered") == [10.0] * (KEPT - 1)
    assert trend.gauge("connections")[-1] == 9
    assert trend.quantile(0.5) == pytest.approx(0.00175)
    assert trend.dropped() == [("slow_consumer", 2, 2), ("no_binary", 0, 7)]


def test_nothing_is_known_before_the_first_samples() -> None:
    trend = Trend()

    assert (trend.rates("delivered"), trend.quantile(0.5), trend.dropped()) == ([], None, [])


@given(st.lists(st.floats(0, 1e9), max_size=KEPT))
def test_a_chart_stays_in_its_frame(values: list[float]) -> None:
    chart = sparkline(values, '"<b>')
    assert "<b>" not in chart
    points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", chart.split("<polyline")[1])

    assert len(points) == len(values)
    assert all(-0.1 <= float(x) <= 120.1 and 0 <= float(y) <= 30 for x, y in points)
    if values:
        assert float(points[-1][0]) == pytest.approx(120, abs=0.1)


class _Outlet:
    wire = None


class _Encoding:
    positions = False


def test_the_busiest_topics_come_first_and_are_counted_only_while_somebody_looks() -> None:
    registry, now = Registry(), [0.0]
    for name, members in (("a", 1), ("b", 3), ("c", 2)):
        for _ in range(members):
            registry.add(name, Member(_Outlet(), _Encoding(), drops=False))  # type: ignore[arg-type] # nobody is written to
    busiest = Busiest(lambda: now[0])
    assert [(x.name, x.rate) for x in busiest.look(registry)] == [("b", -1), ("c", -1), ("a", -1)]
    topic = registry.get("a")
    assert topic is not None
    topic.next_number += 20
    now[0] += LOOK_SECONDS - 0.1
    assert busiest.look(registry)[0].name == "b"  # not yet
    now[0] += 0.1
    assert [(x.name, x.rate) for x in busiest.look(registry)][:2] == [("a", 4), ("b", 0)]
    now[0] += 100
    assert busiest.look(registry)[0].rate == -1
