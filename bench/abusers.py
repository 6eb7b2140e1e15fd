"""Attackers, in a process of their own: ``python -m bench.abusers ABUSE COUNT PORT API_PORT SECONDS``.

Each abuse is what one attacker does until its time is over. The process says how often they did it.
"""

import asyncio
import gzip
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from bench.servers.base import post
from bench.servers.gateway import API_KEY, Gateway
from bench.wire import CLOSE, PING, TEXT, check_upgraded, masked, upgrade

CONTINUATION: Final = 0x0
READ_BYTES: Final = 1 << 18
RECEIVE_BYTES: Final = 16_384
TARGETS: Final = 1000
AT_ONCE: Final = 100
"""Messages of one write of a flood."""

SLOTS: Final = 110
"""More sockets than a replica has calls under way, ``upstream.max_in_flight``; all attackers together."""

MASS: Final = 200
"""Sockets of one user, at most, that an attacker of ``session masses`` holds."""

AGAIN_SECONDS: Final = 0.02

_GZIPPED: Final = gzip.compress(b"\n" * 2**21)


class Attacker:
    """One of them.

    Attributes:
        number: Tells them apart; each is a user of its own.
        count: How many of them there are.
        done: How often it did what it does.
    """

    def __init__(self, number: int, count: int, port: int, api_port: int, until: float) -> None:
        self.number = number
        self.count = count
        self.done = 0
        self._port = port
        self._api_port = api_port
        self._until = until
        self._paths = Gateway()
        self._held: list[Socket] = []

    @property
    def on(self) -> bool:
        """Whether it is to go on."""
        return time.monotonic() < self._until

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return max(0.0, self._until - time.monotonic())

    @property
    def topic(self) -> str:
        """Its own, of broadcasts."""
        return f"echo:{self.number}"

    def path(self) -> str:
        """What it asks for a WebSocket."""
        return self._paths.path(1_000_000 + self.number)

    async def connect(self, *, api: bool = False, reads: bool = True) -> "Socket":
        """A TCP connection; with ``reads`` what comes is thrown away."""
        tcp = socket.socket()
        if not reads:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        tcp.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(tcp, ("127.0.0.1", self._api_port if api else self._port))
        reader, writer = await asyncio.open_connection(sock=tcp, limit=RECEIVE_BYTES)
        return Socket(reader, writer, self.path())

    async def open(self, *, reads: bool = True, join: str = "", params: str = "{}") -> "Socket":
        """A WebSocket, joined to a topic if one is given."""
        found = await self.connect(reads=reads)
        await found.upgrade()
        if join:
            await found.text(f'["1","1","{join}","phx_join",{params}]')
        if reads:
            found.discard()
        self._held.append(found)
        return found

    async def loop(self, what: Callable[[], Awaitable[None]]) -> None:
        """Do something over and over, whatever becomes of it."""
        while self.on:
            try:
                await what()
                self.done += 1
            except (OSError, asyncio.IncompleteReadError, AssertionError):
                await asyncio.sleep(AGAIN_SECONDS)

    async def flood(self, data: bytes, *, join: str = "", params: str = "{}") -> None:
        """Write the same over and over on a socket, and on another when that was closed."""

        async def once() -> None:
            found = await self.open(join=join, params=params)
            while self.on and not found.ended:
                await found.raw(data)
                self.done += 1
            found.close()

        await self.loop(once)


class Socket:
    """A connection of an attacker."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._path = path
        self._discarding: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether it is of no more use."""
        return self._writer.is_closing() or (
            self._discarding is not None and self._discarding.done()
        )

    async def upgrade(self) -> None:
        """Become a WebSocket."""
        await self.raw(upgrade(self._path))
        async with asyncio.timeout(10):
            answer = await self._reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101"), answer[:100]
        check_upgraded(answer)

    async def raw(self, data: bytes) -> None:
        """Write bytes; waits while the kernel takes none."""
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)

    async def text(self, message: str) -> None:
        """Write a text message."""
        await self.raw(text(message))

    async def answer(self, request: bytes) -> None:
        """Send an HTTP request, and read the whole answer."""
        await self.raw(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await self._reader.readexactly(int(line.partition(b":")[2]))

    async def ticket(self) -> str:
        """Of a new session of a client that polls: the token in the answer."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return str(json.loads(await self._reader.readexactly(length))["token"])

    def discard(self) -> None:
        """Throw away what comes from now on."""
        self._discarding = asyncio.ensure_future(self._discard())

    def close(self) -> None:
        """End it."""
        self._writer.transport.abort()

    async def _discard(self) -> None:
        with suppress(OSError):
            while await self._reader.read(READ_BYTES):
                pass


def text(message: str) -> bytes:
    """A masked text message of any length."""
    data = message.encode()
    if len(data) < 65_536:
        return masked(TEXT, data)
    return struct.pack("!BBQI", 0x80 | TEXT, 0x80 | 127, len(data), 0) + data


def fragment(opcode: int, data: bytes, *, last: bool) -> bytes:
    """A part of a message."""
    frame = masked(opcode, data)
    return frame if last else bytes([frame[0] & 0x7F]) + frame[1:]


async def pings(a: Attacker) -> None:
    await a.flood(masked(PING, b"") * AT_ONCE)


async def heartbeats(a: Attacker) -> None:
    await a.flood(text('[null,"h","phoenix","heartbeat",{}]') * AT_ONCE)


async def pushes(a: Attacker) -> None:
    await a.flood(
        text(f'["1","2","{a.topic}","say",{{"x":"{"x" * 100}"}}]') * AT_ONCE, join=a.topic
    )


async def big_pushes(a: Attacker) -> None:
    await a.flood(text(f'["1","2","{a.topic}","say",{{"x":"{"x" * 60_000}"}}]'), join=a.topic)


async def joins(a: Attacker) -> None:
    turn = b"".join(
        text(f'["{n}","{n}","echo:{a.number}-{n}","phx_join",{{}}]')
        + text(f'["{n}","{n}","echo:{a.number}-{n}","phx_leave",{{}}]')
        for n in range(AT_ONCE)
    )
    await a.flood(turn)


async def rejoins(a: Attacker) -> None:
    await a.flood(text(f'["1","1","hall:{a.number}","phx_join",{{}}]') * AT_ONCE)


async def resumes(a: Attacker) -> None:
    """Of a topic whose history is full."""
    topic = f"hall:{a.number}"
    fill = text(f'["1","2","{topic}","say",{{"x":"{"x" * 4000}"}}]') * AT_ONCE
    found = await a.open(join=topic)
    await found.raw(fill)
    await a.flood(text(f'["1","1","{topic}","phx_join",{{"resume":{{"last":100}}}}]'), join=topic)


async def metas(a: Attacker) -> None:
    topic = f"hall:{a.number}"
    await a.flood(
        text(f'["1","2","{topic}","presence_update",{{"x":"{"x" * 900}"}}]') * 10, join=topic
    )


async def credentials(a: Attacker) -> None:
    bad = "x" * 2000
    await a.flood(
        text(f'[null,"2","phoenix","access_token",{{"access_token":"{bad}.{bad}.{bad}"}}]') * 10
    )


async def malformed(a: Attacker) -> None:
    await a.flood(text("]" * 1000) * 20)


async def fragments(a: Attacker) -> None:
    message = b'[null,"h","phoenix","heartbeat",{}]'
    first, *others = [message[n : n + 1] for n in range(len(message))]
    frames = fragment(TEXT, first, last=False)
    frames += b"".join(fragment(CONTINUATION, part, last=False) for part in others)
    await a.flood((frames + fragment(CONTINUATION, b"", last=True)) * 10)


async def after_close(a: Attacker) -> None:
    """Closed by the gateway for what it said, and it goes on within the grace a close has."""

    async def once() -> None:
        found = await a.open(reads=False)
        await found.raw(text("x") * 12)
        ends = time.monotonic() + 5
        while a.on and time.monotonic() < ends:
            await found.raw(masked(PING, b"") * 2000)
            a.done += 1

    await a.loop(once)


async def said_goodbye(a: Attacker) -> None:
    """It closes, and goes on."""
    await a.flood(masked(CLOSE, struct.pack("!H", 1000)) + masked(PING, b"") * 2000)


async def stopped_readers(a: Attacker) -> None:
    """Ten readers that take nothing of what another one pushes."""
    for _ in range(10):
        await a.open(reads=False, join=a.topic)
    await big_pushes(a)


async def unread_answers(a: Attacker) -> None:
    """Answers to its own messages are not read."""

    async def once() -> None:
        found = await a.open(reads=False, join=f"hall:{a.number}")
        ends = time.monotonic() + 3
        while a.on and time.monotonic() < ends:
            async with asyncio.timeout(1):
                await found.raw(text('[null,"h","phoenix","heartbeat",{}]') * AT_ONCE)
            a.done += 1

    await a.loop(lambda: asyncio.wait_for(once(), 5))


async def slow_openers(a: Attacker) -> None:
    """A hundred handshakes, a byte each now and then."""
    found = []
    for _ in range(100):
        found.append(await a.connect())
        a.done += 1
    head = upgrade(a.path())
    for n in range(len(head)):
        if not a.on:
            return
        for each in found:
            with suppress(OSError):
                await each.raw(head[n : n + 1])
        await asyncio.sleep(0.1)


async def churn(a: Attacker) -> None:
    """Connect, join and go, as fast as can be."""

    async def once() -> None:
        (await a.open(join=a.topic)).close()

    await a.loop(once)


async def masses(a: Attacker) -> None:
    """All attackers are one user."""
    a.number = 0

    async def once() -> None:
        if a.done < MASS:
            await a.open(join="echo:mass")
        else:
            await asyncio.sleep(0.1)

    await a.loop(once)


async def refs(a: Attacker) -> None:
    """Refs as long as a frame allows, kept by as many channels as a socket may have."""
    ref = "r" * 65_000

    async def once() -> None:
        found = await a.open()
        for n in range(AT_ONCE):
            await found.text(f'["{ref}","{n}","echo:{a.number}-{n}","phx_join",{{}}]')
            a.done += 1
        await asyncio.sleep(min(2.0, a.left))
        found.close()

    await a.loop(once)


async def requests(a: Attacker) -> None:
    """Requests for nothing, many in one segment, on one connection."""

    async def once() -> None:
        found = await a.connect()
        found.discard()
        while a.on and not found.ended:
            await found.raw(b"GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * AT_ONCE)
            a.done += 1

    await a.loop(once)


async def _polls(a: Attacker, body: bytes, headers: bytes = b"") -> None:
    """Open a session by long-poll and post to it, over and over."""
    path = a.path().replace("/websocket?", "/longpoll?")

    async def once() -> None:
        found = await a.connect()
        await found.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        ticket = await found.ticket()
        while a.on:
            await found.answer(post(f"{path}&token={ticket}", body, headers))
            a.done += 1

    await a.loop(once)


async def gzipped_lines(a: Attacker) -> None:
    await _polls(a, _GZIPPED, b"Content-Encoding: gzip\r\n")


async def blank_lines(a: Attacker) -> None:
    await _polls(a, b"\n" * 1_000_000)


async def poll_batches(a: Attacker) -> None:
    line = b'[null,"h","phoenix","heartbeat",{}]\n'
    await _polls(a, line * (900_000 // len(line)))


async def _calls(a: Attacker, mode: str, sockets: int, pause: float) -> None:
    """Pushes that a backend answers otherwise than it should."""
    opened = [await a.open(join=f"room:{a.number}-{n}") for n in range(sockets)]

    async def once() -> None:
        for n, found in enumerate(opened):
            await found.text(f'["1","p","room:{a.number}-{n}","say",{{"mode":"{mode}"}}]')
        await asyncio.sleep(pause)

    await a.loop(once)


async def slow_calls(a: Attacker) -> None:
    await _calls(a, "slow", max(6, SLOTS // a.count), 0.2)


async def failing_calls(a: Attacker) -> None:
    await _calls(a, "502", 6, 0.05)


async def garbage_calls(a: Attacker) -> None:
    await _calls(a, "garbage", 6, 0.05)


async def reset_calls(a: Attacker) -> None:
    await _calls(a, "reset", 6, 0.05)


async def batches(a: Attacker) -> None:
    """A backend's: messages, each to a thousand topics."""
    topics = [f"echo:b{n}" for n in range(TARGETS)]
    message = {"topics": topics, "event": "say", "payload": {}}
    body = json.dumps({"messages": [message] * 20}).encode()
    request = post("/v1/publish/batch", body, b"Authorization: Bearer %b\r\n" % API_KEY.encode())

    async def once() -> None:
        await (await a.connect(api=True)).answer(request)

    await a.loop(once)


ABUSES: Final[dict[str, Callable[[Attacker], Awaitable[None]]]] = {
    "ping flood": pings,
    "heartbeat flood": heartbeats,
    "push flood": pushes,
    "pushes of 60 kB": big_pushes,
    "join and leave flood": joins,
    "rejoin flood": rejoins,
    "resume flood": resumes,
    "presence updates": metas,
    "bad tokens on a socket": credentials,
    "malformed frames": malformed,
    "fragments of a byte": fragments,
    "flood after the gateway's close": after_close,
    "flood after one's own close": said_goodbye,
    "stopped readers": stopped_readers,
    "answers not read": unread_answers,
    "slow openers": slow_openers,
    "connects and disconnects": churn,
    "masses of sessions of one user": masses,
    "refs of 65 kB": refs,
    "pipelined requests": requests,
    "long-poll: 2 MiB of blank lines as gzip": gzipped_lines,
    "long-poll: 1 MB of blank lines": blank_lines,
    "long-poll: batches of 900 kB": poll_batches,
    "backend calls that take 3 s": slow_calls,
    "backend calls that end in 502": failing_calls,
    "backend calls answered with garbage": garbage_calls,
    "backend calls that are reset": reset_calls,
    "batches of 20 x 1000 targets": batches,
}
"""By the name in the table."""


async def main(name: str, count: int, port: int, api_port: int, seconds: float) -> int:
    """Attack; returns how often."""
    until = time.monotonic() + seconds
    attackers = [Attacker(number, count, port, api_port, until) for number in range(count)]

    async def attack(attacker: Attacker) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ABUSES[name](attacker)

    await asyncio.gather(*(attack(attacker) for attacker in attackers))
    return sum(attacker.done for attacker in attackers)


if __name__ == "__main__":
    os.nice(19)  # what they take from their neighbour's own core is not what is measured
    name_, count_, port_, api_, seconds_ = sys.argv[1:]
    print(asyncio.run(main(name_, int(count_), int(port_), int(api_), float(seconds_))), flush=True)
