"""The scenario ``topics``: questions about topics over three replicas, and with one of them frozen."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from statistics import median, quantiles
from typing import Any, Final

from bench.idle import await_replicas, get, rounds_of, spread
from bench.load import Clients, Load
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.base import TOPIC
from bench.servers.gateway import Gateway, check_joined
from bench.wire import LoadError, Wire

MEMBERS: Final = 2000
QUESTIONS: Final = 200
FROZEN_QUESTIONS: Final = 10
WARM_UP: Final = 20
JOIN_SECONDS: Final = 0.1

_SECTIONS: Final = f"""
[sessions]
replica_down_after_seconds = 60  # so that a frozen one is asked all the time
[[channels]]
pattern = "{TOPIC}"
presence = "count"
"""
_CALLS: Final = {
    "list": ("GET /v1/topics", "/v1/topics?limit=100"),
    "topic": ("GET /v1/topics/{topic}", f"/v1/topics/{TOPIC}"),
    "presence": ("GET /v1/topics/{topic}/presence", f"/v1/topics/{TOPIC}/presence?limit=100"),
}


class MeetingGateway(Gateway):
    """A replica whose users are of no other; all of them join one room, and each her personal topic."""

    def __init__(self, bus: str, name: str) -> None:
        super().__init__(bus, sections=_SECTIONS)
        self._name = name

    def user(self, number: int) -> str:
        return f"{self._name}{number:04}"

    def join(self, wire: Wire, number: int) -> None:
        wire.upgrade(self.path(number))
        for topic in (TOPIC, f"user:{self.user(number)}"):
            wire.send(b'["1","1","%b","phx_join",{}]' % topic.encode())
            while json.loads(text := wire.receive())[3].startswith("presence_"):
                pass
            check_joined(text)
        wire.rest = b""  # counts of the room, that nobody reads


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table."""
    members = 300 if options.quick else MEMBERS
    rounds = rounds_of(options, "topics", lambda: topics(cores, members))
    rows = "".join(
        f"| `{call}` | {spread(rounds, f'{name}_ms', '.2f')} | {spread(rounds, f'{name}_slow_ms', '.1f')} "
        f"| {spread(rounds, f'{name}_frozen_ms', '.0f')} |\n"
        for name, (call, _) in _CALLS.items()
    )
    return (
        "| call | ms, median | lowest | highest | ms, 99 % | lowest | highest "
        "| ms at most, one replica frozen | lowest | highest |\n"
        f"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n{rows}"
        f"\n{members:,} members of one topic on three replicas, and a personal topic of each; {QUESTIONS} "
        f"requests of each kind, one after another, {FROZEN_QUESTIONS} with a frozen replica, every answer "
        f"checked; medians of {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}, and their lowest "
        "and highest.\n"
    )


def topics(cores: Cores, members: int) -> Figures:
    """One round: the replica that is asked has a core of its own, all else the other."""
    beside = Cores(server=cores.load, load=cores.load)
    share = members // 3
    with ExitStack() as stack:
        nats = stack.enter_context(Nats(cores.load))
        servers = [MeetingGateway(nats.url, name) for name in "abc"]
        processes = [
            stack.enter_context(ServerProcess(server, beside if number else cores))
            for number, server in enumerate(servers)
        ]
        with closing(Wire(servers[0].publish_port)) as wire:
            await_replicas(wire, 3)
        for server in servers:
            load = stack.enter_context(Load(server))
            load.call(60.0 + share * JOIN_SECONDS, Clients.join, share)
        users = sorted(server.user(number) for server in servers for number in range(share))
        wire = stack.enter_context(closing(Wire(servers[0].publish_port)))
        figures: Figures = {}
        for name in _CALLS:
            times = list(_ask(wire, name, WARM_UP + QUESTIONS, users, missing=0))[WARM_UP:]
            figures |= {f"{name}_ms": median(times), f"{name}_slow_ms": quantiles(times, n=100)[98]}
        os.kill(processes[2].pid, signal.SIGSTOP)
        try:
            for name in _CALLS:
                times = list(_ask(wire, name, FROZEN_QUESTIONS, users, missing=share))
                figures[f"{name}_frozen_ms"] = max(times)
        finally:
            os.kill(processes[2].pid, signal.SIGCONT)
    return figures


def _ask(wire: Wire, name: str, count: int, users: list[str], *, missing: int) -> Iterator[float]:
    """Ask over and over; yields how long each answer took, in ms.

    Args:
        missing: How many of the users, the last ones, are on a replica that does not answer.
    """
    request = get(_CALLS[name][1])
    for _ in range(count):
        started = time.perf_counter()
        wire.ask(request)
        answer = wire.answered()
        yield (time.perf_counter() - started) * 1e3
        report = json.loads(answer)
        if report["complete"] == bool(missing) or not _RIGHT[name](report, users, missing):
            raise LoadError(f"a wrong answer: {answer[:500]!r}")


def _list_is_right(report: Any, users: list[str], missing: int) -> bool:
    there = len(users) - missing
    found = [(item["topic"], item["channels"]) for item in report["items"]]
    return found == [(TOPIC, there), *((f"user:{user}", 1) for user in users[:99])]


def _topic_is_right(report: Any, users: list[str], missing: int) -> bool:
    there = len(users) - missing
    return bool(report["all"] == {"channels": there, "sessions": there, "users": there})


def _presence_is_right(report: Any, users: list[str], missing: int) -> bool:
    del missing  # it is shown as it was known before
    return [item["user"] for item in report["items"]] == users[:100]


_RIGHT: Final[dict[str, Callable[[Any, list[str], int], bool]]] = {
    "list": _list_is_right,
    "topic": _topic_is_right,
    "presence": _presence_is_right,
}
