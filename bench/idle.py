"""The scenarios ``idle`` and ``offline``: Gateway on a real nats-server."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median, quantiles
from typing import Final

from bench.load import Load
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.gateway import API_KEY, Gateway, LonelyGateway
from bench.wire import LoadError, Wire

ROUNDS: Final = 3
SETTLE_SECONDS: Final = 5.0
MEET_SECONDS: Final = 10.0
"""Time for two replicas to hear of each other."""

WARM_UP: Final = 50
QUESTIONS: Final = 500


def run_idle(cores: Cores, options: Options) -> str:
    """Measure what idle users occupy; returns the table."""
    users = 200 if options.quick else options.connections
    rounds = rounds_of(options, "idle", lambda: idle(cores, users))
    return (
        "| idle users | KiB a connection | lowest | highest |\n|--:|--:|--:|--:|\n"
        f"| {users:,} | {spread(rounds, 'resident_kib', '.1f')} |\n"
        f"\nMedian of {len(rounds)}; each user has one connection, on one topic of its own.\n"
    )


def run_offline(cores: Cores, options: Options) -> str:
    """Measure how long it takes to say that a user is not there; returns the table."""
    rounds = rounds_of(options, "offline", lambda: offline(cores))
    return (
        "| an unknown user | ms | lowest | highest |\n|---|--:|--:|--:|\n"
        f"| median | {spread(rounds, 'median_ms', '.2f')} |\n"
        f"| 99 % | {spread(rounds, 'slow_ms', '.2f')} |\n"
        f"\n{QUESTIONS} requests, one after another; medians of {len(rounds)} "
        f"{'round' if len(rounds) == 1 else 'rounds'}, and their lowest and highest.\n"
    )


def idle(cores: Cores, users: int) -> Figures:
    """``resident_kib``: resident memory for each user with one connection and one topic, in KiB."""
    with Nats(cores.load) as nats:
        server = LonelyGateway(nats.url)
        with ServerProcess(server, cores) as process, Load(server) as load:
            before = process.resident_bytes()
            load.join(users)
            time.sleep(SETTLE_SECONDS)
            grown = process.resident_bytes() - before
    return {"resident_kib": grown / users / 1024}


def offline(cores: Cores) -> Figures:
    """``median_ms`` and ``slow_ms``: time of ``GET /v1/users/{unknown}`` with two replicas."""
    with Nats(cores.load) as nats:
        asked, other = Gateway(nats.url), Gateway(nats.url)
        with ServerProcess(asked, cores), ServerProcess(other, cores):
            wire = Wire(asked.publish_port)
            with closing(wire):
                await_replicas(wire, 2)
                times = list(_ask(wire))[WARM_UP:]
    return {"median_ms": median(times), "slow_ms": quantiles(times, n=100)[98]}


def _ask(wire: Wire) -> Iterator[float]:
    """Ask for users nobody knows; yields how long each answer took, in ms."""
    for number in range(WARM_UP + QUESTIONS):
        request = get(f"/v1/users/unknown-{number}")
        started = time.perf_counter()
        wire.ask(request)
        answer = wire.answered()
        yield (time.perf_counter() - started) * 1e3
        report = json.loads(answer)
        if report["online"] or report["sessions"] or not report["complete"]:
            raise LoadError(f"a wrong answer: {report}")


def await_replicas(wire: Wire, count: int) -> None:
    """Wait until so many replicas are known to the one that is asked."""
    deadline = time.monotonic() + MEET_SECONDS
    request = get("/v1/replicas")
    while True:
        wire.ask(request)
        if len(json.loads(wire.answered())["items"]) == count:
            return
        if time.monotonic() > deadline:
            raise LoadError("the replicas do not hear of each other")
        time.sleep(0.05)


def get(path: str) -> bytes:
    """A request for what a reader may ask."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n\r\n"
    ).encode()


def rounds_of(options: Options, name: str, once: Callable[[], Figures]) -> list[Figures]:
    """Measure as often as is asked for; each round is shown."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    results = []
    for number in range(rounds):
        results.append(once())
        shown = "  ".join(f"{figure} {value:.2f}" for figure, value in results[-1].items())
        print(f"round {number + 1}/{rounds}  {name}  {shown}", file=sys.stderr)
    return results


def spread(rounds: list[Figures], name: str, form: str) -> str:
    """The cells of a figure: median, lowest, highest."""
    values = [figures[name] for figures in rounds]
    return " | ".join(format(each, form) for each in (median(values), min(values), max(values)))
