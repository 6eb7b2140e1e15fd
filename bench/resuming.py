"""The scenario ``resume``: a replica has died, and its clients come to another, which knows nothing yet."""

import random
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from statistics import median
from typing import Final

from bench.beside import Row, compare
from bench.builds import WORKING_TREE, Build
from bench.jetstream import Questions
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.remote import Remote
from bench.returning import STALLED_SECONDS, Return, Returning, Visit
from bench.scenarios import Figures
from bench.servers.keeping import KeepingGateway, stored
from bench.wire import Wire

ROUNDS: Final = 3
CLIENTS: Final = 5000
SECONDS: Final = {"one": 5.0, "own": 12.0}
"""Time in which all come: to one topic, or each to the user's own."""

MESSAGES: Final = 10
MISSED: Final = 5
"""At most so many messages lie after a position; at least one does."""


def run(cores: Cores, options: Options) -> str:
    """Measure both; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    clients = 300 if options.quick else CLIENTS
    results: dict[str, list[Figures]] = {kind: [] for kind in SECONDS}
    for number in range(rounds):
        for kind, seconds in SECONDS.items():
            figures = resume(cores, kind, clients, seconds * clients / CLIENTS)
            results[kind].append(figures)
            shown = "  ".join(f"{name} {value:.1f}" for name, value in figures.items())
            print(f"round {number + 1}/{rounds}  {kind}  {shown}", file=sys.stderr)
    rows = "".join(_row(kind, figures) for kind, figures in results.items())
    return (
        "| topics | s until all have all | gateway CPU s | ms from connect to the last message, median "
        "| 99 % | longest wait for a heartbeat, ms | 99 % | reads of messages | looks at the stream |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        f"{rows}\n{clients:,} clients; medians of {rounds} {'round' if rounds == 1 else 'rounds'}, "
        "of the longest wait the lowest and highest, too.\n"
    )


def run_beside(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure builds of the gateway; returns the table."""
    clients = 300 if options.quick else CLIENTS
    rows = {
        f"{name}_{kind}": Row(f"{label}, {topics}", digits)
        for kind, topics in (("one", "on one topic"), ("own", "each on a topic of its own"))
        for name, label, digits in (
            ("seconds", "s until all have all", 1),
            ("cpu_s", "gateway CPU s", 2),
            ("median_ms", "ms from connect to the last message, median", 1),
            ("slow_ms", "— 99 %", 0),
            ("stall_ms", "longest wait for a heartbeat, ms", 0),
            ("reads", "reads of messages", 0),
        )
    }

    def measure(build: Build) -> Figures:
        figures: Figures = {}
        for kind, seconds in SECONDS.items():
            found = resume(cores, kind, clients, seconds * clients / CLIENTS, build)
            figures |= {f"{name}_{kind}": value for name, value in found.items()}
        return figures

    return compare(rows, measure, builds, options, f"{clients:,} clients")


def resume(
    cores: Cores, kind: str, clients: int, seconds: float, build: Build = WORKING_TREE
) -> Figures:
    """One run: the messages are published through one replica, and the clients come to the next."""
    with Nats(cores.load) as nats:
        first = KeepingGateway(nats.url, personal=kind == "own", build=build)
        with ServerProcess(first, cores):
            visits = _visits(first, kind, clients)
        server = KeepingGateway(nats.url, personal=kind == "own", build=build)
        with (
            ServerProcess(server, cores) as process,
            Remote(partial(Returning, server)) as returning,
            Questions(nats.url) as questions,
        ):
            before, before_nats = process.cpu(), nats.cpu()
            went: Return = returning.call(
                seconds + STALLED_SECONDS + 30, Returning.come, visits, seconds
            )
            used, used_nats = process.cpu() - before, nats.cpu() - before_nats
            asked = questions.count()
            with closing(Wire(server.publish_port)) as wire:
                topics = sorted({visit.topic for visit in visits})
                stored(wire, [(topic, MESSAGES) for topic in topics])
            returning.call(STALLED_SECONDS + 30, Returning.hear, MESSAGES)
    return {
        "seconds": went.seconds,
        "cpu_s": used.user + used.kernel,
        "nats_s": used_nats.user + used_nats.kernel,
        "median_ms": went.median_ms,
        "slow_ms": went.slow_ms,
        "stall_ms": went.stall_ms,
        "stalls_ms": went.stalls_ms,
        "probes": went.probes,
        "reads": asked["DIRECT.GET"] + asked["STREAM.MSG.GET"],
        "looks": asked["STREAM.INFO"],
    }


def _visits(server: KeepingGateway, kind: str, clients: int) -> list[Visit]:
    """Publish, and say who comes with which position."""
    topics = ["kept:crowd"] if kind == "one" else [f"user:{number}" for number in range(clients)]
    messages = [(topic, number) for number in range(MESSAGES) for topic in topics]
    with closing(Wire(server.publish_port)) as wire:
        positions = dict(zip(messages, stored(wire, messages), strict=True))
    draw = random.Random(clients)
    visits = []
    for client in range(clients):
        topic = topics[client % len(topics)]
        known = MESSAGES - 1 - draw.randint(1, MISSED)
        visits.append(Visit(topic, positions[topic, known], range(known + 1, MESSAGES)))
    return visits


def _row(kind: str, rounds: list[Figures]) -> str:
    middle = {name: median(figures[name] for figures in rounds) for name in rounds[0]}
    stalls = [figures["stall_ms"] for figures in rounds]
    topics = "one" if kind == "one" else "one for each"
    return (
        f"| {topics} | {middle['seconds']:.1f} | {middle['cpu_s']:.1f} | {middle['median_ms']:.1f} "
        f"| {middle['slow_ms']:.0f} | {median(stalls):.0f} ({min(stalls):.0f} to {max(stalls):.0f}) "
        f"| {middle['stalls_ms']:.0f} | {middle['reads']:,.0f} | {middle['looks']:,.0f} |\n"
    )
