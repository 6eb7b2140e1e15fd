"""The scenario ``history``: what it costs a replica to deliver a stored message, beside one that is not."""

import contextlib
import os
import select
import sys
import time
from functools import partial
from statistics import median
from typing import Final

from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.remote import Remote
from bench.report import ratio
from bench.scenarios import Figures
from bench.servers.gateway import check_joined
from bench.servers.keeping import KeepingGateway, join, single, tail
from bench.wire import TEXT, LoadError, Wire, split

ROUNDS: Final = 3
SIZES: Final = (10, 100, 1000)
MOST_MESSAGES: Final = 4000
DELIVERIES: Final = 100_000
"""Of each size and kind in a round, unless it takes too many messages."""

BLOCKS: Final = 4
"""Kinds take turns so often."""

WARM_UP: Final = 20
DELIVER_SECONDS: Final = 20.0

_TOPICS: Final = {"ephemeral": "room:live", "stored": "kept:live"}


class Subscribers:
    """All clients, within their process: each is on one topic, every other one with positions.

    Args:
        publisher: The replica where messages are published, which is not the clients'.
    """

    def __init__(self, server: KeepingGateway, publisher: KeepingGateway) -> None:
        self._server = server
        self._publisher = publisher
        self._epolls: dict[str, select.epoll] = {}
        self._clients: dict[str, dict[int, bool]] = {}  # topic -> descriptor -> has positions
        self._number = 0

    def join(self, count: int) -> None:
        """Connect and join until there are so many on each topic, one after another."""
        for topic in _TOPICS.values():
            epoll = self._epolls.setdefault(topic, select.epoll())
            clients = self._clients.setdefault(topic, {})
            while len(clients) < count:
                wire = Wire(self._server.port)
                resumes = topic.startswith("kept") and len(clients) % 2 == 0
                wire.upgrade(self._server.path(len(clients)))
                wire.send(join(topic, resumes=resumes))
                check_joined(wire.receive())
                descriptor = wire.detach()
                clients[descriptor] = resumes
                epoll.register(descriptor, select.EPOLLIN)

    def deliver(self, topic: str, messages: int) -> None:
        """Publish so many messages, each when all clients of the topic have the one before."""
        wire = Wire(self._publisher.publish_port)
        with contextlib.closing(wire):
            for _ in range(messages):
                self._number += 1
                wire.ask(single(topic, self._number))
                self._collect(topic, tail(topic, self._number))
                wire.answered()

    def close(self) -> None:
        for clients in self._clients.values():
            for descriptor in clients:
                os.close(descriptor)
        for epoll in self._epolls.values():
            epoll.close()

    def _collect(self, topic: str, end: bytes) -> None:
        """Read until everybody has the message; it never sleeps, see :class:`bench.load.Clients`."""
        epoll, clients = self._epolls[topic], self._clients[topic]
        deadline = time.monotonic() + DELIVER_SECONDS
        missing = len(clients)
        expected: dict[bool, bytes] = {}
        while missing:
            for descriptor, _ in epoll.poll(0, 1024):
                data = os.read(descriptor, 4096)
                resumes = clients[descriptor]
                if data != expected.get(resumes):
                    # the first of its kind: the others must get the very same bytes
                    if resumes in expected:
                        raise LoadError(f"not what others got: {data[:200]!r}")
                    _check(data, end, resumes=resumes)
                    expected[resumes] = data
                missing -= 1
            if missing and time.monotonic() > deadline:
                raise LoadError(f"{missing} of {len(clients)} clients lack a message")


def run(cores: Cores, options: Options) -> str:
    """Measure all numbers of subscribers; returns the table."""
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    sizes = (10, 100) if options.quick else SIZES
    deliveries = 5000 if options.quick else DELIVERIES
    results: dict[int, list[Figures]] = {size: [] for size in sizes}
    for number in range(rounds):
        for size, figures in live(cores, sizes, deliveries).items():
            results[size].append(figures)
            shown = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"round {number + 1}/{rounds}  {size} subscribers  {shown}", file=sys.stderr)
    rows = "".join(_row(size, figures) for size, figures in results.items())
    return (
        "| subscribers | CPU µs a delivery, ephemeral | stored | ratio |\n|--:|--:|--:|--:|\n"
        f"{rows}\nHalf of the subscribers of stored messages have positions; medians of {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}; in brackets the lowest and highest ratio of a round.\n"
    )


def live(cores: Cores, sizes: tuple[int, ...], deliveries: int) -> dict[int, Figures]:
    """One round: for each number of subscribers, the CPU time of the replica that has them."""
    beside = Cores(server=cores.load, load=cores.load)
    found: dict[int, Figures] = {}
    with Nats(cores.load) as nats:
        server, publisher = KeepingGateway(nats.url), KeepingGateway(nats.url)
        make = partial(Subscribers, server, publisher)
        with (
            ServerProcess(publisher, beside),
            ServerProcess(server, cores) as process,
            Remote(make) as clients,
        ):
            for size in sizes:
                clients.call(60.0, Subscribers.join, size)
                messages = min(MOST_MESSAGES, deliveries // size) // BLOCKS
                used = dict.fromkeys(_TOPICS, 0.0)
                for topic in _TOPICS.values():
                    clients.call(60.0, Subscribers.deliver, topic, WARM_UP)
                for _ in range(BLOCKS):
                    for kind, topic in _TOPICS.items():
                        before = process.cpu()
                        clients.call(600.0, Subscribers.deliver, topic, messages)
                        cpu = process.cpu() - before
                        used[kind] += cpu.user + cpu.kernel
                found[size] = {
                    f"{kind}_us": seconds / (messages * BLOCKS * size) * 1e6
                    for kind, seconds in used.items()
                }
    return found


def _check(data: bytes, end: bytes, *, resumes: bool) -> None:
    frame = split(data)
    if frame is None or frame[0] != TEXT or frame[2] or not frame[1].endswith(end):
        raise LoadError(f"not the next message: {data[:200]!r}")
    start = frame[1].removesuffix(end)
    if not (start.startswith(b'[null,"@') if resumes else start == b"[null,null"):
        raise LoadError(f"not as it was asked for: {data[:200]!r}")


def _row(size: int, rounds: list[Figures]) -> str:
    plain, stored = (
        [figures[name] for figures in rounds] for name in ("ephemeral_us", "stored_us")
    )
    return f"| {size:,} | {median(plain):.2f} | {median(stored):.2f} | {ratio(stored, plain)} |\n"
