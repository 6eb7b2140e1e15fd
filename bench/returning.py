"""Clients that come back at an even pace, each with a position, and read what they missed."""

import json
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final

from bench.servers.keeping import KeepingGateway, join, tail
from bench.wire import PING, PONG, TEXT, LoadError, check_upgraded, masked, split, upgrade

PROBE_SECONDS: Final = 0.005
"""Time between a heartbeat's answer and the next one."""

STALLED_SECONDS: Final = 60.0

_HEAD_END: Final = b"\r\n\r\n"
_AT_A_TIME: Final = 32
_HEARTBEAT: Final = masked(TEXT, b'[null,"1","phoenix","heartbeat",{}]')


@dataclass(frozen=True)
class Visit:
    """What one client comes for.

    Attributes:
        position: Where it stands.
        missed: The numbers of the messages after it, in order.
    """

    topic: str
    position: str
    missed: Sequence[int]


@dataclass(frozen=True)
class Return:
    """How it went.

    Attributes:
        seconds: From the first connect until everybody had what it missed.
        median_ms: From a client's connect until it had what it missed.
        slow_ms: The 99th percentile of the same.
        probes: How many heartbeats another client sent meanwhile.
        stall_ms: The longest that one of them waited for its answer.
        stalls_ms: The 99th percentile of the same.
    """

    seconds: float
    median_ms: float
    slow_ms: float
    probes: int
    stall_ms: float
    stalls_ms: float


class _Client:
    """One client: its handshake, the answer to its join, and then one message after another."""

    __slots__ = ("awaited", "data", "done_at", "joined", "started_at", "upgraded", "visit")

    def __init__(self, visit: Visit, now: float) -> None:
        self.visit = visit
        self.data = b""
        self.upgraded = self.joined = False
        self.awaited = 0
        self.started_at = now
        self.done_at = 0.0


class Returning:
    """All clients, within their process; and one that is there all the time, and sends heartbeats."""

    def __init__(self, server: KeepingGateway) -> None:
        self._server = server
        self._epoll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._prober = -1
        self._asked_at = self._answered_at = 0.0
        self._waits: list[float] = []
        self._missing = 0

    def come(self, visits: Sequence[Visit], seconds: float) -> Return:
        """Come back, evenly over a time; who is next does not wait for who came before."""
        paths = [self._server.path(number) for number in range(len(visits) + 1)]
        self._open_prober(paths.pop())
        self._missing = len(visits)
        started = time.monotonic()
        opened = 0
        while self._missing or self._asked_at:
            now = time.monotonic()
            while opened < len(visits) and now >= started + opened * seconds / len(visits):
                self._open(paths[opened], _Client(visits[opened], now))
                opened += 1
            self._probe(now)
            self._read(0.0005)
            if now > started + seconds + STALLED_SECONDS:
                raise LoadError(f"{self._missing} clients lack something")
        return self._report(started)

    def hear(self, number: int) -> None:
        """Read until everybody has one more message, which must be this one."""
        for client in self._clients.values():
            client.visit = Visit(client.visit.topic, "", [number])
            client.awaited = 0
            client.done_at = 0.0
        self._missing = len(self._clients)
        deadline = time.monotonic() + STALLED_SECONDS
        while self._missing:
            self._read(0.1)
            if time.monotonic() > deadline:
                raise LoadError(f"{self._missing} clients lack the message after those they missed")

    def close(self) -> None:
        for descriptor in self._clients:
            os.close(descriptor)
        self._clients.clear()
        self._epoll.close()
        if self._prober >= 0:
            os.close(self._prober)

    def _open(self, path: str, client: _Client) -> None:
        # on loopback this does not wait for the server, as long as its backlog has room
        wire = socket.create_connection(("127.0.0.1", self._server.port), timeout=5)
        wire.send(upgrade(path))
        wire.setblocking(False)
        descriptor = wire.detach()
        self._clients[descriptor] = client
        self._epoll.register(descriptor, select.EPOLLIN)

    def _open_prober(self, path: str) -> None:
        wire = socket.create_connection(("127.0.0.1", self._server.port), timeout=5)
        wire.sendall(upgrade(path))
        check_upgraded(wire.recv(4096))
        wire.setblocking(False)
        self._prober = wire.detach()
        self._epoll.register(self._prober, select.EPOLLIN)

    def _probe(self, now: float) -> None:
        if self._missing and not self._asked_at and now >= self._answered_at + PROBE_SECONDS:
            os.write(self._prober, _HEARTBEAT)
            self._asked_at = time.monotonic()

    def _read(self, seconds: float) -> None:
        for descriptor, _ in self._epoll.poll(seconds, _AT_A_TIME):
            data = os.read(descriptor, 65536)
            if not data:
                raise LoadError("a client was closed by the server")
            if descriptor == self._prober:
                self._answered_at = time.monotonic()
                self._waits.append(self._answered_at - self._asked_at)
                self._asked_at = 0.0
                continue
            client = self._clients[descriptor]
            client.data += data
            self._feed(descriptor, client)

    def _feed(self, descriptor: int, client: _Client) -> None:
        if not client.upgraded:
            start, end, rest = client.data.partition(_HEAD_END)
            if not end:
                return
            check_upgraded(start)
            client.upgraded, client.data = True, rest
            visit = client.visit
            os.write(descriptor, masked(TEXT, join(visit.topic, visit.position)))
        while (found := split(client.data)) is not None:
            opcode, text, client.data = found
            if opcode == PING:
                os.write(descriptor, masked(PONG, text))
            elif not client.joined:
                _check_recovered(text)
                client.joined = True
                self._progress(client)
            else:
                missed = client.visit.missed
                if client.awaited == len(missed) or not text.endswith(
                    tail(client.visit.topic, missed[client.awaited])
                ):
                    raise LoadError(f"not what comes next: {text[:200]!r}")
                client.awaited += 1
                self._progress(client)

    def _progress(self, client: _Client) -> None:
        if client.awaited == len(client.visit.missed):
            client.done_at = time.monotonic()
            self._missing -= 1

    def _report(self, started: float) -> Return:
        clients = self._clients.values()
        times = [(client.done_at - client.started_at) * 1e3 for client in clients]
        waits = [wait * 1e3 for wait in self._waits]
        return Return(
            seconds=max(client.done_at for client in clients) - started,
            median_ms=median(times),
            slow_ms=quantiles(times, n=100)[98],
            probes=len(waits),
            stall_ms=max(waits),
            stalls_ms=quantiles(waits, n=100, method="inclusive")[98],
        )


def _check_recovered(text: bytes) -> None:
    reply = json.loads(text)
    if reply[3] != "phx_reply" or reply[4]["status"] != "ok":
        raise LoadError(f"join refused: {reply}")
    if reply[4]["response"]["recovered"] is not True:
        raise LoadError(f"nothing recovered: {reply}")
