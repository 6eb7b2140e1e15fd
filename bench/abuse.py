"""The scenario ``abuse``: what a neighbour notices of attackers, and what they make the gateway hold."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Final

from bench.abusers import ABUSES
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.servers.base import TOPIC, Server
from bench.servers.gateway import Gateway
from bench.wire import LoadError, Wire

ATTACKERS: Final = (1, 20)
CALM_SECONDS: Final = 4.0
ATTACK_SECONDS: Final = 10.0
QUICK_SECONDS: Final = 3.0
BEFORE_SECONDS: Final = 0.7
"""For the attackers' process to start: what is measured begins when they do."""

BEAT_SECONDS: Final = 0.02
CALL_SECONDS: Final = 0.05
SAMPLE_SECONDS: Final = 0.1

HEARTBEAT_MS: Final = 50.0
"""Below it the 99th percentile of a neighbour's heartbeats is to stay."""

HEARTBEAT_TIMES: Final = 5.0
"""So many times what it is without abuse, at most; where that is less than ``FLOOR_MS``, of that."""

FLOOR_MS: Final = 2.0

CALLS: Final = 0.99

BOUND_MIB: Final = 10.6
"""What a user with one socket can make a gateway hold, says docs/operations.md, with default limits."""

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_SECTIONS: Final = """
[[channels]]
pattern = "echo:*"
push = "broadcast"
[[channels]]
pattern = "hall:*"
presence = true
push = "broadcast"
history = { messages = 100, seconds = 300 }
"""


class _Backend(Server):
    """Answers as a push's payload asks."""

    @property
    def url(self) -> str:
        """What to configure as ``upstream.url``."""
        return f"http://127.0.0.1:{self.port}/"

    def command(self, directory: Path) -> list[str]:
        del directory
        return [sys.executable, "-m", "bench.abuse_backend", str(self.port)]


@dataclass
class Noticed:
    """What a neighbour saw in a time.

    Attributes:
        waits: For heartbeats, in seconds.
        calls: Whether each push was answered by the backend, and how long that took, in seconds.
        peak_bytes: Resident memory of the gateway, at most.
    """

    waits: list[float] = field(default_factory=list)
    calls: list[tuple[bool, float]] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def answered(self) -> float:
        """Share of the pushes that the backend answered."""
        return sum(good for good, _ in self.calls) / len(self.calls)

    @property
    def slow_ms(self) -> float:
        """The 99th percentile of waits."""
        return quantiles(self.waits, n=100, method="inclusive")[98] * 1e3


@dataclass(frozen=True)
class Row:
    """One abuse by so many.

    Attributes:
        times: How often they did it.
        mib: Resident memory that came, for each attacker.
    """

    abuse: str
    attackers: int
    calm: Noticed
    attacked: Noticed
    times: int
    mib: float

    @property
    def good(self) -> bool:
        """Whether the neighbour was not harmed, nor the gateway filled, by an attack that came about."""
        return (
            self.times > 0  # else there was no attack
            and self.attacked.slow_ms < HEARTBEAT_MS
            and self.attacked.slow_ms < HEARTBEAT_TIMES * max(FLOOR_MS, self.calm.slow_ms)
            and self.mib < BOUND_MIB
            and self.attacked.answered >= CALLS
        )


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table."""
    seconds = QUICK_SECONDS if options.quick else ATTACK_SECONDS
    rows = []
    for abuse in options.abuses or ABUSES:
        for attackers in ATTACKERS:
            row = suffer(cores, abuse, attackers, seconds)
            rows.append(row)
            print(_line(row), end="", file=sys.stderr, flush=True)
    bad = sum(not row.good for row in rows)
    return (
        "| abuse | attackers | times | heartbeat p99, ms, without | with | worst | MiB an attacker "
        "| another's calls answered | slowest, ms | |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n"
        + "".join(map(_line, rows))
        + f"\n{len(rows)} attacks of {seconds:g} s; {bad or 'none'} above its bounds.\n"
    )


def _line(row: Row) -> str:
    return (
        f"| {row.abuse} | {row.attackers} | {row.times:,} | {row.calm.slow_ms:.1f} "
        f"| {row.attacked.slow_ms:.1f} | {max(row.attacked.waits) * 1e3:.0f} | {row.mib:.1f} "
        f"| {row.attacked.answered:.1%} | {max(s for _, s in row.attacked.calls) * 1e3:.0f} "
        f"| {'' if row.good else 'above'} |\n"
    )


def suffer(cores: Cores, abuse: str, attackers: int, seconds: float) -> Row:
    """One attack on a gateway of its own."""
    backend = _Backend()
    server = Gateway(upstream=backend.url, sections=_SECTIONS, limits="")
    with (
        ServerProcess(backend, Cores(server=cores.load, load=cores.load)),
        ServerProcess(server, cores) as process,
        closing(Wire(server.port)) as quiet,
        closing(Wire(server.port)) as caller,
    ):
        quiet.upgrade(server.path(0))
        server.join(caller, 1)
        with _noticing(quiet, caller, process.pid) as calm:
            time.sleep(min(CALM_SECONDS, 2 * seconds))
        before = calm.peak_bytes
        command = [sys.executable, "-m", "bench.abusers", abuse, str(attackers)]
        command += [str(server.port), str(server.publish_port), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as attack:
            time.sleep(BEFORE_SECONDS)
            with _noticing(quiet, caller, process.pid) as attacked:
                assert attack.stdout is not None
                said = attack.stdout.read()
            if attack.wait() != 0:
                raise LoadError(f"the attackers failed: {abuse}")
    mib = max(0, attacked.peak_bytes - before) / attackers / 2**20
    return Row(abuse, attackers, calm, attacked, int(said), mib)


@contextmanager
def _noticing(quiet: Wire, caller: Wire, pid: int) -> Iterator[Noticed]:
    """Send heartbeats, have the backend called, and look at memory, until it is left."""
    noticed = Noticed()
    over = threading.Event()
    failed: list[Exception] = []

    def beat() -> None:
        started = time.perf_counter()
        quiet.send(b'[null,"h","phoenix","heartbeat",{}]')
        quiet.receive()
        noticed.waits.append(time.perf_counter() - started)

    def call() -> None:
        started = time.perf_counter()
        caller.send(b'["1","c","%b","say",{"mode":"good"}]' % TOPIC.encode())
        while json.loads(answer := caller.receive())[1] != "c":
            pass
        good = json.loads(answer)[4]["status"] == "ok"
        noticed.calls.append((good, time.perf_counter() - started))

    def look() -> None:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        noticed.peak_bytes = max(noticed.peak_bytes, resident)

    def repeat(what: Callable[[], None], pause: float) -> None:
        try:
            while not over.wait(pause):
                what()
        except Exception as problem:  # noqa: BLE001 -- told below
            failed.append(problem)

    threads = [
        threading.Thread(target=repeat, args=each)
        for each in ((beat, BEAT_SECONDS), (call, CALL_SECONDS), (look, SAMPLE_SECONDS))
    ]
    for thread in threads:
        thread.start()
    try:
        yield noticed
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
