"""``gateway top``: what a replica does and who is beside it, live in a terminal."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Annotated, Final, NoReturn

import msgspec
import typer

from gateway.cli.client import METRICS_PATH, READY_PATH, KeyOption, Unreachable, UrlOption, fetch
from gateway.cli.options import (
    Assignments,
    ConfigFile,
    Dev,
    read_config,
    table,
    write,
)
from gateway.cli.scrapes import Scrapes, Series, parse

SNAPSHOT_SECONDS: Final = 1.0
"""Over which the rates of a single snapshot are taken."""

# ECMA-48 and xterm: the alternate screen and no cursor; and both as they were
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"

_DRAIN: Final = {0: "serving", 1: "draining", 2: "drained"}
_NO_FIGURE: Final = "-"
_KIB: Final = 1024


class Seen(msgspec.Struct):
    """What a replica said.

    Attributes:
        at: When, in monotonic seconds.
        reasons: Why it is not ready.
    """

    at: float
    series: Series
    replicas: list["_Replica"]
    reasons: list[str]


class _Replica(msgspec.Struct):
    id: str
    self: bool
    sessions: int
    connections: int


class _Replicas(msgspec.Struct):
    items: list[_Replica]


class _Readiness(msgspec.Struct):
    reasons: list[str]


def top(
    *,
    interval: Annotated[
        float, typer.Option(min=0.5, max=60, metavar="SECONDS", help="Time between two refreshes.")
    ] = 2.0,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """Show what a replica does, live.

    Its connections, rates, delays and neighbours, until Ctrl-C. In a pipe it is one snapshot.
    """
    settings = read_config(config, dev, assignments).config

    def look() -> Seen:
        metrics, replicas, ready = fetch(
            settings, (METRICS_PATH, "/v1/replicas", READY_PATH), scope="read", url=url, key=key
        )
        return Seen(
            time.monotonic(),
            parse(metrics),
            msgspec.json.decode(replicas, type=_Replicas).items,
            msgspec.json.decode(ready, type=_Readiness).reasons,
        )

    with suppress(KeyboardInterrupt):  # how it ends
        before = look()
        time.sleep(SNAPSHOT_SECONDS)
        if sys.stdout.isatty():
            _paint(look, before, interval)
        for line in overview(before, look()):
            write(line)


def _paint(look: Callable[[], Seen], before: Seen, interval: float) -> NoReturn:
    """Show what changed since the look before, again and again."""
    sys.stdout.write(_ENTER)
    try:
        while True:
            try:
                now = look()
                lines = overview(before, now)
                before = now
            except Unreachable as problem:
                lines = [f"no answer: {problem}"]
            sys.stdout.write(screen(lines, *shutil.get_terminal_size()))
            sys.stdout.flush()
            time.sleep(interval)
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def overview(before: Seen, now: Seen) -> list[str]:
    """What two looks at a replica show."""
    figures = Scrapes(now.series, before.series, now.at - before.at)
    own = next((each.id for each in now.replicas if each.self), "?")
    state = _DRAIN.get(int(figures.value("drain_state")), "?")
    ready = f"not ready: {', '.join(now.reasons)}" if now.reasons else "ready"
    version = next(
        (dict(labels)["version"] for name, labels in now.series if name == "gateway_build_info"),
        "?",
    )
    bus = "connected" if figures.value("bus_connected") else "away"
    value, rate = figures.value, figures.rate
    rows = [
        ["clients", f"{_number(value('connections'))} connections",
         f"{_number(value('sessions'))} sessions", f"{_number(value('topics'))} topics",
         f"{_number(value('subscriptions'))} subscriptions"],
        ["come and go", f"{_rate(rate('connects_total', result='ok'))} connects",
         f"{_rate(rate('disconnects_total'))} disconnects",
         f"{_rate(rate('joins_total', result='ok'))} joins",
         f"{_rate(rate('connects_total', result='refused'))} refused"],
        ["messages", f"{_rate(rate('messages_received_total'))} received",
         f"{_rate(rate('messages_delivered_total'))} delivered",
         f"{_rate(rate('publish_requests_total'))} publishes",
         f"{_rate(rate('messages_dropped_total'))} dropped"],
        ["delay", f"{_time(figures.quantile('publish_to_deliver_seconds', 0.5))} publish p50",
         f"{_time(figures.quantile('publish_to_deliver_seconds', 0.99))} p99",
         f"{_time(figures.quantile('fanout_seconds', 0.99))} fan-out p99",
         f"{_time(value('event_loop_lag_seconds'))} loop lag"],
        ["process", f"{figures.processor():.0%} of a core",
         f"{_bytes(figures.process('resident_memory_bytes'))} memory",
         f"{_number(figures.process('open_fds'))} descriptors",
         f"{_bytes(value('outbound_buffered_bytes'))} waiting"],
        ["bus", bus, f"{_number(value('bus_reconnects_total'))} reconnects",
         f"{_bytes(value('bus_pending_bytes'))} pending",
         f"{_rate(rate('bus_dropped_total'))} dropped"],
        ["backend", f"{_number(value('upstream_in_flight'))} under way",
         f"{_rate(rate('upstream_request_seconds_count'))} callbacks",
         f"{_time(figures.quantile('upstream_request_seconds', 0.99))} p99",
         f"{_number(value('upstream_events_waiting'))} events waiting"],
    ]  # fmt: skip
    causes = [
        f"  {_rate(each)} {what} {reason}"
        for what, name, label in (
            ("dropped:", "messages_dropped_total", "reason"),
            ("refused:", "connects_total", "reason"),
            ("join refused:", "joins_total", "result"),
            ("closed:", "disconnects_total", "code"),
            ("error in", "background_errors_total", "task"),
        )
        for reason, each in figures.rates(name, label)
        if reason not in ("", "ok")
    ]
    others = [
        ["*" if each.self else "", each.id, _number(each.connections), _number(each.sessions)]
        for each in now.replicas
    ]
    return [
        _printable(line)
        for line in (
            f"{own}  {version}  {state}, {ready}",
            "",
            *table(rows),
            *causes,
            "",
            *table([["", "replica", "connections", "sessions"], *others]),
        )
    ]


def screen(lines: Iterable[str], columns: int, rows: int) -> str:
    """What paints lines over those before, cut to a terminal's size, the first of them bold."""
    shown = [line[:columns] for line in lines][:rows]
    shown[0] = f"{_BOLD}{shown[0]}{_PLAIN}"
    return _HOME + "\r\n".join(f"{line}{_REST_OF_LINE}" for line in shown) + _REST_OF_SCREEN


def _printable(text: str) -> str:
    """Text that does nothing to a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return _NO_FIGURE
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:,.0f} {unit}"
        value /= _KIB
    return f"{value:.1f} GiB"
