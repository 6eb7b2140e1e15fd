"""The part ``memory``: what a joined connection occupies, from the first thousand to many thousands."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from bench.beside import Row, compare
from bench.builds import Build
from bench.load import Load
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.backend import Backend
from bench.servers.base import Server
from bench.servers.gateway import EquippedGateway, FullGateway

SIZES: Final = (1000, 5000, 15_000)
FULL_SIZE: Final = 5000
SETTLE_SECONDS: Final = 5.0

_KINDS: Final = {
    "room": "memory bus",
    "idle": "NATS, a personal topic each",
    "full": "memory bus, all features at work",
}


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the table."""
    sizes = (100, 200, 400) if options.quick else SIZES
    full_size = 200 if options.quick else FULL_SIZE
    rows = {}
    for kind in ("room", "idle"):
        for size in sizes:
            rows[_total(kind, size)] = Row(f"KiB a connection, {_KINDS[kind]}: {size:,}", 1)
        for less, more in pairwise(sizes):
            label = f"each from {less:,} to {more:,}"
            rows[_more(kind, more)] = Row(f"KiB a connection, {_KINDS[kind]}: {label}", 1)
    rows[_total("full", full_size)] = Row(f"KiB a connection, {_KINDS['full']}: {full_size:,}", 1)

    def measure(build: Build) -> Figures:
        with Nats(cores.load) as nats:
            idle = EquippedGateway(build, nats.url, alone=True)
            return (
                _grown("room", EquippedGateway(build), cores, sizes)
                | _grown("idle", idle, cores, sizes)
                | _full(build, cores, full_size)
            )

    return compare(rows, measure, builds, options, "Resident memory")


def _grown(kind: str, server: Server, cores: Cores, sizes: Sequence[int]) -> Figures:
    """Resident memory for each of so many connections in all, and for each of those that came last."""
    figures: Figures = {}
    with ServerProcess(server, cores) as process, Load(server) as load:
        first = last = process.resident_bytes()
        joined = 0
        for size in sizes:
            load.join(size)
            time.sleep(SETTLE_SECONDS)
            now = process.resident_bytes()
            figures[_total(kind, size)] = (now - first) / size / 1024
            if joined:
                figures[_more(kind, size)] = (now - last) / (size - joined) / 1024
            last, joined = now, size
    return figures


def _full(build: Build, cores: Cores, size: int) -> Figures:
    backend = Backend()
    with ServerProcess(backend, Cores(server=cores.load, load=cores.load)):
        return _grown("full", FullGateway(build, backend.url), cores, (size,))


def _total(kind: str, size: int) -> str:
    return f"{kind}_{size}"


def _more(kind: str, size: int) -> str:
    return f"{kind}_to_{size}"
