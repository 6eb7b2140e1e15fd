"""The scenario ``checks``: what it costs to compare the ends of quiet topics with the store's."""

import sys
import time
from contextlib import ExitStack, closing
from statistics import median
from typing import Final

from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.gateway import check_joined
from bench.servers.keeping import KeepingGateway, join, stored
from bench.wire import Wire

ROUNDS: Final = 3
TOPICS: Final = 15_000
TOPICS_EACH: Final = 100
"""Topics of one client."""

SETTLE_SECONDS: Final = 5.0
WATCHED_SECONDS: Final = 60.0
"""Two checks of each topic."""

_KINDS: Final = {"without history": "room", "with history": "kept"}


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    topics = 1000 if options.quick else TOPICS
    results: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for number in range(rounds):
        for kind, start in _KINDS.items():
            share = idle(cores, start, topics)["share"]
            results[kind].append(share)
            print(f"round {number + 1}/{rounds}  {kind}  {share:.2f} %", file=sys.stderr)
    differences = [b - a for a, b in zip(*results.values(), strict=True)]
    rows = "".join(_row(f"{topics:,} topics {kind}", each) for kind, each in results.items())
    return (
        "| idle gateway | % of a core | lowest | highest |\n|---|--:|--:|--:|\n"
        f"{rows}{_row('difference within a round', differences)}"
        f"\n{WATCHED_SECONDS:.0f} s; medians of {rounds} {'round' if rounds == 1 else 'rounds'}.\n"
    )


def idle(cores: Cores, start: str, topics: int) -> Figures:
    """``share``: percentage of a core that an idle replica uses with so many topics."""
    names = [f"{start}:{number}" for number in range(topics)]
    with Nats(cores.load) as nats:
        server = KeepingGateway(nats.url)
        with ServerProcess(server, cores) as process, ExitStack() as stack:
            if start == "kept":
                with closing(Wire(server.publish_port)) as wire:
                    stored(wire, [(name, 0) for name in names])
            for number in range(0, topics, TOPICS_EACH):
                wire = stack.enter_context(closing(Wire(server.port)))
                wire.upgrade(server.path(number))
                some = names[number : number + TOPICS_EACH]
                for name in some:
                    wire.send(join(name, resumes=start == "kept"))
                for _ in some:
                    check_joined(wire.receive())
            time.sleep(SETTLE_SECONDS)
            before, started = process.cpu(), time.monotonic()
            time.sleep(WATCHED_SECONDS)
            used, seconds = process.cpu() - before, time.monotonic() - started
    return {"share": (used.user + used.kernel) / seconds * 100}


def _row(name: str, values: list[float]) -> str:
    middle, low, high = median(values), min(values), max(values)
    return f"| {name} | {middle:.2f} | {low:.2f} | {high:.2f} |\n"
