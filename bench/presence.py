"""The scenario ``presence``: many members come to one topic and are all told of each other."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Final

from bench.beside import Row, compare
from bench.builds import WORKING_TREE, Build
from bench.members import STALLED_SECONDS, Arrival, Members
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.remote import Remote
from bench.scenarios import Figures
from bench.servers.gateway import Gateway

ROUNDS: Final = 3
SETTLE_SECONDS: Final = 5.0
"""Time from the last join to the reading of memory."""

_HEAD: Final = (
    "| members | CPU ms a join | user | kernel | messages a client | messages in all | MB in all "
    "| ms to join, median | 99 % | KiB a member |\n"
    "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
)
_PHOENIX: Final = "| Phoenix, 2,000 | 24 | | | | 2,000,000 | | | | 819 |\n"


def run(cores: Cores, options: Options) -> str:
    """Measure all numbers of members; returns the table."""
    seconds = 2.0 if options.quick else 10.0
    sizes = (100, 200) if options.quick else options.members
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    results: dict[int, list[Figures]] = {size: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            figures = presence(cores, size, seconds, options.samples)
            results[size].append(figures)
            shown = "  ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
            print(f"round {number + 1}/{rounds}  {size} members  {shown}", file=sys.stderr)
    return _table(results, rounds, seconds, options.samples)


def run_beside(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure builds of the gateway; returns the table."""
    seconds = 2.0 if options.quick else 10.0
    sizes = (100, 200) if options.quick else options.members
    rows = {
        f"{name}_{size}": Row(f"{label}, {size:,} members", digits)
        for size in sizes
        for name, label, digits in (
            ("cpu_ms", "CPU ms a join", 2),
            ("slow_join_ms", "ms to join, 99 %", 1),
            ("resident_kib", "KiB a member", 1),
        )
    }

    def measure(build: Build) -> Figures:
        figures: Figures = {}
        for size in sizes:
            found = presence(cores, size, seconds, options.samples, build)
            figures |= {f"{name}_{size}": value for name, value in found.items()}
        return figures

    note = f"All members come within {seconds:.0f} s"
    return compare(rows, measure, builds, options, note)


def presence(
    cores: Cores, members: int, seconds: float, samples: int, build: Build = WORKING_TREE
) -> Figures:
    """One run, with a server of its own.

    CPU time is counted from before the first connect until nobody is told anything any more.
    """
    server = Gateway(presence=True, devices=True, build=build)
    make = partial(Members, server, samples)
    with ServerProcess(server, cores) as process, Remote(make) as clients:
        clients.call(30.0, Members.check)  # so that its process has started, too
        resident = process.resident_bytes()
        before = process.cpu()
        arrival: Arrival = clients.call(
            seconds + STALLED_SECONDS + 30, Members.come, members, seconds
        )
        used = process.cpu() - before
        time.sleep(max(0.0, arrival.last_joined_at + SETTLE_SECONDS - time.monotonic()))
        grown = process.resident_bytes() - resident
        clients.call(60.0, Members.check)
    return {
        "cpu_ms": (used.user + used.kernel) / members * 1e3,
        "user_ms": used.user / members * 1e3,
        "kernel_ms": used.kernel / members * 1e3,
        "messages": arrival.messages,
        "received_mb": arrival.received_bytes / 1e6,
        "join_ms": arrival.join_ms,
        "slow_join_ms": arrival.slow_join_ms,
        "resident_kib": grown / members / 1024,
    }


def _table(
    results: Mapping[int, Sequence[Figures]], rounds: int, seconds: float, samples: int
) -> str:
    rows = [_row(size, figures) for size, figures in results.items()]
    return (
        _HEAD
        + "".join(rows)
        + _PHOENIX
        + f"\nAll members come within {seconds:.0f} s; medians of {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}; {samples} clients of each run examined closely. "
        "The figures for Phoenix were measured elsewhere and are quoted for reference only.\n"
    )


def _row(members: int, rounds: Sequence[Figures]) -> str:
    middle = {name: median(figures[name] for figures in rounds) for name in rounds[0]}
    return (
        f"| {members:,} | {middle['cpu_ms']:.2f} | {middle['user_ms']:.2f} "
        f"| {middle['kernel_ms']:.2f} | {middle['messages'] / members:.1f} "
        f"| {middle['messages']:,.0f} | {middle['received_mb']:.0f} | {middle['join_ms']:.1f} "
        f"| {middle['slow_join_ms']:.1f} | {middle['resident_kib']:.1f} |\n"
    )
