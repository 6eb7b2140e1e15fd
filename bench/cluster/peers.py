"""Replicas that have no sockets: their genuine messages, all over one connection to NATS."""

import random
import socket
import time
from collections import deque
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from bench.wire import TIMEOUT_SECONDS, LoadError
from gateway.bus.envelope import Control, control_in, encode_control
from gateway.bus.subjects import Subjects
from gateway.tracker.entry import PRESENCE, Entry
from gateway.tracker.messages import (
    Ask,
    Beat,
    Delta,
    Digest,
    Farewell,
    Hello,
    State,
    TrackerMessage,
    decode,
    encode,
)
from gateway.tracker.service import TICK_SECONDS

PEER: Final = "peer-"
ALL_KEYS: Final = 10_000_000
"""Keys of the cluster that is played; strangers' messages are on some of them."""

FIRST_BEAT_SECONDS: Final = 2.0
TURN_SECONDS: Final = 0.02
TOGETHER_SECONDS: Final = 0.25
"""Beats that come closer were kept waiting by the machine."""

_CONNECT: Final = (
    b'CONNECT {"verbose":false,"pedantic":false,"echo":false,"headers":true,'
    b'"no_responders":true,"name":"peers"}\r\n'
)


@dataclass
class Peer:
    """One of them: which run of it, and which topics it has somebody on."""

    name: str
    incarnation: int
    topics: list[str]


class Peers:
    """The replicas, within their process.

    They beat as often as the observed one does, which they listen to, and answer what it asks for.

    Args:
        url: Of nats-server.
        prefix: Of the subjects.
    """

    def __init__(self, url: str, prefix: str = "gateway") -> None:
        address = urlsplit(url)
        self._subjects = Subjects(prefix)
        self._wire = socket.create_connection((address.hostname, address.port), TIMEOUT_SECONDS)
        self._wire.setblocking(False)
        self._data = b""
        self._out = [_CONNECT, b"SUB %b 1\r\n" % self._subjects.replicas.encode()]
        self._peers: list[Peer] = []
        self._by_subject: dict[str, Peer] = {}
        self._heard_at: dict[str, float] = {}
        self._between = deque([FIRST_BEAT_SECONDS], maxlen=5)  # beats of the observed one, seconds
        self._random = random.Random(1)
        self._write()

    def meet(self, count: int) -> None:
        """Be so many, and say so."""
        for number in range(len(self._peers), count):
            peer = Peer(f"{PEER}{number}", 1, [])
            self._peers.append(peer)
            subject = self._subjects.replica(peer.name)
            self._by_subject[subject] = peer
            self._out.append(b"SUB %b 1\r\n" % subject.encode())
            self._beat(peer)
        self._write()

    def share(self, topics: list[str], holders: int) -> None:
        """Have somebody present on each of these topics, on so many of them."""
        peers = cycle(self._peers)
        for topic in topics:
            self._out.append(b"SUB %b 1\r\n" % self._subjects.topic(topic).encode())
            for peer in islice(peers, holders):
                peer.topics.append(topic)
                self._hello(peer, topic)
                self._write()

    def spend(
        self, seconds: float, digests: float = 0.0, strangers: float = 0.0, restarts: float = 0.0
    ) -> int:
        """Beat for a while; returns how often that was.

        Args:
            digests: How many are sent each second, of shared topics in turn.
            strangers: Changes each second on keys that the observed replica does not hold.
            restarts: Peers each second that say farewell and begin a new run.
        """
        shared = cycle([(peer, topic) for peer in self._peers for topic in peer.topics])
        beating, leaving = cycle(self._peers), cycle(self._peers)
        last = time.monotonic()
        end = last + seconds
        beats, ticked = 0, last // TICK_SECONDS
        self._read()
        self._heard_at.clear()  # nobody listened meanwhile
        due = dict.fromkeys(("beat", "digest", "stranger", "restart"), 0.0)
        while last < end:
            now = min(time.monotonic(), end)
            passed, last = now - last, now
            for name, rate in (
                ("beat", len(self._peers) / median(self._between)),
                ("digest", digests),
                ("stranger", strangers),
                ("restart", restarts),
            ):
                due[name] += passed * rate
            if now // TICK_SECONDS != ticked:  # as replicas do, whose ticks fall together
                ticked = now // TICK_SECONDS
                for _ in range(int(due["beat"])):
                    self._beat(next(beating))
                    beats += 1
                for _ in range(int(due["digest"])):
                    self._digest(*next(shared))
                due |= {name: due[name] % 1 for name in ("beat", "digest")}
            for _ in range(int(due["stranger"])):
                self._stranger()
            for _ in range(int(due["restart"])):
                self._restart(next(leaving))
            due |= {name: due[name] % 1 for name in ("stranger", "restart")}
            self._write()
            self._read()
            time.sleep(TURN_SECONDS)
        return beats

    def close(self) -> None:
        self._wire.close()

    def _beat(self, peer: Peer) -> None:
        self._send(
            self._subjects.replicas,
            Beat(
                peer.name,
                peer.incarnation,
                sessions=len(peer.topics),
                connections=len(peer.topics),
                time=time.time(),
            ),
        )

    def _hello(self, peer: Peer, topic: str) -> None:
        key = PRESENCE + topic
        message = Hello(peer.name, peer.incarnation, key, 1, (_entry(peer, topic),))
        self._send(self._subjects.topic(topic), message)

    def _digest(self, peer: Peer, topic: str) -> None:
        message = Digest(peer.name, peer.incarnation, PRESENCE + topic, 1, 1)
        self._send(self._subjects.topic(topic), message)

    def _stranger(self) -> None:
        topic = f"room:strangers-{self._random.randrange(ALL_KEYS)}"
        peer = self._peers[0]
        message = Delta(peer.name, peer.incarnation, PRESENCE + topic, 0, 1, (_entry(peer, topic),))
        self._send(self._subjects.topic(topic), message)

    def _restart(self, peer: Peer) -> None:
        self._send(self._subjects.replicas, Farewell(peer.name, peer.incarnation))
        peer.incarnation += 1
        self._beat(peer)
        for topic in peer.topics:
            self._hello(peer, topic)

    def _send(self, subject: str, message: TrackerMessage) -> None:
        body = encode_control(Control.TRACKER, encode(message))
        self._out.append(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body))

    def _write(self) -> None:
        data = memoryview(b"".join(self._out))
        self._out.clear()
        while data:
            try:
                data = data[self._wire.send(data) :]
            except BlockingIOError:
                self._read()
                time.sleep(TURN_SECONDS / 10)

    def _read(self) -> None:
        try:
            while data := self._wire.recv(1 << 20):
                self._data += data
            raise LoadError("nats-server has closed the connection")
        except BlockingIOError:
            pass
        position = 0
        while (end := self._data.find(b"\r\n", position)) >= 0:
            line = self._data[position:end]
            if not line.startswith((b"MSG ", b"HMSG ")):
                if line == b"PING":
                    self._out.append(b"PONG\r\n")
                elif line.startswith(b"-ERR"):
                    raise LoadError(line.decode())
                position = end + 2
                continue
            words = line.split()
            size = int(words[-1])
            if len(self._data) < end + 4 + size:
                break
            if words[0] == b"MSG":
                self._take(words[1].decode(), self._data[end + 2 : end + 2 + size])
            position = end + 4 + size
        self._data = self._data[position:]

    def _take(self, subject: str, body: bytes) -> None:
        control = control_in(body)
        if control is None or control[0] is not Control.TRACKER:
            return
        message = decode(control[1])
        if isinstance(message, Beat) and subject == self._subjects.replicas:
            now = time.monotonic()
            between = now - self._heard_at.get(message.replica, now)
            if between > TOGETHER_SECONDS:
                self._between.append(between)
            self._heard_at[message.replica] = now
        elif isinstance(message, Ask):
            self._answer(subject, message)

    def _answer(self, subject: str, ask: Ask) -> None:
        peer = self._by_subject.get(subject)
        topic = ask.key.removeprefix(PRESENCE)
        if peer is None:
            return
        entries = (_entry(peer, topic),) if topic in peer.topics else ()
        state = State(peer.name, peer.incarnation, ask.key, 1 if entries else 0, entries)
        self._send(self._subjects.replica(ask.replica), state)


def _entry(peer: Peer, topic: str) -> Entry:
    name = f"{peer.name}-{peer.incarnation}-{topic}"
    return Entry(id=name, user=name, ref=name, connected_at=1.7e9, online_at=1.7e9)
