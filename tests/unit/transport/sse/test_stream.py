"""A stream joins for its client: what becomes of a refusal that passes, of a fault, and of silence."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from gateway.channels.encoding import SocketEncoding
from gateway.errors import BusError
from gateway.pacer import Pacer
from gateway.protocol.messages import NULL
from gateway.protocol.reasons import CloseCode
from gateway.sessions.client import Origin
from gateway.transport.handshake import Accepted
from gateway.transport.listener import Descriptors
from gateway.transport.sse import stream as streams
from gateway.transport.sse.stream import EVENT_STREAM_ENCODINGS, EventStream
from gateway.transport.wire import SocketWire
from tests.unit.channels.scene import KEPT, OWN, ROOM, Scene, opened
from tests.unit.transport.shell import FakeTransport


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A replica on which nobody waits to join again."""
    monkeypatch.setattr(streams, "JOIN_AGAIN_SECONDS", (0.0, 0.0))
    async with opened() as made:
        yield made


class Listener:
    """A client that listens, and its stream."""

    def __init__(self, scene: Scene, *topics: str) -> None:
        self.transport = FakeTransport()
        self.descriptors = Descriptors(10, scene.metrics)
        self.descriptors.open = 1
        claims = scene.claims("42")
        encoding: SocketEncoding = EVENT_STREAM_ENCODINGS[False, len(topics) > 1]["2"]
        origin = Origin("sse", "sse", "192.0.2.1", "test")
        self.stream = EventStream(
            scene.services,
            scene.connections,
            SocketWire(cast("Any", self.transport)),
            Accepted(claims, origin.device, NULL, "", encoding, None),
            origin,
            id=scene.connections.new_id(),
            resumes=dict.fromkeys(topics, NULL),
            lost=False,
            ends=Pacer(64),
            descriptors=self.descriptors,
        )
        scene.connections.add(self.stream, "sse")
        for topic in topics:
            self.stream.join(topic)

    def take(self) -> str:
        """What was written since the last time, without chunks."""
        data, self.transport.written = b"".join(self.transport.written), []
        text = ""
        while data:
            size, _, data = data.partition(b"\r\n")
            text += data[: int(size, 16)].decode()
            data = data[int(size, 16) + 2 :]
        return text

    async def go(self, scene: Scene) -> None:
        """The client goes."""
        self.transport.closed = True
        self.stream.connection_lost(None)
        await scene.settled()


async def test_what_is_refused_for_now_is_told_once_and_joined_again(scene: Scene) -> None:
    scene.subscribing(ROOM).open(BusError("down"))
    client = Listener(scene, ROOM)
    await scene.settled()
    for _ in range(3):
        await scene.settled()
    assert client.take() == (
        'event: refused\ndata: {"reason":"bus unavailable","topic":"room:1"}\n\n'
    )
    assert scene.counted("joins", result="bus unavailable") > 1

    scene.subscribing(ROOM).open()
    await scene.settled()
    await scene.publish(ROOM, "said", {})
    assert client.take().endswith(
        'event: said\ndata: {"topic":"room:1","event":"said","payload":{}}\n\n'
    )
    await client.go(scene)


async def test_what_is_refused_for_good_is_let_be(scene: Scene) -> None:
    client = Listener(scene, "user:7")
    await scene.settled()
    await scene.settled()

    assert client.take().count("event: refused") == 1
    assert scene.counted("joins", result="unauthorized") == 1
    await client.go(scene)


@pytest.mark.parametrize("topics", [(KEPT,), (KEPT, ROOM)])
@pytest.mark.parametrize("heard", [0, 1])
async def test_a_channel_that_ends_by_a_fault_goes_on_where_it_was(
    scene: Scene, topics: tuple[str, ...], heard: int
) -> None:
    client = Listener(scene, *topics)
    await scene.settled()
    for number in range(heard):
        await scene.publish(KEPT, "said", {"n": number})
    client.take()
    client.stream.rejoin(KEPT, client.stream.channels.members[KEPT])
    await scene.publish(KEPT, "said", {"n": "meanwhile"})

    said = client.take()
    assert "gap" not in said
    assert said.count("event: ") == said.count("meanwhile") == 1
    await client.go(scene)


async def test_silence_is_filled_and_is_no_idleness(scene: Scene) -> None:
    client = Listener(scene, ROOM)
    await scene.settled()
    client.take()
    await scene.pass_time(110)

    assert client.take() == ":\n\n" * 4
    assert client.stream.close_code is None
    await client.go(scene)


@pytest.mark.parametrize("topics", [(ROOM,), (ROOM, OWN)])
@pytest.mark.parametrize(
    ("code", "last"),
    [
        (CloseCode.SERVICE_RESTART, 'event: drain\ndata: {"code":1012}\n\n'),
        (CloseCode.GOING_AWAY, 'event: closed\ndata: {"code":1001,"reason":""}\n\n'),
        (
            CloseCode.SESSION_ENDED,
            'id: ended\nevent: closed\ndata: {"code":4001,"reason":""}\n\n',
        ),
    ],
)
async def test_the_last_event_says_why_and_then_the_answer_ends(
    scene: Scene, topics: tuple[str, ...], code: CloseCode, last: str
) -> None:
    client = Listener(scene, *topics)
    await scene.settled()
    client.take()
    client.stream.close(code)

    assert client.transport.written[-1] == b"0\r\n\r\n"
    assert client.take() == last
    assert client.transport.closed
    await client.go(scene)
    assert client.descriptors.open == 0
    assert scene.counted("disconnects", code=str(code.value)) == 1


async def test_an_own_fault_ends_the_stream_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = Listener(scene, ROOM), Listener(scene, ROOM)
    await scene.settled()
    client.take()

    def broken(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client.stream.core.__class__, "receive", broken)
    client.stream.join(ROOM)

    assert '"code":1011' in client.take()
    assert other.stream.close_code is None
    for each in (client, other):
        await each.go(scene)
