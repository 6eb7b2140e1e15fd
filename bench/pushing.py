"""The part ``push``: what a push costs that the gateway broadcasts and answers."""

import os
import select
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Final

from bench.beside import Row, compare
from bench.builds import Build
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.remote import Remote
from bench.scenarios import Figures
from bench.servers.base import PAYLOAD
from bench.servers.gateway import EquippedGateway, check_joined
from bench.waiting import Waiting, check_waited
from bench.wire import TEXT, LoadError, Wire, masked, unmasked

PUSHES: Final = 40_000
WARM_UP: Final = 1000
AT_A_TIME: Final = (1, 64)
"""Clients that push, each when its last push is answered."""

PUSH_SECONDS: Final = 300.0
"""Time all pushes of one kind may take."""

_KINDS: Final = {"echo": "and its echo", "mute": "without echo"}


class Pushers:
    """All clients, within their process; each is alone on a topic of its own."""

    def __init__(self, server: EquippedGateway) -> None:
        self._server = server
        self._number = 1  # the ref of the pushes under way

    def push(self, kind: str, clients: int, pushes: int) -> float:
        """Connect, join, and push so often in all; returns the share of the time spent waiting."""
        with closing(select.epoll()) as epoll:
            topics: dict[int, bytes] = {}
            try:
                for number in range(clients):
                    topic = f"{kind}:{number}".encode()
                    wire = Wire(self._server.port)
                    wire.upgrade(self._server.path(number))
                    wire.send(b'["1","1","%b","phx_join",{}]' % topic)
                    check_joined(wire.receive())
                    descriptor = wire.detach()
                    topics[descriptor] = topic
                    epoll.register(descriptor, select.EPOLLIN)
                return self._push(epoll, topics, kind, pushes // clients)
            finally:
                for descriptor in topics:
                    os.close(descriptor)

    def close(self) -> None:
        """There is nothing left to give back."""

    def _push(self, epoll: select.epoll, topics: dict[int, bytes], kind: str, pushes: int) -> float:
        """Have each client push so often.

        It never sleeps meanwhile, see :class:`bench.load.Clients`.
        """
        numbers = dict.fromkeys(topics, 1)
        partial = dict.fromkeys(topics, b"")
        deadline = time.monotonic() + PUSH_SECONDS
        for descriptor, topic in topics.items():
            os.write(descriptor, _frame(topic, 1))
        under_way = len(topics)
        waiting = Waiting()
        while under_way:
            ready = waiting.poll(epoll, 256)
            for descriptor, _ in ready:
                topic, number = topics[descriptor], numbers[descriptor]
                data = partial[descriptor] + os.read(descriptor, 4096)
                if not _is_answered(data, topic, number, echo=kind == "echo"):
                    partial[descriptor] = data
                    continue
                partial[descriptor] = b""
                numbers[descriptor] = number + 1
                if number < pushes:
                    os.write(descriptor, _frame(topic, number + 1))
                else:
                    under_way -= 1
            if not ready and time.monotonic() > deadline:
                raise LoadError(f"{under_way} clients have no answer to a push")
        return waiting.share


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the table."""
    pushes = 2000 if options.quick else PUSHES
    rows = {
        _name(kind, clients): Row(
            f"CPU µs a push with reply {_KINDS[kind]}, {clients} at a time", 1
        )
        for clients in AT_A_TIME
        for kind in _KINDS
    }
    return compare(
        rows,
        lambda build: push(build, cores, pushes),
        builds,
        options,
        f"{pushes:,} pushes of 128 bytes on the memory bus, each heard by its sender alone or by nobody",
    )


def push(build: Build, cores: Cores, pushes: int) -> Figures:
    """One round of one build: all kinds on one server."""
    figures: Figures = {}
    server = EquippedGateway(build)
    with ServerProcess(server, cores) as process, Remote(partial(Pushers, server)) as clients:
        for at_a_time in AT_A_TIME:
            for kind in _KINDS:
                clients.call(PUSH_SECONDS + 30, Pushers.push, kind, at_a_time, WARM_UP)
                before = process.cpu()
                waited = clients.call(PUSH_SECONDS + 30, Pushers.push, kind, at_a_time, pushes)
                used = process.cpu() - before
                check_waited(waited)
                name = _name(kind, at_a_time)
                figures[name] = (used.user + used.kernel) / pushes * 1e6
                figures[f"{name}_waited"] = waited
    return figures


def _name(kind: str, clients: int) -> str:
    return f"{kind}_{clients}"


def _frame(topic: bytes, number: int) -> bytes:
    return masked(TEXT, b'["1","%d","%b","say",%b]' % (number + 1, topic, PAYLOAD))


def _is_answered(data: bytes, topic: bytes, number: int, *, echo: bool) -> bool:
    """Whether the reply is there, and the echo, in either order; False while something is missing.

    Raises:
        LoadError: It is anything else.
    """
    reply = unmasked(
        b'["1","%d","%b","phx_reply",{"status":"ok","response":{}}]' % (number + 1, topic)
    )
    message = unmasked(b'[null,null,"%b","say",%b]' % (topic, PAYLOAD)) if echo else b""
    if data in (reply + message, message + reply):
        return True
    if len(data) >= len(reply) + len(message):
        raise LoadError(f"not the answer to a push: {data[:300]!r}")
    return False
