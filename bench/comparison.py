"""The part ``delivery``: Gateway beside other servers, or beside itself."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from bench import report
from bench.beside import Row, compare
from bench.builds import Build
from bench.options import Options
from bench.proc import Cores
from bench.scenarios import SCENARIOS, Figures, Scale, delivery
from bench.servers import NODE_SERVERS, PAYLOAD_BYTES, RIVALS, SERVERS
from bench.servers.gateway import EquippedGateway

ROUNDS: Final = 5
NPM_SECONDS: Final = 300

_ROWS: Final = {
    "cpu_us": Row("CPU µs a delivery"),
    "user_us": Row("— user"),
    "kernel_us": Row("— kernel"),
}


def run(cores: Cores, options: Options) -> str:
    """Measure all servers; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    servers = list(options.servers)
    scale = _scale(options)
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


def run_beside(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure builds of the gateway alone; returns the table."""
    scale = _scale(options)

    def measure(build: Build) -> Figures:
        return delivery(EquippedGateway(build), cores, scale)

    return compare(
        _ROWS,
        measure,
        builds,
        options,
        f"{scale.connections:,} connections, {PAYLOAD_BYTES} byte payload, "
        f"{scale.broadcasts * scale.connections:,} deliveries each",
    )


def _scale(options: Options) -> Scale:
    if options.quick:
        return Scale(connections=300, warm_up=5, broadcasts=50, settle_seconds=0.5)
    return Scale(options.connections, warm_up=50, broadcasts=200, settle_seconds=3.0)
