"""The scenario ``upstream``: a client's push that a backend answers."""

import json
import sys
import time
from contextlib import closing
from statistics import median
from typing import Final

from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.backend import Backend
from bench.servers.base import PAYLOAD, TOPIC
from bench.servers.gateway import Gateway
from bench.wire import LoadError, Wire

ROUNDS: Final = 3
WARM_UP: Final = 500
PUSHES: Final = 5000
SLOW_SECONDS: Final = 2.5
"""How long heartbeats are sent: less than the slow backend takes."""

_BODY: Final = (
    b'{"type":"gateway.push","session":"%b","user":"0","state":null,"topic":"%b","event":"say","payload":%b}'
    % (b"x" * 14, TOPIC.encode(), PAYLOAD)
)


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    pushes = 500 if options.quick else PUSHES
    results = []
    for number in range(rounds):
        results.append(upstream(cores, pushes) | heartbeats(cores))
        shown = "  ".join(f"{figure} {value:.2f}" for figure, value in results[-1].items())
        print(f"round {number + 1}/{rounds}  upstream  {shown}", file=sys.stderr)
    middle = {name: median(figures[name] for figures in results) for name in results[0]}
    return (
        "| p50 of a push, ms | of the backend alone | the gateway adds | gateway CPU µs a push | user "
        "| kernel | heartbeat beside a slow backend, ms, median | worst |\n"
        "|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        f"| {middle['push_ms']:.2f} | {middle['backend_ms']:.2f} | {middle['added_ms']:.2f} "
        f"| {middle['cpu_us']:.0f} | {middle['user_us']:.0f} | {middle['kernel_us']:.0f} "
        f"| {middle['heartbeat_ms']:.2f} | {middle['worst_heartbeat_ms']:.1f} |\n"
        f"\n{pushes:,} pushes of 128 bytes, one after another; medians of {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}.\n"
    )


def upstream(cores: Cores, pushes: int) -> Figures:
    """One run: the backend shares the clients' core, and they take turns."""
    backend = Backend()
    server = Gateway(upstream=backend.url)
    with (
        ServerProcess(backend, Cores(server=cores.load, load=cores.load)),
        ServerProcess(server, cores) as process,
        closing(Wire(backend.port)) as direct,
        closing(Wire(server.port)) as client,
    ):
        server.join(client, 0)
        _push(client, WARM_UP)
        before = process.cpu()
        pushed = _push(client, pushes)
        used = process.cpu() - before
        asked = _ask(direct, backend.callback(_BODY), pushes)
    return {
        "push_ms": median(pushed) * 1e3,
        "backend_ms": median(asked) * 1e3,
        "added_ms": (median(pushed) - median(asked)) * 1e3,
        "cpu_us": (used.user + used.kernel) / pushes * 1e6,
        "user_us": used.user / pushes * 1e6,
        "kernel_us": used.kernel / pushes * 1e6,
    }


def heartbeats(cores: Cores) -> Figures:
    """How long heartbeats take while a push of the same socket waits for a backend that takes 3 s."""
    backend = Backend()
    server = Gateway(upstream=backend.slow_url)
    with (
        ServerProcess(backend, Cores(server=cores.load, load=cores.load)),
        ServerProcess(server, cores),
        closing(Wire(server.port)) as client,
    ):
        server.join(client, 0)
        client.send(b'["1","0","%b","say",%b]' % (TOPIC.encode(), PAYLOAD))
        times = []
        until = time.monotonic() + SLOW_SECONDS
        while time.monotonic() < until:
            time.sleep(0.01)
            started = time.perf_counter()
            client.send(b'[null,"h","phoenix","heartbeat",{}]')
            answer = json.loads(client.receive())
            times.append(time.perf_counter() - started)
            if answer[2] != "phoenix":
                raise LoadError(f"the backend answered early: {answer}")
    return {"heartbeat_ms": median(times) * 1e3, "worst_heartbeat_ms": max(times) * 1e3}


def _push(client: Wire, count: int) -> list[float]:
    """Push so often, each when the last is answered; how long each took, in seconds."""
    times = []
    for number in range(count):
        message = b'["1","%d","%b","say",%b]' % (number + 2, TOPIC.encode(), PAYLOAD)
        started = time.perf_counter()
        client.send(message)
        answer = client.receive()
        times.append(time.perf_counter() - started)
        if json.loads(answer)[4] != {"status": "ok", "response": {}}:
            raise LoadError(f"a wrong answer: {answer[:200]!r}")
    return times


def _ask(wire: Wire, request: bytes, count: int) -> list[float]:
    """Send the same to the backend itself; how long each answer took, in seconds."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        wire.ask(request)
        wire.answered()
        times.append(time.perf_counter() - started)
    return times
