"""A crowd that is moved by a deploy: small rooms, all on one replica, which drains; watchers on another.

The clients are as light as can be: raw frames, one topic each. They come back to the replica that has none of
the rooms, each with its last position.
"""

import asyncio
import json
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.faults.lab import Lab
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = 3
"""Members of each room."""

WATCHED = 50
"""Rooms with a watcher, at most."""

PACE = 250.0
"""Clients that come in a second, before the drain."""

AGAIN_SECONDS = (0.01, 0.2)
WITHIN_SECONDS = 240.0
SHOWN_SECONDS = 13.0
"""Longer than an entry is shown whose socket was moved: a leave would have come by then."""

SERVICE_RESTART = 1012
SHOWN = 6

_CLOSE, _TEXT = 0x8, 0x1


@dataclass
class Moved:
    """What came of it.

    Attributes:
        closed: Seconds from the first close to each.
        codes: Of closes, counted.
        recovered: Joins after the move, by what they were told.
        seen: Each ``presence_diff`` that watchers got after the drain began.
        told_late: How many those who moved got: the first of a room on a replica that knew nothing of it may
            be told of the others a moment after it joined, where the replica is busy.
        back_after: Seconds from the last close until all were back.
    """

    sockets: int
    window: float
    closed: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)
    told_late: int = 0
    back_after: float = 0.0

    @property
    def even(self) -> tuple[int, int]:
        """The least and the most closes in a tenth of the time they took."""
        tenth = max(self.closed) / 10
        bins = Counter(min(9, int(at / tenth)) for at in self.closed)
        return min(bins[n] for n in range(10)), max(bins.values())

    @property
    def problems(self) -> list[str]:
        """What broke a promise."""
        found = []
        if self.codes != {SERVICE_RESTART: self.sockets}:
            found.append(f"closed with {dict(self.codes)}")
        if self.recovered != {"recovered": self.sockets}:
            found.append(f"joins were told {dict(self.recovered)}")
        if self.seen:
            found.append("\n  ".join([f"watchers saw {len(self.seen)}:", *self.seen[:SHOWN]]))
        if self.even[1] > self.sockets / 4:
            found.append(f"not evenly: {self.even[1]} of {self.sockets} in a tenth of the time")
        return found


class _Client(asyncio.Protocol):
    """One client; it comes back wherever its crowd says."""

    def __init__(self, crowd: "Crowd", number: int, topic: str) -> None:
        self.joined = False
        self.position: str | None = None
        self._crowd = crowd
        self._number = number
        self._topic = topic
        self._data = b""
        self._upgraded = False
        self._transport: asyncio.Transport

    async def connect(self, port: int) -> None:
        """Come, and join."""
        self._data, self._upgraded, self.joined = b"", False, False
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", port)
        except OSError:
            loop.call_later(1, self._crowd.come, self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        query = urlencode({"vsn": "2.0.0", "token": token(f"c{self._number}")})
        transport.write(
            f"GET /socket/websocket?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._upgraded:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                asyncio.get_running_loop().call_later(1, self._crowd.come, self)
                return
            self._upgraded, self._data = True, rest
            self._join()
        while (found := _frame(self._data)) is not None:
            opcode, payload, self._data = found
            self._take(opcode, payload)

    def end(self) -> None:
        """Go."""
        self._transport.abort()

    def _join(self) -> None:
        text = json.dumps(["1", "1", self._topic, "phx_join", {"resume": self.position}]).encode()
        head = bytes((0x81, 0x80 | 126)) + len(text).to_bytes(2, "big")
        if len(text) < 126:
            head = bytes((0x81, 0x80 | len(text)))
        self._transport.write(head + b"\0\0\0\0" + text)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self.joined = False
            self._transport.close()
            self._crowd.closed(self, int.from_bytes(payload[:2], "big"))
        if opcode != _TEXT:
            return
        _, ref, _, event, said = json.loads(payload)
        if event == "phx_reply" and ref == "1":
            self._answered(said)
        elif event == "presence_diff":
            self._crowd.diffs.append(f"{time.monotonic():.3f} {self._topic}: {json.dumps(said)}")
        elif isinstance(ref, str) and ref.startswith("@"):
            self.position = ref

    def _answered(self, said: dict[str, Any]) -> None:
        response = said["response"]
        if said["status"] != "ok":
            asyncio.get_running_loop().call_later(0.5, self._join)
            return
        self.joined, self.position = True, response["position"]
        label = "recovered" if response["recovered"] is True else response["reason"] or "fresh"
        self._crowd.answers[label] += 1


class Crowd:
    """All clients.

    Attributes:
        port: Where they come to.
        answers: To joins, counted.
        diffs: Each ``presence_diff`` that any of them got.
        closes: When each was closed, and with what.
    """

    def __init__(self, port: int, rooms: int, members: int, first: int) -> None:
        self.port = port
        self.answers: Counter[str] = Counter()
        self.diffs: list[str] = []
        self.closes: list[tuple[float, int]] = []
        self.clients = [
            _Client(self, first + number, f"hall:{number % rooms}") for number in range(members)
        ]
        self._coming: set[asyncio.Task[None]] = set()

    async def gather(self) -> None:
        """Have all come, at an even pace."""
        for client in self.clients:
            self.come(client)
            await asyncio.sleep(1 / PACE)
        await eventually(self.complete, WITHIN_SECONDS, "all have joined")

    def complete(self) -> bool:
        """Whether all are there."""
        return all(client.joined for client in self.clients)

    def come(self, client: _Client) -> None:
        """Have one connect."""
        task = asyncio.ensure_future(client.connect(self.port))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def closed(self, client: _Client, code: int) -> None:
        """One was sent away; it comes back in a moment."""
        self.closes.append((time.monotonic(), code))
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(*AGAIN_SECONDS), self.come, client)

    def end(self) -> None:
        """All go."""
        for client in self.clients:
            client.end()


async def move(sockets: int, window: float, directory: Path) -> Moved:
    """Have so many sockets drained in a time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rooms = max(1, sockets // ROOM)
    config = {
        "drain": {"delay_seconds": 0.5, "window_seconds": window},
        "limits": {"idle_timeout_seconds": 3600},  # they send no heartbeats
    }
    async with Lab(directory, config=config) as lab:
        old, new, beside = lab.replicas
        watchers = Crowd(beside.public_port, rooms, min(WATCHED, rooms), first=sockets)
        crowd = Crowd(old.public_port, rooms, sockets, first=0)
        await watchers.gather()
        await crowd.gather()
        await _quiet(crowd, watchers)
        assert crowd.diffs, "who comes is seen"
        assert watchers.diffs, "on the other replica, too"
        crowd.diffs.clear()
        watchers.diffs.clear()
        crowd.answers.clear()
        crowd.port = new.public_port
        old.terminate()
        await eventually(lambda: len(crowd.closes) >= sockets, WITHIN_SECONDS, "all were closed")
        await eventually(crowd.complete, WITHIN_SECONDS, "all are back")
        back = time.monotonic()
        assert await asyncio.to_thread(old.wait) == 0
        await asyncio.sleep(SHOWN_SECONDS)
        first, last = crowd.closes[0][0], crowd.closes[-1][0]
        moved = Moved(
            sockets,
            window,
            [at - first for at, _ in crowd.closes],
            Counter(code for _, code in crowd.closes),
            Counter(crowd.answers),
            watchers.diffs,
            len(crowd.diffs),
            max(0.0, back - last),
        )
        crowd.end()
        watchers.end()
    return moved


async def _quiet(*crowds: Crowd) -> None:
    """Wait until no more presence comes."""
    seen = -1
    while (now := sum(len(crowd.diffs) for crowd in crowds)) != seen:
        seen = now
        await asyncio.sleep(2)


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Opcode and payload of a server's frame, and what follows; None if it is not all there."""
    if len(data) < 2:
        return None
    length, start = data[1], 2
    if length > 125:
        start = 4 if length == 126 else 10
        length = int.from_bytes(data[2:start], "big")
    if len(data) < max(start, start + length):
        return None
    return data[0] & 0x0F, data[start : start + length], data[start + length :]
