"""The part ``delivery``: Gateway beside other servers."""

import subprocess
import sys
from typing import Final

from bench import report
from bench.options import Options
from bench.proc import Cores
from bench.scenarios import SCENARIOS, Figures, Scale
from bench.servers import NODE_SERVERS, RIVALS, SERVERS

ROUNDS: Final = 5
NPM_SECONDS: Final = 300


def run(cores: Cores, options: Options) -> str:
    """Measure all servers; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    servers = list(options.servers)
    scale = (
        Scale(connections=300, warm_up=5, broadcasts=50, settle_seconds=0.5)
        if options.quick
        else Scale(options.connections, warm_up=50, broadcasts=200, settle_seconds=3.0)
    )
    if NODE_SERVERS.intersection(servers) and not (RIVALS / "node_modules").is_dir():
        subprocess.run(["npm", "ci"], cwd=RIVALS, check=True, timeout=NPM_SECONDS)

    results: dict[str, list[Figures]] = {name: [] for name in servers}
    for number in range(rounds):
        # each round begins with another server, so that none always comes first
        shift = number % len(servers)
        for name in servers[shift:] + servers[:shift]:
            figures = _measure(name, cores, scale)
            results[name].append(figures)
            shown = "  ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
            print(f"round {number + 1}/{rounds}  {name:<17}{shown}", file=sys.stderr, flush=True)
    return report.table(results, scale, rounds)


def _measure(name: str, cores: Cores, scale: Scale) -> Figures:
    figures: Figures = {}
    for scenario in SCENARIOS:
        figures |= scenario(SERVERS[name](), cores, scale)
    return figures
