"""The part ``breakdown``: what the memory of a joined connection consists of, by type and by line."""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from bench.builds import Build
from bench.load import Load
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.servers.counted import CountedGateway, Sizes
from bench.servers.gateway import EquippedGateway

CLIENTS: Final = 1000
"""Counted are those that come after as many others."""

SETTLE_SECONDS: Final = 3.0
ROWS: Final = 25
LEAST_BYTES: Final = 8
"""Of a connection, in a row."""


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the tables."""
    clients = 100 if options.quick else CLIENTS
    return "\n".join(_tables(build, cores, clients) for build in builds)


def _tables(build: Build, cores: Cores, clients: int) -> str:
    resident = _resident(build, cores, clients)
    types, left = _types(build, cores, clients)
    lines = _lines(build, cores, clients)
    counted = sum(size for _, size in types.values())
    _, traced = lines.pop("total")
    shown = [(name, *sizes) for name, sizes in _largest(types)]
    rest = counted - sum(size for _, _, size in shown)
    return (
        f"**{build.name}**: {resident / 1024:.1f} KiB resident; allocated by Python's own functions are "
        f"{traced / 1024:.1f}, in objects that can be counted {counted / 1024:.1f}\n\n"
        "| type | of a connection | bytes |\n|---|--:|--:|\n"
        + "".join(f"| `{name}` | {count:.2f} | {size:,.0f} |\n" for name, count, size in shown)
        + f"| all others | | {rest:,.0f} |\n\n"
        "| line that allocated it | of a connection | bytes |\n|---|--:|--:|\n"
        + "".join(
            f"| `{_short(build, name)}` | {count:.2f} | {size:,.0f} |\n"
            for name, (count, size) in _largest(lines)
        )
        + f"\nLeft of {2 * clients:,} connections that are gone: {_left(left, clients)}\n"
    )


def _resident(build: Build, cores: Cores, clients: int) -> float:
    """Resident bytes of a connection, of the gateway as it is."""
    server = EquippedGateway(build)
    with ServerProcess(server, cores) as process, Load(server) as load:
        found = []
        for joined in (clients, 2 * clients):
            load.join(joined)
            time.sleep(SETTLE_SECONDS)
            found.append(process.resident_bytes())
    return (found[1] - found[0]) / clients


def _types(
    build: Build, cores: Cores, clients: int
) -> tuple[dict[str, tuple[float, float]], Sizes]:
    """What a connection consists of, by type; and what is there when all are gone."""
    server = CountedGateway(build)
    with ServerProcess(server, cores), Load(server) as load:
        before = server.types()
        found = []
        for joined in (clients, 2 * clients):
            load.join(joined)
            time.sleep(SETTLE_SECONDS)
            found.append(server.types())
        load.leave(2 * clients)
        time.sleep(SETTLE_SECONDS)
        left = _difference(before, server.types(), 1)
    print(f"{build.name}  types counted", file=sys.stderr, flush=True)
    return _difference(found[0], found[1], clients), left


def _lines(build: Build, cores: Cores, clients: int) -> dict[str, tuple[float, float]]:
    """The same by line, in a gateway that traces its allocations."""
    server = CountedGateway(build, traced=True)
    with ServerProcess(server, cores), Load(server) as load:
        found = []
        for joined in (clients, 2 * clients):
            load.join(joined)
            time.sleep(SETTLE_SECONDS)
            found.append(server.lines())
    print(f"{build.name}  lines counted", file=sys.stderr, flush=True)
    return _difference(found[0], found[1], clients)


def _difference(before: Sizes, after: Sizes, clients: int) -> dict[str, tuple[float, float]]:
    """What came between, for each client."""
    found = {}
    for name, (count, size) in after.items():
        count_before, size_before = before.get(name, (0, 0))
        found[name] = ((count - count_before) / clients, (size - size_before) / clients)
    return found


def _largest(sizes: Sizes) -> Iterable[tuple[str, tuple[float, float]]]:
    by_size = sorted(sizes.items(), key=lambda item: -item[1][1])
    return [item for item in by_size[:ROWS] if item[1][1] >= LEAST_BYTES]


def _left(left: Sizes, clients: int) -> str:
    """The types of which there are more than before by a tenth of the clients."""
    many = [
        f"{count:,.0f} `{name}`"
        for name, (count, _) in sorted(left.items(), key=lambda item: -item[1][0])
        if count >= clients / 10
    ]
    return f"{', '.join(many) or 'nothing'}."


def _short(build: Build, line: str) -> str:
    """A line without the directory its module was found in."""
    return (
        line.removeprefix(f"{build.root}/").rpartition("/site-packages/")[2].rpartition("/lib/")[2]
    )
