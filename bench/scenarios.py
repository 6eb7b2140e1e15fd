"""What is measured. A scenario takes a server from start to end and returns its figures by name."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from bench.load import Load
from bench.proc import Cores, ServerProcess
from bench.servers import Server

Figures: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        connections: Clients of each server, all of one channel.
        warm_up: Broadcasts before counting begins.
        broadcasts: Broadcasts that are counted.
        settle_seconds: Quiet time between the last join and the reading of memory.
    """

    connections: int
    warm_up: int
    broadcasts: int
    settle_seconds: float


def memory(server: Server, cores: Cores, scale: Scale) -> Figures:
    """``resident_kib``: resident memory for each idle, joined connection, in KiB.

    Kernel memory of the sockets is not in it.
    """
    with ServerProcess(server, cores) as process, Load(server) as load:
        before = process.resident_bytes()
        load.join(scale.connections)
        time.sleep(scale.settle_seconds)
        grown = process.resident_bytes() - before
        return {"resident_kib": grown / scale.connections / 1024}


def delivery(server: Server, cores: Cores, scale: Scale) -> Figures:
    """``user_us`` and ``kernel_us``: the server's CPU time for each message delivered, in µs.

    The HTTP request that publishes is part of it, one for each round of all clients.
    """
    with ServerProcess(server, cores) as process, Load(server) as load:
        load.join(scale.connections)
        load.deliver(scale.warm_up)
        before = process.cpu()
        load.deliver(scale.broadcasts)
        used = process.cpu() - before
        deliveries = scale.connections * scale.broadcasts
        return {
            "user_us": used.user / deliveries * 1e6,
            "kernel_us": used.kernel / deliveries * 1e6,
            "cpu_us": (used.user + used.kernel) / deliveries * 1e6,
        }


SCENARIOS: Final[tuple[Callable[[Server, Cores, Scale], Figures], ...]] = (memory, delivery)
"""All that a run goes through, for each server in each round."""
