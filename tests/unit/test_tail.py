"""An operator's tails: what they show, what they say is missing, and where they go on."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import TooManyTails
from gateway.history.position import Position, decode, encode
from gateway.hub.broadcast import Broadcast
from gateway.tail import (
    MAX_TAILS,
    MESSAGE_BYTES,
    WAITING_BYTES,
    Tail,
    TailEnded,
    TailEvent,
    TailGap,
    TailMessage,
    TailStarted,
)
from tests.support.tails import NOW, TailScene

KEPT = "kept:1"
PLAIN = "room:1"


@pytest.fixture
async def scene() -> AsyncIterator[TailScene]:
    scene = TailScene()
    await scene.bus.start()
    yield scene
    await scene.bus.close()


def names(events: list[TailEvent]) -> list[str]:
    """The events of the messages among a tail's own."""
    return [each.message.event for each in events if isinstance(each, TailMessage)]


async def test_a_topic_without_a_history_is_seen_from_now_on(scene: TailScene) -> None:
    await scene.publish(PLAIN, "before")
    tail = await scene.tails.open_topic(PLAIN)
    await scene.publish("room:2", "elsewhere")
    await scene.publish(PLAIN, "a", "b")

    assert await tail.take(0) == [
        TailStarted(None, "no_history", ""),
        TailMessage(Broadcast(PLAIN, "a", b"{}"), NOW),
        TailMessage(Broadcast(PLAIN, "b", b"{}"), NOW),
    ]
    assert await tail.take(0) == []


async def test_whoever_waits_is_woken_by_a_message(scene: TailScene) -> None:
    tail = await scene.tails.open_topic(PLAIN)
    await tail.take(0)
    taking = asyncio.create_task(tail.take(60))
    await asyncio.sleep(0)
    await scene.publish(PLAIN, "a")

    assert names(await taking) == ["a"]


async def test_a_position_is_gone_on_from_without_gap_or_repetition(scene: TailScene) -> None:
    first = await scene.tails.open_topic(KEPT)
    await scene.publish(KEPT, "a", "b")
    await first.take(0)
    first.close()
    await scene.publish(KEPT, "c", "d")

    second = await scene.tails.open_topic(KEPT, decode(first.position))
    await scene.publish(KEPT, "e")
    events = await second.take(0)

    assert events[0] == TailStarted(True, None, first.position)
    assert names(events) == ["c", "d", "e"]
    assert decode(second.position).offset == 5


async def test_a_position_that_says_nothing_any_more_is_told_so(scene: TailScene) -> None:
    other_epoch, too_old = Position("other", 1, NOW), Position(scene.relay.history.epoch, 0, 1.0)

    kept = await scene.tails.open_topic(KEPT, other_epoch)
    old = await scene.tails.open_topic(KEPT, too_old)
    plain = await scene.tails.open_topic(PLAIN, other_epoch)

    [started] = await kept.take(0)
    assert isinstance(started, TailStarted)
    assert (started.recovered, started.reason) == (False, "epoch_changed")
    assert decode(started.position).epoch == scene.relay.history.epoch
    [started] = await old.take(0)
    assert isinstance(started, TailStarted)
    assert (started.recovered, started.reason) == (False, "expired")
    assert await plain.take(0) == [TailStarted(False, "no_history", "")]


async def test_a_pattern_is_what_reaches_this_replica(scene: TailScene) -> None:
    await scene.relay.subscribe("room:1")
    await scene.relay.subscribe("kept:1")
    rooms, everything = scene.tails.open_pattern("room:"), scene.tails.open_pattern("")
    await scene.publish("room:1", "a")
    await scene.publish("room:2", "nobody subscribes to it here")
    await scene.publish("kept:1", "b")

    assert names(await rooms.take(0)) == ["a"]
    assert names(await everything.take(0)) == ["a", "b"]
    assert everything.position == ""


async def test_a_slow_reader_misses_messages_and_is_told_how_many(scene: TailScene) -> None:
    tail = scene.tails.open_pattern("")
    size = WAITING_BYTES // 4
    fitting = Broadcast(PLAIN, "e", b"x" * (size - MESSAGE_BYTES))
    for _ in range(6):
        scene.relay.taps.offer(fitting)
    scene.relay.taps.offer(Broadcast(PLAIN, "small", b"{}"))

    events = await tail.take(0)
    assert len(names(events)) == 4
    assert events[-1] == TailGap(3, "slow")
    assert scene.dropped == 3
    scene.relay.taps.offer(fitting)
    assert await tail.take(0) == [TailMessage(fitting, NOW)]


async def test_a_message_above_what_may_wait_is_seen_when_nothing_waits(scene: TailScene) -> None:
    tail = scene.tails.open_pattern("")
    scene.relay.taps.offer(Broadcast(PLAIN, "e", b"x" * WAITING_BYTES))

    assert names(await tail.take(0)) == ["e"]


async def test_a_quiet_topic_keeps_the_position_young_and_shows_nothing(scene: TailScene) -> None:
    tail = await scene.tails.open_topic(KEPT)
    everything = scene.tails.open_pattern("")
    await tail.take(0)
    assert scene.relay.follower[KEPT].resuming == 1
    later = Position(scene.relay.history.epoch, 0, NOW + 100)
    scene.relay._remind(KEPT, later)

    assert tail.position == encode(later)
    assert await tail.take(0) == []
    assert names(await everything.take(0)) == []
    tail.close()
    tail.close()
    assert scene.relay.follower[KEPT].resuming == 0


async def test_what_history_or_bus_lost_is_said(scene: TailScene) -> None:
    kept, plain = await scene.tails.open_topic(KEPT), await scene.tails.open_topic(PLAIN)
    scene.tails.bus_changed(False)
    scene.tails.bus_changed(True)
    scene.relay._lost(KEPT)

    assert (await kept.take(0))[1:] == [TailGap(None, "history")], "which finds what the bus lost"
    assert (await plain.take(0))[1:] == [TailGap(None, "bus")]


async def test_the_end_is_the_last_event(scene: TailScene) -> None:
    tail = scene.tails.open_pattern("")
    scene.relay.taps.offer(Broadcast(PLAIN, "e", b"{}"))
    scene.tails.end()

    assert [type(event) for event in await tail.take(0)] == [TailStarted, TailMessage, TailEnded]


async def test_there_is_room_for_so_many_and_a_closed_one_makes_room(scene: TailScene) -> None:
    tails: list[Tail] = [scene.tails.open_pattern("") for _ in range(MAX_TAILS - 1)]
    opening = asyncio.create_task(scene.tails.open_topic(PLAIN))
    await asyncio.sleep(0)
    with pytest.raises(TooManyTails):
        scene.tails.open_pattern("")
    with pytest.raises(TooManyTails):
        await scene.tails.open_topic(PLAIN)

    last = await opening
    assert len(scene.tails) == MAX_TAILS
    for tail in (*tails, last):
        tail.close()
    assert not scene.relay.taps.open
    assert len(scene.tails) == 0


async def test_a_topic_that_cannot_be_opened_takes_no_room(scene: TailScene) -> None:
    await scene.bus.close()
    opening = asyncio.create_task(scene.tails.open_topic(PLAIN))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert scene.tails._opening == 0
    assert not scene.relay.taps.open
