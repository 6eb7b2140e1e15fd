"""``python -m bench``: measure, print the table, and with ``--write`` put it into the README."""

import argparse
import os
import signal
import subprocess
import sys
import time

from bench import report
from bench.proc import Cores
from bench.scenarios import SCENARIOS, Figures, Scale
from bench.servers import NODE_SERVERS, RIVALS, SERVERS

NPM_SECONDS = 300


def main() -> None:
    """Run the benchmark."""
    options = _options()
    rounds = 1 if options.quick else options.rounds
    scale = (
        Scale(connections=300, warm_up=5, broadcasts=50, settle_seconds=0.5)
        if options.quick
        else Scale(options.connections, warm_up=50, broadcasts=200, settle_seconds=3.0)
    )
    # so that a SIGTERM, too, ends the servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    if NODE_SERVERS.intersection(options.servers) and not (RIVALS / "node_modules").is_dir():
        subprocess.run(["npm", "ci"], cwd=RIVALS, check=True, timeout=NPM_SECONDS)

    results: dict[str, list[Figures]] = {name: [] for name in options.servers}
    for number in range(rounds):
        # each round begins with another server, so that none always comes first
        shift = number % len(options.servers)
        for name in options.servers[shift:] + options.servers[:shift]:
            figures = _measure(name, cores, scale)
            results[name].append(figures)
            shown = "  ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
            print(f"round {number + 1}/{rounds}  {name:<17}{shown}", file=sys.stderr, flush=True)
    text = report.table(results, scale, rounds)
    print(text)
    if options.write:
        report.write(text)


def _measure(name: str, cores: Cores, scale: Scale) -> Figures:
    figures: Figures = {}
    for scenario in SCENARIOS:
        figures |= scenario(SERVERS[name](), cores, scale)
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Gateway beside others."
    )
    parser.add_argument(
        "--quick", action="store_true", help="300 connections, one round: does it work"
    )
    parser.add_argument(
        "--servers", type=_servers, default=list(SERVERS), help="names, with commas"
    )
    parser.add_argument("--connections", type=_positive, default=2000)
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    return parser.parse_args()


def _servers(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SERVERS]:
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(unknown)}; there are {', '.join(SERVERS)}"
        )
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
