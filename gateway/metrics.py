"""Defines every metric that Prometheus scrapes; no topic or user is ever a label.

The only module that knows prometheus_client. Parts get either this object or a narrow view of it.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from gateway import __version__

BUCKET_SECONDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
"""Upper bounds of a histogram's buckets; above the last there is one more."""

_KNOWN: Final = """
connects_total: starting, draining, connection_limit, memory_limit, descriptor_limit, bad_request,
 bad_method, bad_query, http_version, no_upgrade, origin, device, vsn, subprotocol, subprotocol_token,
 upstream_refused, upstream_timeout, upstream_unavailable, no_token, token_too_long, token_malformed, no_keys,
 token_algorithm, keys_unavailable, token_key, token_signature, token_claims, token_not_yet_valid,
 token_expired, token_lifetime, token_issuer, token_audience, token_revoked, token_subject, upstream_user
disconnects_total: 1000, 1001, 1002, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4001, 4003, other
token_refreshes_total: ok, crashed, no_token, token_too_long, token_malformed, no_keys, token_algorithm,
 keys_unavailable, token_key, token_signature, token_claims, token_not_yet_valid, token_expired,
 token_lifetime, token_issuer, token_audience, token_revoked, token_subject, upstream_user
joins_total: ok, unmatched topic, unauthorized, session limit reached, too many channels joined, invalid
 resume, malformed, payload too large, rate limited, bus unavailable, upstream refused, upstream
 unavailable, upstream timeout, join crashed
key_fetches_total: ok, failed
messages_dropped_total: slow_consumer, no_binary, longpoll_timeout, longpoll_waiting, disconnected,
 reserved_event, not_member, closing, stale_join_ref, slow_tail
publish_requests_total: 202, 400, 401, 403, 408, 413, 415, 417, 422, 500, 503, 504
resumes_total: recovered, fresh, epoch_changed, expired, too_many
bus_refusals_total: publish_denied, subscription_denied, authorization, limit, max_payload, store_full,
 stream, no_jetstream, other
upstream_events_dropped_total: expired, full, closing
background_errors_total: heartbeat, tracker, tracker_send, revocations, last_seen, facts, outbox, keys,
 follower, fanout, replay, socket, channel, session, drain, history, bus, join, console, event_loop
"""
"""
Counters, and what the last label of each may be.

They exist at zero from the start: ``increase()`` cannot see a series that begins at one.
"""


def _known_labels() -> dict[str, list[str]]:
    lines = _KNOWN.replace("\n ", " ").strip().splitlines()
    return {
        name: values.strip().split(", ")
        for name, _, values in (line.partition(":") for line in lines)
    }


class MessageCounter:
    """A counter for what happens with each message: prometheus_client's own takes a lock, 1.5 µs a time.

    It may be counted from the event loop's thread alone.

    Attributes:
        value: The total.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str) -> None:
        self._name, self._text = f"gateway_{name}", text
        self.value = 0
        registry.register(self)

    def inc(self, amount: int = 1) -> None:
        """Count some more."""
        self.value += amount

    def collect(self) -> Iterator[Metric]:
        """What a scrape shows (``prometheus_client.registry.Collector``)."""
        yield CounterMetricFamily(self._name, self._text, self.value)


class MessageHistogram:
    """A histogram of seconds, for the same reason."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str) -> None:
        self._name, self._text = f"gateway_{name}", text
        self._counts = [0] * (len(BUCKET_SECONDS) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(BUCKET_SECONDS, seconds)] += 1
        self._sum += seconds

    @property
    def counts(self) -> tuple[int, ...]:
        """Observations by bucket, and last those above all of them."""
        return tuple(self._counts)

    def collect(self) -> Iterator[Metric]:
        """As :meth:`MessageCounter.collect`."""
        bounds = [str(float(bound)) for bound in BUCKET_SECONDS] + ["+Inf"]
        upto = list(accumulate(self._counts))
        buckets = list(zip(bounds, upto, strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, sum_value=self._sum)


class Metrics:
    """All metrics of one replica; attributes are named as the metrics without ``gateway_``."""

    def __init__(self) -> None:  # noqa: PLR0915 -- one for each metric
        registry = self.registry = CollectorRegistry()

        known_labels = _known_labels()

        def counter(name: str, text: str, *labels: str) -> Counter:
            made = Counter(f"gateway_{name}", text, labels, registry=registry)
            others = ("refused",) if name == "connects_total" else ()
            for known in known_labels.get(name, ()):
                made.labels(*others, known)
            return made

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"gateway_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(
                f"gateway_{name}", text, labels, registry=registry, buckets=BUCKET_SECONDS
            )

        self.connections = gauge("connections", "Open client connections.", "transport")
        self.sessions = gauge("sessions", "Connections of known users that have joined a topic.")
        self.replicas = gauge("replicas", "Replicas on the bus, this one included.", "state")
        self.replicas_lost = counter(
            "replicas_lost_total", "Replicas that fell silent without a farewell."
        )
        self.topics = gauge("topics", "Topics with at least one local member.")
        self.subscriptions = gauge("subscriptions", "Subjects subscribed on the bus.")
        self.tails = gauge("tails", "Operators' tails that are open.")
        self.connects = counter(
            "connects_total", "Handshakes by result and reason.", "result", "reason"
        )
        self.connects.labels("ok", "")
        self.key_fetches = counter(
            "key_fetches_total", "Fetches of the identity provider's keys: ok or failed.", "result"
        )
        self.disconnects = counter(
            "disconnects_total", "Ended connections by WebSocket close code.", "code"
        )
        self.token_refreshes = counter(
            "token_refreshes_total",
            "Tokens sent on a socket, by result: ok or the reason.",
            "result",
        )
        self.joins = counter("joins_total", "Joins by result: ok or the reason.", "result")
        self.messages_received = MessageCounter(
            registry, "messages_received_total", "Frames received from clients."
        )
        self.messages_delivered = MessageCounter(
            registry, "messages_delivered_total", "Broadcast messages handed to sockets."
        )
        self.messages_dropped = counter(
            "messages_dropped_total", "Messages a socket should have got and did not.", "reason"
        )
        self.compression_before = MessageCounter(
            registry,
            "compression_before_bytes_total",
            "Broadcasts that were compressed, once for each kind of socket: bytes before that.",
        )
        self.compression_after = MessageCounter(
            registry, "compression_after_bytes_total", "The same: bytes as they were sent to each."
        )
        self.malformed_frames = counter(
            "malformed_frames_total", "Client frames that are no Phoenix message."
        )
        self.publish_requests = counter(
            "publish_requests_total", "Publish requests by HTTP status.", "status"
        )
        self.publish_to_deliver = MessageHistogram(
            registry,
            "publish_to_deliver_seconds",
            "From the publish on any replica to the fan-out here, by the replicas' clocks.",
        )
        self.fanout = MessageHistogram(
            registry, "fanout_seconds", "From a fan-out's first write to its last."
        )
        self.resumes = counter(
            "resumes_total",
            "Joins that resume: recovered, fresh, or why nothing was recovered.",
            "result",
        )
        self.history_repairs = counter(
            "history_repairs_total", "Stored messages whose live copies did not come in time."
        )
        self.slow_consumers = counter(
            "slow_consumers_total", "Sockets closed because too much was waiting for them."
        )
        self.outbound_buffered = gauge(
            "outbound_buffered_bytes", "Bytes waiting for clients in this process."
        )
        self.bus_connected = gauge("bus_connected", "1 while the bus is connected.")
        self.bus_reconnects = counter("bus_reconnects_total", "Times the bus came back.")
        self.bus_pending = gauge("bus_pending_bytes", "Bytes on their way to the bus server.")
        self.bus_dropped = counter(
            "bus_dropped_total", "Messages from the bus that could not be used or kept."
        )
        self.bus_refusals = counter(
            "bus_refusals_total", "What the bus server refused, by kind.", "kind"
        )
        self.upstream_request = histogram(
            "upstream_request_seconds",
            "Callbacks to the backend, waiting for their turn included, by what came of them.",
            "type",
            "status",
        )
        self.upstream_in_flight = gauge("upstream_in_flight", "Callbacks that are under way.")
        self.upstream_events_dropped = counter(
            "upstream_events_dropped_total", "Events the backend was never told.", "reason"
        )
        self.upstream_events_waiting = gauge(
            "upstream_events_waiting", "Events the backend is still to be told."
        )
        self.revocations_dropped = counter(
            "revocations_dropped_total", "Revocations of tokens forgotten before their time."
        )
        self.background_errors = counter(
            "background_errors_total", "Errors in what goes on by itself, by task.", "task"
        )
        self.descriptors_exhausted = counter(
            "descriptors_exhausted_total", "Seconds that found no descriptor left."
        )
        self.clock_skew = gauge(
            "clock_skew_seconds", "How far the clock that differs most is from this replica's."
        )
        self.event_loop_lag = gauge(
            "event_loop_lag_seconds", "How late the event loop last was, measured once a second."
        )
        self.drain_state = gauge("drain_state", "0 serving, 1 draining, 2 drained.")
        build_info = gauge("build_info", "Version of the gateway.", "version")
        build_info.labels(__version__).set(1)

        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def values(self, metric: Counter | Gauge) -> dict[str, float]:
        """A metric's values now by its last label; the empty one where it has no label."""
        [family] = metric.collect()
        return {
            next(reversed(sample.labels.values()), ""): sample.value
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def exposition(self) -> tuple[bytes, str]:
        """The Prometheus text format: body and content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class SupervisorMetrics:
    """What the supervisor of several workers shows beside the sum of theirs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.workers = Gauge(
            "gateway_workers",
            "Workers that are up, and that are not.",
            ["state"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "gateway_restarts_total",
            "Processes that died and were started again: worker or nats-server.",
            ["process"],
            registry=self.registry,
        )
        for process in ("worker", "nats-server"):
            self.restarts.labels(process)

    def exposition(self) -> str:
        """The Prometheus text format."""
        return generate_latest(self.registry).decode()
