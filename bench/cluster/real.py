"""Real replicas: questions, a newcomer, lost connections to the bus, a rolling restart, and idle users."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from statistics import median
from typing import Final

from bench.cluster.fleet import Fleet, joined, seconds_for
from bench.cluster.replicas import Replicas, replicas
from bench.idle import get
from bench.proc import Cores
from bench.remote import Remote
from bench.scenarios import Figures
from bench.wire import LoadError, Wire

WARM_UP: Final = 20
BACKGROUND_SECONDS: Final = 4.0
LOOK_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 12.0
"""After which what follows a change has been said twice."""


def questions(
    cores: Cores, sizes: tuple[int, ...], count: int, settle: float
) -> dict[int, Figures]:
    """What a question about a user costs, by number of replicas: about one nowhere, and on two."""
    found: dict[int, Figures] = {}
    with replicas(cores, 1) as (several, _), ExitStack() as stack:
        for size in sizes:
            several.grow(size)
            for server in several.servers[-2:]:
                stack.enter_context(closing(joined(server, size)))
            time.sleep(settle)
            background = several.watch()
            time.sleep(BACKGROUND_SECONDS)
            rate = background.everything.sent / background.seconds
            found[size] = _asked(several, "nowhere", 0, count, rate)
            found[size] |= _asked(several, "two", min(size, 2), count, rate)
    return found


def _asked(several: Replicas, name: str, sessions: int, count: int, rate: float) -> Figures:
    """Ask over and over, and take away what is said anyhow.

    Args:
        sessions: How many the user has that is asked about.
        rate: Messages a second without questions.
    """
    user = str(len(several.servers)) if sessions else "nobody"
    request = get(f"/v1/users/{user}/sessions")
    with closing(Wire(several.servers[0].publish_port)) as wire:
        times = list(_times(wire, request, sessions, WARM_UP))
        asker, bystander = several.watch(), several.watch(min(1, len(several.servers) - 1))
        times = list(_times(wire, request, sessions, count))
        seconds = asker.seconds
        return {
            f"{name}_messages": (asker.everything.sent - rate * seconds) / count,
            f"{name}_ms": median(times),
            f"{name}_us": asker.cpu / count * 1e6,
            f"{name}_bystander": (bystander.traffic.messages - _beats(several, seconds)) / count,
            f"{name}_bystander_us": bystander.cpu / count * 1e6,
        }


def _beats(several: Replicas, seconds: float) -> float:
    """What a replica says and hears in that time without a question, about."""
    return (len(several.servers) + 1) * seconds / 2


def _times(wire: Wire, request: bytes, sessions: int, count: int) -> Iterator[float]:
    """How long answers take, in ms; on a busy machine a few may be incomplete, and do not count."""
    slow, most_slow = 0, count // 5
    while count:
        started = time.perf_counter()
        wire.ask(request)
        answer = wire.answered()
        took = (time.perf_counter() - started) * 1e3
        report = json.loads(answer)
        slow += not report["complete"]
        if (report["complete"] and len(report["items"]) != sessions) or slow > most_slow:
            raise LoadError(f"a wrong answer: {report}")
        if report["complete"]:
            count -= 1
            yield took


def loaded(cores: Cores, users: int, seconds: float, settle: float) -> Figures:
    """A replica with many users beside one with none: idle, a newcomer, lost connections, all leave."""
    with (
        replicas(cores, 2, presence=False) as (several, nats),
        Remote(partial(Fleet, several.servers[:1])) as fleet,
    ):
        fleet.call(seconds_for(users), Fleet.come, users)
        time.sleep(QUIET_SECONDS)
        idle = several.watch()
        time.sleep(seconds)
        figures = {
            "idle_cpu": 100 * idle.cpu / idle.seconds,
            "idle_nats_cpu": 100 * idle.nats_cpu / idle.seconds,
            "idle_messages": idle.traffic.messages / idle.seconds,
            "idle_bytes": (idle.traffic.sent_bytes + idle.traffic.received_bytes) / idle.seconds,
        }

        def beyond_idle(name: str, begin: Callable[[], None]) -> Figures:
            """What happens, and for a while afterwards, less what an idle time takes."""
            watch = several.watch()
            begin()
            most, before = 0.0, watch.traffic
            for _ in range(int(settle / LOOK_SECONDS)):
                time.sleep(LOOK_SECONDS)
                now = watch.traffic
                most, before = max(most, (now - before).messages / LOOK_SECONDS), now
            seconds, traffic, cpu = watch.seconds, watch.traffic, watch.cpu
            return {
                f"{name}_messages": traffic.messages - figures["idle_messages"] * seconds,
                f"{name}_most": most,
                f"{name}_cpu": cpu - figures["idle_cpu"] / 100 * seconds,
                f"{name}_nats_cpu": watch.nats_cpu - figures["idle_nats_cpu"] / 100 * seconds,
            }

        figures |= beyond_idle("newcomer", lambda: several.grow(3))
        figures |= beyond_idle("empty_reconnect", lambda: nats.kick(several.servers[1].name))
        figures |= beyond_idle("reconnect", lambda: nats.kick(several.servers[0].name))
        leaving = beyond_idle("leave", lambda: fleet.call(seconds_for(0), Fleet.leave))
        per_user = {name: value / users for name, value in leaving.items()}
        kept = nats.bytes_of("KV_gateway_last_seen")
        return figures | per_user | {"kept_bytes": kept}


def rolling(cores: Cores, sizes: tuple[int, ...], users: int, settle: float) -> dict[int, Figures]:
    """A rolling restart, by number of replicas: all of them, one after the other, under the same users."""
    found: dict[int, Figures] = {}
    for size in sizes:
        with (
            replicas(cores, size) as (several, _),
            Remote(partial(Fleet, several.servers)) as fleet,
        ):
            fleet.call(seconds_for(users), Fleet.come, users)
            fleet.call(60, Fleet.rest, settle)
            idle = several.watch()
            fleet.call(60, Fleet.rest, BACKGROUND_SECONDS)
            rate, cpu = idle.everything.messages / idle.seconds, idle.nats_cpu / idle.seconds
            watch = several.watch(size - 1)
            for number in range(size):
                several.stop(number)
                fleet.call(seconds_for(users), Fleet.come_back, number, 0)
                several.start(number)
                several.meet()
            fleet.call(60, Fleet.rest, settle)
            found[size] = {
                "messages": (watch.everything.messages - rate * watch.seconds) / size,
                "nats_cpu": watch.nats_cpu - cpu * watch.seconds,
                "seconds": watch.seconds,
            }
    return found
