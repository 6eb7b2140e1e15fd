"""The scenarios that every server goes through: each starts one, and returns figures by case."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final

from bench.performance.crowd import Delivery, Load
from bench.performance.settings import Settings
from bench.proc import Cores, Cpu, ServerProcess
from bench.scenarios import Figures
from bench.servers import Server

Cases = dict[str, Figures]

BEATING: Final = 10
"""Clients that are there when others come, and send heartbeats."""

WARM_UP: Final = 0.25
"""Share of the messages that are sent before counting begins."""


def fanout(server: Server, cores: Cores, settings: Settings) -> Cases:
    """One topic: what a client occupies, and a delivery costs, at each rate and one message at a time."""
    cases: Cases = {}
    with ServerProcess(server, cores) as process, Load(server) as load:
        before = process.resident_bytes()
        load.arrive(settings.subscribers)
        time.sleep(settings.settle_seconds)
        grown = process.resident_bytes() - before
        cases["memory"] = {"kib": grown / settings.subscribers / 1024}
        calm = settings.rates[0]
        cases["in turn"] = delivered(process, load, round(calm * settings.seconds), 0.0)
        for rate in settings.rates:
            found = delivered(process, load, round(rate * settings.seconds), rate)
            cases[f"{rate:g}"] = found
            if found["lost"] > found["expected"] / 2:
                break  # what is still on its way would be mistaken for the next rate's
    return cases


def connect(server: Server, cores: Cores, settings: Settings) -> Cases:
    """Clients come all at once: connection, token and join."""
    with ServerProcess(server, cores) as process, Load(server) as load:
        load.arrive(BEATING)
        before = process.cpu()
        arrival = load.arrive(settings.connects, BEATING)
        used = process.cpu() - before
    return {"storm": spent(used, settings.connects, "ms") | asdict(arrival)}


def sizes(server: Server, cores: Cores, settings: Settings) -> Cases:
    """One topic, calm, with ever more subscribers: as many deliveries a second, of fewer messages."""
    cases: Cases = {}
    with ServerProcess(server, cores) as process, Load(server) as load:
        joined = 0
        for size in settings.sizes:
            load.arrive(size - joined)
            joined = size
            rate = settings.paced / size
            cases[f"{size}"] = delivered(process, load, round(rate * settings.seconds), rate)
    return cases


def topics(server: Server, cores: Cores, settings: Settings) -> Cases:
    """Many topics of two members each, published to by turns."""
    server.members = 2
    with ServerProcess(server, cores) as process, Load(server, settings.topics) as load:
        load.arrive(settings.topics * server.members)
        # most of the cost is the publishing: a tenth of the deliveries keeps it calm
        rate = settings.paced / 10 / server.members
        return {"2": delivered(process, load, round(rate * settings.seconds), rate)}


def delivered(process: ServerProcess, load: Load, messages: int, rate: float) -> Figures:
    """Publish so many messages, and some before; figures of each delivery."""
    load.beat()
    load.publish(max(2, round(messages * WARM_UP)), rate)
    before = process.cpu()
    delivery = load.publish(messages, rate)
    used = process.cpu() - before
    return figures(used, delivery)


def figures(used: Cpu, delivery: Delivery) -> Figures:
    """What was delivered, and the CPU of each delivery."""
    return spent(used, delivery.deliveries + delivery.stale, "us") | asdict(delivery)


def spent(used: Cpu, times: int, unit: str) -> Figures:
    """CPU time of each of so many things, in ms or µs."""
    scale = {"ms": 1e3, "us": 1e6}[unit] / max(1, times)
    return {
        f"cpu_{unit}": (used.user + used.kernel) * scale,
        f"user_{unit}": used.user * scale,
        f"kernel_{unit}": used.kernel * scale,
    }


SCENARIOS: Final[Mapping[str, Callable[[Server, Cores, Settings], Cases]]] = {
    "fanout": fanout,
    "connect": connect,
    "sizes": sizes,
    "topics": topics,
}
