"""Several processes' metrics as one: sums, extremes, and nothing that goes down when a process ends."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.exposition import ExpositionSum
from gateway.metrics import Metrics


def show(total: ExpositionSum, process: str, metrics: Metrics) -> None:
    total.show(process, metrics.exposition()[0].decode())


def values(total: ExpositionSum) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What is shown, by name and sorted labels."""
    families = text_string_to_metric_families(total.text()[0].decode())
    return {
        (sample.name.removeprefix("gateway_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_one_process_is_shown_as_it_is() -> None:
    metrics = Metrics()
    metrics.joins.labels("ok").inc(3)
    metrics.upstream_request.labels("gateway.join", "200").observe(0.3)
    total = ExpositionSum()
    text, content_type = metrics.exposition()
    total.show("a", text.decode())

    assert total.text() == (text, content_type)


def test_counters_histograms_and_amounts_are_added() -> None:
    one, other = Metrics(), Metrics()
    one.joins.labels("ok").inc(3)
    other.joins.labels("ok").inc(4)
    one.connections.labels("websocket").set(5)
    other.connections.labels("websocket").set(6)
    one.connections.labels("longpoll").set(1)
    for metrics, seconds in ((one, 0.3), (other, 0.3), (other, 20)):
        metrics.fanout.observe(seconds)
    other.upstream_request.labels("gateway.join", "200").observe(0.3)
    total = ExpositionSum()
    show(total, "a", one)
    show(total, "b", other)
    found = values(total)

    assert found["joins_total", (("result", "ok"),)] == 7
    assert found["connections", (("transport", "websocket"),)] == 11
    assert found["connections", (("transport", "longpoll"),)] == 1
    assert found["fanout_seconds_count", ()] == 3
    assert found["fanout_seconds_sum", ()] == pytest.approx(20.6)
    labels = (("status", "200"), ("type", "gateway.join"))
    assert found["upstream_request_seconds_count", labels] == 1


def test_the_buckets_of_a_sum_rise_to_its_count() -> None:
    processes = [Metrics() for _ in range(3)]
    for number, metrics in enumerate(processes):
        for step in range(20):
            metrics.fanout.observe(number * 0.001 + step * 0.07)
    total = ExpositionSum()
    for number, metrics in enumerate(processes):
        show(total, str(number), metrics)
    found = values(total)

    buckets = [found[key] for key in found if key[0] == "fanout_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["fanout_seconds_count", ()] == 60


@pytest.mark.parametrize(
    ("name", "one", "other", "shown"),
    [
        ("bus_connected", 1, 0, 0),
        ("bus_connected", 1, 1, 1),
        ("drain_state", 2, 0, 0),
        ("drain_state", 2, 1, 1),
        ("event_loop_lag", 0.5, 0.1, 0.5),
        ("clock_skew", 0.5, 2, 2),
    ],
)
def test_of_some_gauges_the_sum_means_nothing(
    name: str, one: float, other: float, shown: float
) -> None:
    total = ExpositionSum()
    for process, value in (("a", one), ("b", other)):
        metrics = Metrics()
        getattr(metrics, name).set(value)
        show(total, process, metrics)
    found = {key[0].removesuffix("_seconds"): value for key, value in values(total).items()}

    assert found[name] == shown


def test_what_describes_all_stays_what_it_is() -> None:
    total = ExpositionSum()
    for process in "abc":
        metrics = Metrics()
        metrics.replicas.labels("live").set(3)
        show(total, process, metrics)
    found = values(total)

    assert {value for key, value in found.items() if key[0] in {"build_info", "python_info"}} == {1}
    assert found["replicas", (("state", "live"),)] == 3


def test_nothing_counted_goes_with_a_process() -> None:
    total = ExpositionSum()
    for process in "ab":
        metrics = Metrics()
        metrics.messages_delivered.inc(100)
        metrics.fanout.observe(1)
        metrics.sessions.set(10)
        show(total, process, metrics)
    total.end("a")
    total.end("a")
    total.end("unknown")
    metrics.messages_delivered.inc(1)
    show(total, "b", metrics)
    show(total, "c", Metrics())
    found = values(total)

    assert found["messages_delivered_total", ()] == 201
    assert found["fanout_seconds_count", ()] == 2
    assert found["sessions", ()] == 10, "a gauge is of those that live"
