"""The clients of the scenario ``presence``: they come at a steady pace and read all they are sent."""

import os
import select
import socket
import time
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final

from bench.member import Member
from bench.roster import check_roster
from bench.servers.gateway import Gateway, check_joined
from bench.waiting import Waiting
from bench.wire import TEXT, LoadError, check_upgraded, masked, split, upgrade

QUIET_SECONDS: Final = 1.0
"""All has been sent when nothing came for so long; the gateway gathers diffs for a quarter of it."""

STALLED_SECONDS: Final = 60.0
"""Time for it to become quiet after the last connect."""

_READ_BYTES: Final = 256 * 1024
_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True)
class Arrival:
    """What the clients saw.

    Attributes:
        messages: How many text messages all of them got together.
        received_bytes: What they were sent, the handshakes included.
        last_joined_at: When the last one had joined, monotonic seconds.
        join_ms: Time from a client's connect to the answer to its join, the median.
        slow_join_ms: The 99th percentile of the same.
        seconds: From the first connect until the last one had joined.
        opened_seconds: From the first connect to the last.
        late_ms: How much later than planned a client came, the 99th percentile.
        waited: Share of the time in which the clients had nothing to do.
    """

    messages: int
    received_bytes: int
    last_joined_at: float
    join_ms: float
    slow_join_ms: float
    seconds: float
    opened_seconds: float
    late_ms: float
    waited: float


class Members:
    """All clients, within their process.

    Args:
        samples: How many of them are examined to the last byte; of the others the metas are counted.
    """

    def __init__(self, server: Gateway, samples: int) -> None:
        self._server = server
        self._samples = samples
        self._epoll = select.epoll()
        self._members: dict[int, Member] = {}  # by descriptor
        self._received_bytes = 0

    def come(self, count: int, seconds: float) -> Arrival:
        """Connect and join so many, evenly over a time, and read until it is quiet.

        It never sleeps meanwhile, see :class:`bench.load.Clients`. Who is to come next does not wait for
        who came before.
        """
        paths = [self._server.path(number) for number in range(count)]
        waiting = Waiting()
        started = heard = time.monotonic()
        while True:
            now = time.monotonic()
            opened = len(self._members)
            if opened < count and now >= started + opened * seconds / count:
                examined = opened % max(1, count // self._samples) == 0
                self._open(paths[opened], Member(opened, now, examined=examined))
                heard = now
            if self._read(waiting, now):
                heard = now
            elif opened == count and now > heard + QUIET_SECONDS:
                break
            if now > started + seconds + STALLED_SECONDS:
                raise LoadError(
                    f"messages still come {STALLED_SECONDS:.0f} s after the last connect"
                )
        return self._arrival(started, seconds, waiting)

    def check(self) -> int:
        """Make sure that everybody was told of everybody; returns how many were examined closely."""
        users = {self._server.user(member.number) for member in self._members.values()}
        for member in self._members.values():
            if member.refs != len(users):
                raise LoadError(f"client {member.number} was told of {member.refs} metas")
        examined = [m for m in self._members.values() if m.stream is not None]
        for member in examined:
            assert member.stream is not None
            check_roster(bytes(member.stream), users)
        return len(examined)

    def check_joined(self) -> None:
        """Make sure that each client that is examined was told of nothing but its join."""
        for member in self._members.values():
            if member.stream is not None:
                found = split(bytes(member.stream))
                if found is None or found[2]:
                    raise LoadError(f"client {member.number} was told {member.stream[:200]!r}")
                check_joined(found[1])

    def close(self) -> None:
        for descriptor in self._members:
            os.close(descriptor)
        self._members.clear()
        self._epoll.close()

    def _open(self, path: str, member: Member) -> None:
        # on loopback this does not wait for the server, as long as its backlog has room
        wire = socket.create_connection(("127.0.0.1", self._server.port), timeout=5)
        wire.setblocking(False)
        wire.send(upgrade(path))
        descriptor = wire.detach()
        self._members[descriptor] = member
        self._epoll.register(descriptor, select.EPOLLIN)

    def _read(self, waiting: Waiting, now: float) -> bool:
        """Read what there is; returns whether there was anything."""
        ready = waiting.poll(self._epoll, 256)
        for descriptor, _ in ready:
            member = self._members[descriptor]
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                raise LoadError(f"client {member.number} was closed by the server")
            self._received_bytes += len(data)
            if member.handshake is not None:
                data = self._shake_hands(descriptor, member, member.handshake + data)
            if data and (answers := member.feed(data)):
                os.write(descriptor, answers)
            if member.messages and not member.joined_at:
                member.joined_at = now
        return bool(ready)

    def _shake_hands(self, descriptor: int, member: Member, data: bytes) -> bytes:
        """Take the answer to an upgrade, and join when it is all there; returns what follows it."""
        start, end, rest = data.partition(_HEAD_END)
        member.handshake = None if end else data
        if not end:
            return b""
        check_upgraded(start)
        os.write(descriptor, masked(TEXT, self._server.joining(member.number)))
        return rest

    def _arrival(self, started: float, seconds: float, waiting: Waiting) -> Arrival:
        members = self._members.values()
        unanswered = [m.number for m in members if not m.joined_at]
        if unanswered:
            raise LoadError(f"{len(unanswered)} clients have no answer to their join")
        times = [(m.joined_at - m.started_at) * 1000 for m in members]
        planned = seconds / len(members)
        late = [m.started_at - started - m.number * planned for m in members]
        last_joined_at = max(m.joined_at for m in members)
        return Arrival(
            messages=sum(m.messages for m in members),
            received_bytes=self._received_bytes,
            last_joined_at=last_joined_at,
            join_ms=median(times),
            slow_join_ms=quantiles(times, n=100)[98],
            seconds=last_joined_at - started,
            opened_seconds=max(m.started_at for m in members) - started,
            late_ms=quantiles(late, n=100)[98] * 1000,
            waited=waiting.share,
        )
