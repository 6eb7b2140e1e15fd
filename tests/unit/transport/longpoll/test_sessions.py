"""Sessions of clients that poll: how fast they may speak, what they still hear when they end."""

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.channels.connection import CLOSE_GRACE_SECONDS, Connection
from gateway.channels.connections import Connections
from gateway.channels.services import JoinCount, Services
from gateway.config import LimitsSettings
from gateway.device import UNKNOWN
from gateway.metrics import Metrics
from gateway.protocol.messages import NULL
from gateway.protocol.reasons import CloseCode
from gateway.sessions.client import Origin
from gateway.transport.handshake import Accepted
from gateway.transport.longpoll.batch import BatchMessage
from gateway.transport.longpoll.sessions import (
    EMPTY,
    GONE,
    IDLE_SECONDS,
    LINES_PER_TURN,
    LONGPOLL_ENCODINGS,
    OK,
    TIMEOUT,
    Poll,
    Polled,
    PollSessions,
    Push,
)
from gateway.wheel import TimerWheel
from tests.support.clock import Clock

HEARTBEAT = BatchMessage(b'[null,"1","phoenix","heartbeat",{}]')


class Session:
    """One of an anonymous client, on a clock that stands still."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        absent: Any = None  # nothing here needs them
        checked = msgspec.convert(limits, LimitsSettings)
        wheel = self.wheel = TimerWheel(self.clock.now)
        services = Services(
            admission=absent,
            relay=absent,
            sessions=absent,
            presences=absent,
            callbacks=absent,
            pushes=absent,
            credentials=absent,
            replays=absent,
            joins=JoinCount(1, self.metrics),
            limits=checked,
            metrics=self.metrics,
            wheel=wheel,
            max_age_seconds=0,
            leeway_seconds=0,
            clock=lambda: self.clock.now,
            wall_clock=lambda: self.clock.now,
        )
        connections = Connections(
            callbacks=absent,
            limits=checked,
            metrics=self.metrics,
            wheel=wheel,
            revoked=lambda _: False,
            memory_full=lambda: False,
            clock=lambda: self.clock.now,
        )
        connections.started = True
        self.sessions = PollSessions(services, connections)
        accepted = Accepted(None, UNKNOWN, NULL, "", LONGPOLL_ENCODINGS["2"], None)
        self.secret = self.sessions.open(accepted, Origin("longpoll", "2.0.0", "", ""), "s1")
        [connection] = connections.open
        assert isinstance(connection, Connection)
        self.connection = connection

    async def poll(self, received: int) -> Polled:
        """A poll of a client that has so many answers."""
        return await self.sessions.handle(Poll(self.secret, received))

    async def push(self, *messages: BatchMessage, seconds: float = 0.0) -> int:
        """A batch that may take so long; returns its status."""
        return (await self.sessions.handle(Push(self.secret, messages, seconds))).status

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(f"gateway_{name}", labels) or 0.0


async def test_who_says_too_much_is_not_heard_again_before_its_time() -> None:
    """Neither in one batch nor in many, however soon each of them gives up."""
    session = Session(messages_per_second=1)
    assert await session.push(HEARTBEAT, HEARTBEAT, HEARTBEAT, HEARTBEAT) == TIMEOUT
    for _ in range(5):
        assert await session.push(HEARTBEAT) == TIMEOUT
    assert session.counted("messages_received_total") == 2
    assert session.counted("messages_dropped_total", reason="longpoll_timeout") == 7

    session.clock.now += 1
    assert await session.push(HEARTBEAT) == OK


async def test_a_batch_that_was_heard_to_its_end_is_taken() -> None:
    session = Session(messages_per_second=1)
    assert await session.push(HEARTBEAT, HEARTBEAT) == OK


async def test_batches_of_many_clients_share_the_turns() -> None:
    session = Session()
    accepted = Accepted(None, UNKNOWN, NULL, "", LONGPOLL_ENCODINGS["2"], None)
    secrets = [
        session.sessions.open(accepted, Origin("longpoll", "2.0.0", "", ""), f"s{n}")
        for n in range(2, 6)
    ]
    together = asyncio.gather(
        *(session.sessions.handle(Push(secret, [HEARTBEAT] * 100, 60.0)) for secret in secrets)
    )
    seen = [0.0]
    while not together.done():
        await asyncio.sleep(0)
        seen.append(session.counted("messages_received_total"))

    assert seen[-1] == 400
    assert max(after - before for before, after in pairwise(seen)) <= LINES_PER_TURN


async def test_who_does_not_fetch_its_replies_is_too_slow() -> None:
    session = Session(outbound_buffer_bytes=1000)
    assert await session.push(*[HEARTBEAT] * 100) == GONE
    assert session.connection.close_code is CloseCode.TRY_AGAIN_LATER
    assert session.counted("slow_consumers_total") == 1


async def test_what_goes_wrong_ends_one_session_and_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    session = Session()
    monkeypatch.setattr(Connection, "receive", crash)
    with capture_logs() as logs:
        assert await session.push(HEARTBEAT) == GONE
    assert [entry["event"] for entry in logs] == ["socket crashed"]
    assert session.connection.close_code is CloseCode.INTERNAL_ERROR


async def test_last_words_wait_for_a_poll_that_can_have_them() -> None:
    session = Session()
    session.connection.send(b'"first",')
    assert await session.poll(0) == Polled(OK, 1, b'"first",')
    session.connection.send(b'"last",')
    session.connection.close(CloseCode.SESSION_ENDED)

    assert (await session.poll(7)).status == EMPTY  # was under way for long
    assert await session.poll(1) == Polled(OK, 2, b'"last",')
    assert await session.poll(1) == Polled(OK, 2, b'"last",')  # its answer was lost
    assert (await session.poll(2)).status == GONE
    assert session.secret not in session.sessions


async def test_a_poll_whose_place_was_taken_does_not_end_the_session() -> None:
    session = Session()
    older = asyncio.create_task(session.poll(0))
    await asyncio.sleep(0)
    newer = asyncio.create_task(session.poll(0))
    await asyncio.sleep(0)
    session.connection.send(b'"last",')
    session.connection.close(CloseCode.SESSION_ENDED)

    assert (await older).status == EMPTY
    assert await newer == Polled(OK, 1, b'"last",')


async def test_last_words_wait_their_whole_time() -> None:
    """And no other timer of the socket comes in between."""
    session = Session(idle_timeout_seconds=CLOSE_GRACE_SECONDS / 2)
    session.connection.send(b'"last",')
    session.connection.close(CloseCode.SESSION_ENDED)
    session.clock.now += CLOSE_GRACE_SECONDS
    session.wheel.turn(session.clock.now)
    assert session.secret in session.sessions

    session.clock.now += 1
    session.wheel.turn(session.clock.now)
    assert session.secret not in session.sessions


@pytest.mark.parametrize("idle", [90, 10, 3])
async def test_a_poll_that_waits_is_not_silence(idle: float) -> None:
    session = Session(idle_timeout_seconds=idle)
    silence = min(idle, IDLE_SECONDS)
    poll = asyncio.create_task(session.poll(0))
    await session.clock.run()
    await session.clock.run(silence * 0.9)
    assert poll.done()
    session.connection.due(session.clock.now + silence * 0.9)
    assert session.connection.close_code is None
    session.connection.due(session.clock.now + silence)
    assert session.connection.close_code is CloseCode.IDLE
