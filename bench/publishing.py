"""The scenario ``publish``: batches of messages over HTTP, stored by a nats-server or not."""

import re
import sys
import time
from contextlib import ExitStack, closing
from itertools import cycle, islice
from statistics import median
from typing import Final

from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.keeping import BATCH, STORED, KeepingGateway, batch
from bench.wire import LoadError, Wire

ROUNDS: Final = 3
BATCHES: Final = 60
WARM_UP: Final = 5
TOPICS: Final = 20
AT_A_TIME: Final = (1, 4)
"""Requests under way."""

_KINDS: Final = {"stored": "kept", "ephemeral": "room"}


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    batches = 8 if options.quick else BATCHES
    results: dict[tuple[str, int], list[Figures]] = {}
    for number in range(rounds):
        with Nats(cores.load) as nats, ServerProcess(KeepingGateway(nats.url), cores) as process:
            for at_a_time in AT_A_TIME:
                for kind, start in _KINDS.items():
                    figures = publish(process, nats, start, batches, at_a_time)
                    results.setdefault((kind, at_a_time), []).append(figures)
                    shown = "  ".join(f"{name} {value:.1f}" for name, value in figures.items())
                    print(
                        f"round {number + 1}/{rounds}  {kind} {at_a_time}  {shown}", file=sys.stderr
                    )
    rows = "".join(_row(*key, rounds) for key, rounds in results.items())
    return (
        "| messages | requests at a time | messages/s | lowest | highest | gateway CPU µs a message "
        "| nats-server CPU µs |\n|---|--:|--:|--:|--:|--:|--:|\n"
        f"{rows}\n{batches} batches of {BATCH:,} messages of 128 bytes on {TOPICS} topics; "
        f"medians of {rounds} {'round' if rounds == 1 else 'rounds'}.\n"
    )


def publish(
    process: ServerProcess, nats: Nats, start: str, batches: int, at_a_time: int
) -> Figures:
    """Publish so many batches, each connection the next when its last is answered."""
    topics = cycle(f"{start}:{number}" for number in range(TOPICS))
    request = batch((topic, number) for number, topic in enumerate(islice(topics, BATCH)))
    mark = STORED if start == "kept" else re.compile(b'"position":null')
    with ExitStack() as stack:
        wires = [
            stack.enter_context(closing(Wire(process.server.publish_port)))
            for _ in range(at_a_time)
        ]
        _publish(wires, request, mark, WARM_UP)
        before, before_nats = process.cpu(), nats.cpu()
        started = time.perf_counter()
        _publish(wires, request, mark, batches)
        seconds = time.perf_counter() - started
        used, used_nats = process.cpu() - before, nats.cpu() - before_nats
    messages = batches * BATCH
    return {
        "rate": messages / seconds,
        "cpu_us": (used.user + used.kernel) / messages * 1e6,
        "nats_us": (used_nats.user + used_nats.kernel) / messages * 1e6,
    }


def _publish(wires: list[Wire], request: bytes, mark: re.Pattern[bytes], batches: int) -> None:
    for wire in wires[:batches]:
        wire.ask(request)
    for number, wire in enumerate(islice(cycle(wires), batches)):
        found = mark.findall(wire.answered())
        count = len(set(found)) if mark is STORED else len(found)
        if count != BATCH:
            raise LoadError(f"{count} of {BATCH} messages were taken")
        if number + len(wires) < batches:
            wire.ask(request)


def _row(kind: str, at_a_time: int, rounds: list[Figures]) -> str:
    rates = [figures["rate"] for figures in rounds]
    cpu, nats = (median(figures[name] for figures in rounds) for name in ("cpu_us", "nats_us"))
    return (
        f"| {kind} | {at_a_time} | {median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} "
        f"| {cpu:.0f} | {nats:.0f} |\n"
    )
