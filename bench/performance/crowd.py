"""The load: all clients of a server and its publisher, in one process of their own.

It never sleeps while it measures: the kernel would charge the server for waking it, which is no part of
serving clients on other machines.
"""

import contextlib
import os
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from statistics import median, quantiles
from typing import Final

from bench.performance.ledger import Account, Ledger, payload
from bench.remote import Remote
from bench.servers import PAYLOAD_BYTES, Server
from bench.servers.base import check_answer
from bench.waiting import Waiting
from bench.wire import CLOSE, PING, PONG, TEXT, LoadError, check_upgraded, masked, split, upgrade

IN_FLIGHT: Final = 2000
"""Clients on their way in at a time: fewer than any of the servers lets wait to be accepted."""

ARRIVAL_SECONDS: Final = 120.0
BEAT_SECONDS: Final = 0.02
"""From one heartbeat of a client to the next, as long as it is answered in time."""

HEARTBEAT_SECONDS: Final = 30.0
"""From one heartbeat to the next of a client that has nothing to say, as of the package phoenix."""

QUIET_SECONDS: Final = 0.3
"""All is delivered and nothing more has come for so long."""

MISSED_SECONDS: Final = 2.0
"""The same, if something is missing."""

GRACE_SECONDS: Final = 5.0
"""After this time from the last message on, what has not come counts as lost."""

LATE_SECONDS: Final = 1.0
"""A message that takes longer is late."""

_READ_BYTES: Final = 64 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_ANSWER: Final = re.compile(rb'HTTP/1\.1 [0-9]|"error":\{')
_TAKEN: Final = b"HTTP/1.1 2"
_ANSWER_BYTES: Final = len(_TAKEN) - 1
"""Of an answer that may go on in what comes next."""


@dataclass(frozen=True)
class Arrival:
    """What clients saw that came at once.

    Attributes:
        seconds: Until the last one had joined.
        join_ms: From a client's connect to the answer to its join, the median.
        heartbeat_ms: The longest that a client who was there before waited for the answer to a heartbeat.
        waited: Share of the time in which the clients had nothing to do.
    """

    seconds: float
    join_ms: float
    heartbeat_ms: float
    waited: float


@dataclass(frozen=True)
class Delivery:
    """What came of messages that were published.

    Attributes:
        deliveries: How many there were.
        expected: How many there should have been.
        stale: How many came of messages that were published, and counted as lost, before these.
        lost: Of these, how many never came; those of clients that were closed among them.
        late: How many took longer than LATE_SECONDS.
        repeated: How many came a second time.
        closed: How many clients the server closed.
        refused: How many requests to publish it refused, or did not answer.
        seconds: From when the first message was due to the last delivery.
        p50_ms, p99_ms, most_ms: From when a message was due to when a client had it.
        waited: Share of the time in which the clients and the publisher had nothing to do.
        unpunctual_ms: How much later than it was due a message was published, the 99th percentile.
    """

    deliveries: int
    expected: int
    stale: int
    lost: int
    late: int
    repeated: int
    closed: int
    refused: int
    seconds: float
    p50_ms: float
    p99_ms: float
    most_ms: float
    waited: float
    unpunctual_ms: float


class _Newcomer:
    """A client on its way in."""

    def __init__(self, number: int, server: Server) -> None:
        self.number = number
        self.request = upgrade(server.path(number))
        self.started = self.joined = 0.0
        self._steps = list(server.steps(number))
        self._data = b""
        self._upgraded = False

    def take(self, data: bytes) -> Iterator[bytes]:
        """What came; yields what to send. It has joined when it has no steps left."""
        self._data += data
        if not self._upgraded:
            start, end, rest = self._data.partition(_HEAD_END)
            if not end:
                return
            check_upgraded(start)
            self._upgraded, self._data = True, rest
            yield from self._say()
        while self._steps and (found := split(self._data)) is not None:
            _, text, self._data = found
            check_answer(text, self._steps.pop(0)[1])
            yield from self._say()

    @property
    def joining(self) -> bool:
        """Whether it is not in yet."""
        return not self._upgraded or bool(self._steps)

    @property
    def rest(self) -> bytes:
        """What came behind the answer to its join."""
        return self._data

    def _say(self) -> Iterator[bytes]:
        if self._steps and self._steps[0][0]:
            yield masked(TEXT, self._steps[0][0])


class Crowd:
    """All clients, within their process.

    Args:
        topics: How many they are on; with several, as many come as these have members, and all at once.
    """

    def __init__(self, server: Server, topics: int = 1) -> None:
        self._server = server
        self._topics = topics
        self._epoll = select.epoll()
        self._ledger = Ledger(topics, server.separator)
        self._accounts: dict[int, Account] = {}  # by descriptor
        self._closed: list[Account] = []
        self._stalled: list[int] = []
        self._number = 0  # of the next client
        self._heartbeats = _Heartbeats(*server.heartbeat())

    def arrive(self, count: int, beating: int = 0) -> Arrival:
        """So many more connect and join, all at once; some of those before send heartbeats meanwhile."""
        newcomers = [
            _Newcomer(number, self._server) for number in range(self._number, self._number + count)
        ]
        self._number += count
        beating_ones = list(self._accounts)[:beating]
        self._heartbeats.restart()
        arriving: dict[int, _Newcomer] = {}
        waiting = Waiting()
        coming = iter(newcomers)
        joined = 0
        begun = time.perf_counter()
        while joined < count:
            now = time.perf_counter()
            if now > begun + ARRIVAL_SECONDS:
                raise LoadError(f"{count - joined} of {count} clients have not joined")
            self._heartbeats.send(beating_ones, now)
            if len(arriving) < IN_FLIGHT and (newcomer := next(coming, None)):
                arriving[self._open(newcomer)] = newcomer
            for descriptor, _ in waiting.poll(self._epoll, 64):
                if descriptor not in arriving:
                    self._read(descriptor)
                elif self._welcome(descriptor, arriving[descriptor]):
                    del arriving[descriptor]
                    joined += 1
        ended = time.perf_counter()
        self._await_heartbeats()
        return Arrival(
            seconds=ended - begun,
            join_ms=median(each.joined - each.started for each in newcomers) * 1e3,
            heartbeat_ms=self._heartbeats.longest * 1e3,
            waited=waiting.share,
        )

    def beat(self) -> None:
        """Have everybody send a heartbeat, as clients do, and wait for the answers."""
        self._heartbeats.restart()
        self._heartbeats.send(list(self._accounts), time.perf_counter())
        self._await_heartbeats()

    def idle(self, seconds: float) -> None:
        """Each sends a heartbeat every HEARTBEAT_SECONDS, by turns, and nothing else."""
        turns = cycle(list(self._accounts))
        begun, every = time.perf_counter(), HEARTBEAT_SECONDS / len(self._accounts)
        sent = 0
        while (now := time.perf_counter()) < begun + seconds:
            if now >= begun + sent * every:
                sent += 1
                self._heartbeats.restart()
                self._heartbeats.send([next(turns)], now)
            for descriptor, _ in self._epoll.poll(0, 64):
                self._read(descriptor)

    def stall(self, count: int) -> None:
        """Have so many read nothing any more; they count no longer."""
        for descriptor in list(self._accounts)[:count]:
            self._epoll.unregister(descriptor)
            self._stalled.append(descriptor)
            del self._accounts[descriptor]

    def publish(self, count: int, rate: float = 0.0) -> Delivery:
        """Publish so many messages, and see what comes.

        Args:
            rate: How many a second, whether the last is delivered or not; 0 for each when all have the last.
        """
        first = len(self._ledger)
        payloads = [payload(index, PAYLOAD_BYTES) for index in range(first, first + count)]
        names = [
            self._server.topic(index % self._topics * max(1, self._server.members))
            for index in range(first, first + count)
        ]
        self._ledger.begin(
            [self._server.text(each, name) for each, name in zip(payloads, names, strict=True)]
        )
        requests = [
            self._server.publish(each, name) for each, name in zip(payloads, names, strict=True)
        ]
        closed, clients = len(self._closed), len(self._accounts)
        with contextlib.closing(_Publisher(self._server.publish_port, self._epoll)) as publisher:
            waiting = Waiting()
            unpunctual: list[float] = []
            begun = heard = last = time.perf_counter()
            expected = count * clients // self._topics
            got = 0
            while True:
                now = time.perf_counter()
                sent = len(unpunctual)
                if sent < count:
                    due = begun + sent / rate if rate else now
                    if now >= due if rate else got * self._topics >= sent * clients:
                        self._ledger.sent(first + sent, due)
                        unpunctual.append(now - due)
                        publisher.send(requests[sent])
                        last = now
                publisher.go_on()
                for descriptor, _ in waiting.poll(self._epoll, 64):
                    if descriptor == publisher.descriptor:
                        publisher.take()
                    else:
                        self._read(descriptor)
                if len(self._ledger.waits) != got:
                    got, heard = len(self._ledger.waits), time.perf_counter()
                if sent < count and not rate and now > last + GRACE_SECONDS:
                    raise LoadError(f"{sent * clients - got} of {clients} clients lack a message")
                if sent == count:
                    whole = got == expected and publisher.taken + publisher.refused >= count
                    patience = QUIET_SECONDS if whole else MISSED_SECONDS
                    if now > max(heard, last) + patience or now > last + GRACE_SECONDS:
                        break
        waits = self._ledger.waits or [float("nan")]
        percentiles = quantiles(waits, n=100) if len(waits) > 1 else waits * 99
        return Delivery(
            deliveries=len(self._ledger.waits),
            expected=expected,
            stale=self._ledger.stale,
            lost=self._ledger.missing([*self._accounts.values(), *self._closed[closed:]]),
            late=sum(each > LATE_SECONDS for each in waits),
            repeated=self._ledger.repeated,
            closed=len(self._closed) - closed,
            refused=publisher.refused + max(0, count - publisher.taken - publisher.refused),
            seconds=heard - begun,
            p50_ms=percentiles[49] * 1e3,
            p99_ms=percentiles[98] * 1e3,
            most_ms=max(waits) * 1e3,
            waited=waiting.share,
            unpunctual_ms=(quantiles(unpunctual, n=100)[98] if count > 1 else 0.0) * 1e3,
        )

    def close(self) -> None:
        for descriptor in (*self._accounts, *self._stalled):
            os.close(descriptor)
        self._accounts.clear()
        self._epoll.close()

    def _open(self, newcomer: _Newcomer) -> int:
        newcomer.started = time.perf_counter()
        # on loopback this does not wait for the server, as long as its backlog has room
        wire = socket.create_connection(
            ("127.0.0.1", self._server.port_of(newcomer.number)), timeout=5
        )
        wire.setblocking(False)
        wire.send(newcomer.request)
        self._epoll.register(wire, select.EPOLLIN)
        return wire.detach()

    def _welcome(self, descriptor: int, newcomer: _Newcomer) -> bool:
        """Read what came for a client on its way in; returns whether it has joined."""
        data = os.read(descriptor, _READ_BYTES)
        if not data:
            raise LoadError(f"client {newcomer.number} was closed by the server")
        for said in newcomer.take(data):
            os.write(descriptor, said)
        if newcomer.joining:
            return False
        newcomer.joined = time.perf_counter()
        members = self._server.members
        account = self._ledger.open(newcomer.number // members if members else 0)
        account.rest = newcomer.rest
        self._accounts[descriptor] = account
        return True

    def _read(self, descriptor: int) -> None:
        """Read what came for a client that has joined."""
        account = self._accounts[descriptor]
        try:
            if data := os.read(descriptor, _READ_BYTES):
                for each in self._ledger.take(account, data, time.perf_counter()):
                    self._answer(descriptor, *each)
                return
        except ConnectionError:
            pass
        self._epoll.unregister(descriptor)
        os.close(descriptor)
        self._closed.append(self._accounts.pop(descriptor))
        self._heartbeats.under_way.pop(descriptor, None)

    def _answer(self, descriptor: int, opcode: int, text: bytes) -> None:
        if self._heartbeats.take(descriptor, opcode, text):
            return
        if opcode == PING:
            os.write(descriptor, masked(PONG, text))
        elif opcode == TEXT and (answer := self._server.answer(text)) is not None:
            os.write(descriptor, masked(TEXT, answer))
        elif opcode != CLOSE:  # the end of the connection follows it
            raise LoadError(f"unexpected frame {opcode}: {text[:200]!r}")

    def _await_heartbeats(self) -> None:
        deadline = time.perf_counter() + MISSED_SECONDS
        while self._heartbeats.under_way and time.perf_counter() < deadline:
            for descriptor, _ in self._epoll.poll(0.05, 256):
                self._read(descriptor)
        if self._heartbeats.under_way:
            self._heartbeats.longest = MISSED_SECONDS


class _Heartbeats:
    """Heartbeats of clients, each the next when its last is answered.

    Attributes:
        under_way: Descriptor -> when it was sent.
        longest: Seconds that the slowest answer took.
    """

    def __init__(self, frame: bytes, mark: bytes) -> None:
        self._frame = frame
        self._mark = mark
        self._next = 0.0
        self.under_way: dict[int, float] = {}
        self.longest = 0.0

    def restart(self) -> None:
        """Forget what was, and send the next at once."""
        self._next = self.longest = 0.0

    def send(self, descriptors: Sequence[int], now: float) -> None:
        """Have those send one whose last one is answered, if it is time."""
        if now >= self._next:
            self._next = now + BEAT_SECONDS
            for descriptor in descriptors:
                if descriptor not in self.under_way:
                    self.under_way[descriptor] = now
                    with contextlib.suppress(ConnectionError):  # it is read that it was closed
                        os.write(descriptor, self._frame)

    def take(self, descriptor: int, opcode: int, text: bytes) -> bool:
        """Whether a frame is the answer to one."""
        if opcode != TEXT if self._mark else opcode != PONG:
            return False
        if self._mark not in text:
            return False
        if (sent := self.under_way.pop(descriptor, None)) is not None:
            self.longest = max(self.longest, time.perf_counter() - sent)
        return True


class _Publisher:
    """One connection, on which requests do not wait for answers and so stay in order."""

    def __init__(self, port: int, epoll: select.epoll) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._epoll = epoll
        self._to_send = bytearray()
        self._tail = b""
        self.descriptor = self._socket.fileno()
        self.taken = self.refused = 0
        epoll.register(self.descriptor, select.EPOLLIN)

    def send(self, request: bytes) -> None:
        self._to_send += request
        self.go_on()

    def go_on(self) -> None:
        """Send what the server did not read yet."""
        if self._to_send:
            with contextlib.suppress(BlockingIOError):
                del self._to_send[: self._socket.send(self._to_send)]

    def take(self) -> None:
        """Count the answers that came."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise LoadError("the publisher was closed by the server")
        data = self._tail + data
        kept = data[-_ANSWER_BYTES:]
        for found in _ANSWER.finditer(data):
            self.taken += found[0] == _TAKEN
            self.refused += found[0] != _TAKEN
            if found.end() > len(data) - _ANSWER_BYTES:
                kept = data[found.end() :]
        self._tail = kept

    def close(self) -> None:
        self._epoll.unregister(self.descriptor)
        self._socket.close()


class Load(Remote[Crowd]):
    """The clients' process, seen from the benchmark; entering starts it, leaving ends it."""

    def __init__(self, server: Server, topics: int = 1) -> None:
        super().__init__(partial(Crowd, server, topics))

    def arrive(self, count: int, beating: int = 0) -> Arrival:
        """See :meth:`Crowd.arrive`."""
        return self.call(ARRIVAL_SECONDS + 60, Crowd.arrive, count, beating)

    def beat(self) -> None:
        """See :meth:`Crowd.beat`."""
        self.call(60, Crowd.beat)

    def idle(self, seconds: float) -> None:
        """See :meth:`Crowd.idle`."""
        self.call(seconds + 60, Crowd.idle, seconds)

    def stall(self, count: int) -> None:
        """See :meth:`Crowd.stall`."""
        self.call(60, Crowd.stall, count)

    def publish(self, count: int, rate: float = 0.0) -> Delivery:
        """See :meth:`Crowd.publish`."""
        seconds = count / rate if rate else count * GRACE_SECONDS
        return self.call(seconds + 60, Crowd.publish, count, rate)
