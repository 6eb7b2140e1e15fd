"""The part ``connect``: what it costs to take a client in, up to the answer to its join."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from bench.beside import Row, compare
from bench.builds import Build
from bench.members import STALLED_SECONDS, Arrival, Members
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.remote import Remote
from bench.scenarios import Figures
from bench.servers.gateway import EquippedGateway
from bench.waiting import LEAST_SHARE, check_punctual
from bench.wire import LoadError

STEADY: Final = 3000
RATE: Final = 200
"""Clients a second."""

STORM: Final = 4000
"""Clients that come as fast as they can; as many as the gateway lets wait to be accepted."""

_ROWS: Final = {
    "steady_cpu_ms": Row(f"CPU ms of connect, token and join, {RATE} clients a second"),
    "steady_user_ms": Row("— user"),
    "steady_kernel_ms": Row("— kernel"),
    "steady_join_ms": Row("— ms to join, median"),
    "steady_slow_join_ms": Row("— ms to join, 99 %", 1),
    "storm_cpu_ms": Row("CPU ms of connect, token and join, all at once"),
    "storm_user_ms": Row("— user"),
    "storm_kernel_ms": Row("— kernel"),
    "storm_seconds": Row("— s until all have joined"),
}


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the table."""
    steady, storm = (200, 200) if options.quick else (STEADY, STORM)

    def measure(build: Build) -> Figures:
        figures = _arrive("steady", build, cores, steady, steady / RATE)
        figures |= _arrive("storm", build, cores, storm, 0.0)
        if options.quick:
            return figures  # whether it works can be tried on a busy machine
        check_punctual(figures["steady_late_ms"])
        if figures["storm_opened_seconds"] > figures["storm_seconds"] * (1 - LEAST_SHARE):
            raise LoadError("the clients are the bottleneck: the last one came when all had joined")
        return figures

    return compare(
        _ROWS,
        measure,
        builds,
        options,
        f"{steady:,} clients come at an even pace, or {storm:,} at once, with a token each, to one topic",
    )


def _arrive(kind: str, build: Build, cores: Cores, count: int, seconds: float) -> Figures:
    """Have so many clients come over a time; figures with the kind before their names."""
    server = EquippedGateway(build)
    make = partial(Members, server, count)
    with ServerProcess(server, cores) as process, Remote(make) as clients:
        clients.call(30.0, Members.check)  # so that its process has started, too
        before = process.cpu()
        arrival: Arrival = clients.call(
            seconds + STALLED_SECONDS + 30, Members.come, count, seconds
        )
        used = process.cpu() - before
        clients.call(60.0, Members.check_joined)
    figures = {
        "cpu_ms": (used.user + used.kernel) / count * 1e3,
        "user_ms": used.user / count * 1e3,
        "kernel_ms": used.kernel / count * 1e3,
        "join_ms": arrival.join_ms,
        "slow_join_ms": arrival.slow_join_ms,
        "seconds": arrival.seconds,
        "opened_seconds": arrival.opened_seconds,
        "late_ms": arrival.late_ms,
        "waited": arrival.waited,
    }
    return {f"{kind}_{name}": value for name, value in figures.items()}
