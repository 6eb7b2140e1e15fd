"""What ``gateway top`` makes of two scrapes."""

import inspect
import re

import pytest

from gateway.cli import top
from gateway.cli.scrapes import Scrapes, parse
from gateway.cli.top import Seen, _bytes, _Replica, _time, overview, screen
from gateway.metrics import Metrics
from tests.support.counted import Counted

BEFORE = """\
# HELP gateway_joins_total Joins.
gateway_joins_total{result="ok"} 10
gateway_joins_total{result="rate limited"} 4
gateway_delay_seconds_bucket{le="0.1"} 5
gateway_delay_seconds_bucket{le="0.2"} 5
gateway_delay_seconds_bucket{le="+Inf"} 5
process_cpu_seconds_total 1.5
"""
NOW = """\
gateway_joins_total{result="ok"} 30
gateway_joins_total{result="rate limited"} 4
gateway_joins_total{result="with \\"quotes\\", and }"} 8
gateway_delay_seconds_bucket{le="0.1"} 6
gateway_delay_seconds_bucket{le="0.2"} 9
gateway_delay_seconds_bucket{le="+Inf"} 9
process_cpu_seconds_total 2.5
what is no sample
gateway_connections{transport="websocket"} 7 1700000000
gateway_connections{transport="longpoll"} 2
"""
FIGURES = Scrapes(parse(NOW), parse(BEFORE), 2.0)


def test_values_of_all_labels_are_added() -> None:
    assert FIGURES.value("connections") == 9
    assert FIGURES.value("connections", transport="longpoll") == 2
    assert FIGURES.value("nothing") == 0


def test_rates_are_what_grew_a_second() -> None:
    assert FIGURES.rate("joins_total") == 14
    assert FIGURES.rate("joins_total", result="ok") == 10
    assert FIGURES.rates("joins_total", "result") == [("ok", 10), ('with \\"quotes\\", and }', 4)]
    assert FIGURES.processor() == 0.5


def test_a_restart_is_no_negative_rate() -> None:
    assert Scrapes(parse(BEFORE), parse(NOW), 1.0).rate("joins_total", result="ok") == 10


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.25, 0.1), (0.5, 0.1 + 0.1 / 3), (1.0, 0.2), (0.125, 0.05)]
)
def test_a_quantile_is_of_what_came_between_the_scrapes(share: float, seconds: float) -> None:
    assert FIGURES.quantile("delay_seconds", share) == pytest.approx(seconds)


def test_a_quantile_of_nothing_is_none_and_beyond_all_buckets_the_last_bound() -> None:
    slow = parse('gateway_x_bucket{le="1.0"} 0\ngateway_x_bucket{le="+Inf"} 3')

    assert Scrapes(slow, slow, 1.0).quantile("x", 0.5) is None
    assert FIGURES.quantile("nothing", 0.5) is None
    assert Scrapes(slow, {}, 1.0).quantile("x", 0.5) == 1.0


def seen(metrics: Metrics, at: float, *reasons: str) -> Seen:
    replicas = [_Replica("a\x1b[2J", True, 2, 3), _Replica("b", False, 4, 5000)]
    return Seen(at, parse(metrics.exposition()[0].decode()), replicas, list(reasons))


def test_an_overview_of_a_replica_has_what_it_does_and_who_is_beside_it() -> None:
    metrics = Counted()
    before = seen(metrics, 1.0)
    metrics.connections.labels("websocket").set(5000)
    metrics.messages_delivered.inc(2400)
    metrics.messages_dropped.labels("slow_consumer").inc(3)
    metrics.publish_to_deliver.observe(0.0012)
    metrics.bus_connected.set(1)
    metrics.drain_state.set(1)
    text = overview(before, seen(metrics, 3.0, "draining"))

    assert text[0].startswith("a?[2J "), "nobody's name does anything to the terminal"
    assert text[0].endswith("draining, not ready: draining")
    lines = {line.split("  ")[0].strip(): line for line in text if line}
    assert "5,000 connections" in lines["clients"]
    assert "1,200/s delivered" in lines["messages"]
    assert "1.5/s dropped" in lines["messages"]
    assert " ms publish p50" in lines["delay"]
    assert "connected" in lines["bus"]
    assert "  1.5/s dropped: slow_consumer" in text
    assert [line.split() for line in text[-2:]] == [["*", "a?[2J", "3", "2"], ["b", "5,000", "4"]]


def test_every_metric_it_shows_exists() -> None:
    """A name with a typing error would be shown as zero for ever."""
    source = inspect.getsource(top)
    asked = {
        f"gateway_{name}".removesuffix("_total").removesuffix("_count")
        for name in re.findall(r"(?:value|rate|quantile)\(\s*'([a-z_]+)'", source)
    }
    asked |= {f"gateway_{name}" for name in re.findall(r'", "([a-z_]+)_total", "', source)}

    assert len(asked) > 15
    assert asked <= {family.name for family in Metrics().registry.collect()}


def test_a_screen_is_cut_to_the_terminal_and_leaves_nothing_of_the_one_before() -> None:
    painted = screen(["first line", "second", "third"], columns=5, rows=2)

    assert painted == "\x1b[H\x1b[1mfirst\x1b[0m\x1b[K\r\nsecon\x1b[K\x1b[J"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.00123, "1.2 ms"), (0.9, "900.0 ms"), (12.34, "12.3 s")]
)
def test_times_have_a_unit(seconds: float | None, text: str) -> None:
    assert _time(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (2048, "2 KiB"),
        (3 * 2**20, "3 MiB"),
        (2.5 * 2**30, "2.5 GiB"),
    ],
)
def test_bytes_have_a_unit(value: float, text: str) -> None:
    assert _bytes(value) == text
