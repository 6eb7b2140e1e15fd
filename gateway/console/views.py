"""Renders what moves on the console's pages, from what this replica knows."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jinja2
import msgspec

from gateway.config.fields import Scope
from gateway.config.keys import KEYS
from gateway.config.masking import masked
from gateway.config.reference import toml_value
from gateway.console.busiest import Busiest
from gateway.console.sources import Sources
from gateway.console.trend import Trend, sparkline

SHOWN_LINES: Final = 30
"""Warnings and errors on a page."""


NOTHING: Final = "\u2013"
"""A dash, for what is not known."""


class Views:
    """What the feeds show; each method returns the HTML of elements by id."""

    def __init__(self, environment: jinja2.Environment, sources: Sources, trend: Trend) -> None:
        self._environment = environment
        self._sources = sources
        self._trend = trend
        self._busiest = Busiest(sources.clock)
        self._leaving = 0

    def overview(self) -> dict[str, str]:
        """The replica's figures, its health, what was dropped, and the cluster."""
        sources, trend = self._sources, self._trend
        replicas = sources.replicas()
        return {
            "tiles": self._html("tiles", tiles=self._tiles()),
            "health": self._html("health", rows=self._health()),
            "drops": self._html("drops", rows=trend.dropped()),
            "replicas": self._html(
                "replicas",
                replicas=replicas,
                most=max(1, *(replica.connections for replica in replicas)),
            ),
        }

    def topics(self) -> dict[str, str]:
        """The topics with most messages and members here."""
        rows = self._busiest.look(self._sources.registry)
        return {"busiest": self._html("busiest", rows=rows, total=len(self._sources.registry))}

    def replica(self) -> dict[str, str]:
        """The drain, and the last warnings and errors."""
        sources = self._sources
        drain, settings = sources.drain, sources.config.drain
        leaving = max(self._leaving, drain.connections, 1)
        return {
            "drain": self._html("drain", drain=drain, settings=settings, leaving=leaving),
            "lines": self._html("lines", lines=list(self._lines())),
        }

    def tick(self) -> None:
        """Remember how many clients a drain began with."""
        if self._sources.drain.state == "serving":
            self._leaving = self._sources.drain.connections

    def configuration(self) -> Mapping[str, list[tuple[str, str, bool]]]:
        """By section its keys: name, value with secrets masked, and whether it is not the default."""
        values = msgspec.to_builtins(self._sources.config)
        sections: dict[str, list[tuple[str, str, bool]]] = {}
        for path, key in KEYS.items():
            section, _, name = path.partition(".")
            value = values[section][name] if name else values[section]
            default = msgspec.to_builtins(key.default)
            value_shown = masked(value, key.shape)
            tables = key.shape.item is not None and key.shape.item.table is not None
            shown = "\n".join(map(toml_value, value_shown)) if tables else toml_value(value_shown)
            sections.setdefault(section, []).append((name or section, shown, value != default))
        return sections

    def keys(self) -> list[tuple[str, tuple[Scope, ...]]]:
        """The API keys by name, with what they may do."""
        return [(key.name, key.scopes) for key in self._sources.config.api.keys]

    def _html(self, name: str, **context: Any) -> str:  # noqa: ANN401 -- what templates are given
        return self._environment.get_template(f"live/{name}.html").render(context)

    def _tiles(self) -> list[tuple[str, str, str, Any]]:
        """Label, figure, what stands beside it, and a chart."""
        trend, now = self._trend, self._sources
        received, delivered = trend.rates("received"), trend.rates("delivered")
        half, most = trend.quantile(0.5), trend.quantile(0.99)
        lag = trend.gauge("lag")
        last = trend.samples[-1] if trend.samples else None
        return [
            (
                "Connections",
                number(now.connections()),
                counted(now.sessions.count, "session"),
                sparkline(trend.gauge("connections"), "Connections, five minutes"),
            ),
            (
                "Received",
                rate(received),
                f"{number(last.received if last else 0)} since start",
                sparkline(received, "Messages from clients, five minutes"),
            ),
            (
                "Delivered",
                rate(delivered),
                f"{number(last.delivered if last else 0)} since start",
                sparkline(delivered, "Deliveries to clients, five minutes"),
            ),
            (
                "Publish to socket, p99",
                seconds(most),
                f"p50 {seconds(half)}, last minute",
                sparkline(trend.quantiles(0.99), "p99 from publish to fan-out, five minutes"),
            ),
            (
                "Topics here",
                number(len(now.registry)),
                counted(len(now.sessions.users), "user"),
                sparkline(trend.gauge("topics"), "Topics with members here, five minutes"),
            ),
            (
                "Event loop lag",
                seconds(lag[-1] if lag else None),
                "measured every second",
                sparkline(lag, "Event loop lag, five minutes"),
            ),
        ]

    def _health(self) -> list[tuple[str, str, str, str]]:
        """Label, what it is like, a detail, and whether that is good, bad, or to be noted."""
        now, metrics = self._sources, self._sources.metrics
        reasons = now.readiness.reasons()
        connected = bool(metrics.values(metrics.bus_connected)[""])
        total = {
            name: int(sum(metrics.values(counter).values()))
            for name, counter in (
                ("reconnects", metrics.bus_reconnects),
                ("refusals", metrics.bus_refusals),
                ("slow", metrics.slow_consumers),
                ("repairs", metrics.history_repairs),
                ("errors", metrics.background_errors),
            )
        }
        kept = sum(rule.history is not None for rule in now.config.channels)
        problem = now.history_problem()
        kind = now.config.bus.url.partition(":")[0]
        waiting = int(metrics.values(metrics.outbound_buffered)[""])
        drain = now.drain
        return [
            ("Ready", "yes" if not reasons else "no", ", ".join(reasons), good(not reasons)),
            (
                "Bus",
                "connected" if connected else "down",
                (
                    f"{kind}, {counted(total['reconnects'], 'reconnect')},"
                    f" {counted(total['refusals'], 'refusal')}"
                ),
                good(connected),
            ),
            (
                "History",
                "off" if not kept else problem or "ok",
                f"{counted(kept, 'rule')} with history, {counted(total['repairs'], 'repair')}",
                "idle" if not kept else good(problem is None),
            ),
            (
                "Drain",
                drain.state,
                f"{counted(drain.connections, 'client')} connected",
                good(drain.state == "serving") if drain.state == "serving" else "note",
            ),
            (
                "Slow consumers",
                f"{number(total['slow'])} closed",
                f"{size(waiting)} waiting for clients",
                "note" if total["slow"] else "good",
            ),
            (
                "Background errors",
                number(total["errors"]),
                "since start",
                "bad" if total["errors"] else "good",
            ),
        ]

    def _lines(self) -> Iterator[tuple[str, str, str, str]]:
        """Time, level, event and the rest of the last lines of the log, the newest first."""
        for text in list(self._sources.lines.lines)[: -SHOWN_LINES - 1 : -1]:
            line = json.loads(text)
            time, level, event = (
                str(line.pop(name, "")) for name in ("timestamp", "level", "event")
            )
            line.pop("logger", None)
            rest = "\n".join(f"{name}: {value}" for name, value in line.items())
            # what came as bytes that are no UTF-8 is kept in halves of surrogate pairs
            yield time, level, event, rest.encode(errors="replace").decode()


def good(value: bool) -> str:
    """Class of what is good or bad."""
    return "good" if value else "bad"


def counted(count: int, noun: str) -> str:
    """A number of things, such as ``1 user`` or ``2,000 users``; the plural is by s."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """A count, with thin groups of digits."""
    return f"{int(value):,}".replace(",", "\u202f")


def rate(values: list[float]) -> str:
    """The last of some rates."""
    if not values:
        return NOTHING
    last = values[-1]
    return f"{last:.1f}/s" if 0 < last < 10 else f"{number(last)}/s"


def seconds(value: float | None) -> str:
    """A time, in milliseconds below one second."""
    if value is None:
        return NOTHING
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def size(count: float) -> str:
    """Bytes, in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
