"""How a socket ends: with which code, what comes last, what is given back, and by which timer."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.channels.connection import Connection
from gateway.protocol.reasons import CloseCode
from tests.unit.channels.fakes import Closed
from tests.unit.channels.scene import (
    ASKED,
    COUNTED,
    GRACE,
    IDLE,
    JITTER,
    KEPT,
    ORDERS,
    OWN,
    QUIET,
    ROOM,
    SHOWN,
    Client,
    Scene,
    ended,
    ok,
    opened,
    refused,
)

# codes


@pytest.mark.parametrize("code", list(CloseCode))
async def test_the_close_frame_is_the_last_a_client_hears(scene: Scene, code: CloseCode) -> None:
    """Whatever is published, answered or asked for afterwards; it is closed once, with the first code."""
    client = await scene.joined(ROOM)
    await client.join(ORDERS, "2")
    await client.say(["2", "3", ORDERS, "order", {}])
    await scene.publish(ROOM, "before", {})
    client.take()
    client.close(code)
    client.close(CloseCode.INTERNAL_ERROR)
    client.end_session("too late")
    client.overflowed()
    assert not client.go_away()
    assert not client.leave_topic(ROOM)
    await scene.publish(ROOM, "after", {})
    await client.heartbeat("4")
    scene.backend.last.take({"n": 1})
    await scene.pass_time(1)

    assert client.take() == [Closed(code)]
    assert client.close_code is code


async def test_a_message_on_its_way_when_the_socket_is_closed_is_not_written(scene: Scene) -> None:
    """It is in the hub already when the close frame is written."""
    client, other = await scene.joined(ROOM), await scene.joined(ROOM, "43")
    await scene.publish_and(ROOM, "late", client.go_away)

    assert client.take() == [Closed(1001)]
    assert [frame[3] for frame in other.take()] == ["late"]


async def test_nothing_is_written_to_a_connection_that_has_gone(scene: Scene) -> None:
    """The wire of the scene takes nothing any more; uvloop's would raise."""
    client = await scene.joined(ROOM)
    client.wire.closing = True
    client.close(CloseCode.GOING_AWAY)
    assert not client.go_away()
    await client.heartbeat("3")
    client.leave_topic(ROOM)

    assert client.take() == []
    assert client.close_code is None, "it was not the gateway that closed it"


async def test_going_away_says_whether_it_was_open(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    assert client.go_away()
    assert not client.go_away()

    assert client.take() == [Closed(1001)]


async def test_a_slow_consumer_is_closed_and_counted_once(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    client.overflowed()
    client.overflowed()

    assert client.take() == [Closed(1013)]
    assert scene.counted("slow_consumers") == 1
    assert not client.wire.aborted
    await scene.pass_time(2)
    assert client.wire.aborted, "sooner than others: it leaves much behind"


async def test_those_with_the_most_waiting_are_closed_when_all_together_have_too_much() -> None:
    async with opened(outbound_total_bytes=100) as scene:
        clients = [await scene.joined(ROOM, user) for user in ("42", "43", "44")]
        for client, unsent in zip(clients, (40, 70, 30), strict=True):
            client.wire.unsent = unsent
        await scene.pass_time(1)

        assert [client.close_code for client in clients] == [None, 1013, None]
        assert [client.wire.aborted for client in clients] == [False, True, False]
        name = "gateway_outbound_buffered_bytes"
        assert scene.metrics.registry.get_sample_value(name) == 70


async def test_what_waits_for_sockets_that_are_closed_already_is_given_up_first() -> None:
    """All have the same waiting, as after a broadcast: nobody is closed in place of one that goes anyway."""
    async with opened(outbound_total_bytes=100) as scene:
        clients = [await scene.joined(ROOM, user) for user in ("42", "43", "44", "45")]
        for client in clients:
            client.wire.unsent = 50
        for client in clients[1:3]:
            client.overflowed()
        await scene.pass_time(1)

        assert [client.close_code for client in clients] == [None, 1013, 1013, None]
        assert [client.wire.aborted for client in clients] == [False, True, True, False]
        assert scene.counted("slow_consumers") == 2


async def test_a_process_without_memory_lets_nobody_in_until_it_has_some(scene: Scene) -> None:
    await scene.joined(ROOM)
    assert scene.connections.refusal() is None
    scene.memory_full = True
    with capture_logs() as lines:
        await scene.pass_time(3)

    assert scene.connections.refusal() == "memory_limit"
    assert [line["log_level"] for line in lines if "memory" in line["event"]] == ["warning"]
    scene.memory_full = False
    await scene.pass_time(1)
    assert scene.connections.refusal() is None


async def test_ten_malformed_frames_close_a_socket(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    for _ in range(9):
        await client.send("no message")
    assert client.close_code is None
    await client.send(b"\x07")

    assert client.take() == [Closed(1008)]
    assert scene.counted("malformed_frames") == 10


async def test_a_topic_that_is_no_string_is_answered_and_counts_for_nothing(scene: Scene) -> None:
    client = scene.connect()
    for _ in range(12):
        await client.send('["1","1",7,"phx_join",{}]')

    assert client.take() == [refused(None, "1", 7, "unmatched topic")] * 12
    assert scene.counted("malformed_frames") == 0


async def test_a_token_revoked_during_the_handshake_closes_the_socket(scene: Scene) -> None:
    scene.revoked.add("42")
    client = scene.connect()

    assert client.take() == [Closed(1001)]


async def test_a_socket_without_a_close_frame_hears_none(scene: Scene) -> None:
    """A client that polls is told by the status of its next poll."""
    client = scene.connect(transport="longpoll")
    client.close(CloseCode.GOING_AWAY)

    assert client.wire.written == [b""], "only so that the poll that waits comes back"
    assert client.close_code == 1001


# the end of a session


async def test_a_session_that_ends_leaves_its_topics_first(scene: Scene) -> None:
    """phoenix.js connects again after any code, but then has no channel to join."""
    client = await scene.joined(ROOM)
    await client.join(QUIET, "2")
    client.take()
    client.end_session("session replaced")

    assert client.take() == [ended("1", ROOM), ended("2", QUIET)]
    assert (scene.registry.count, scene.holders(ROOM), scene.holders(QUIET)) == (0, 0, 0)
    await scene.publish(ROOM, "late", {})
    await scene.pass_time(1)
    assert client.take() == [Closed(4001, "session replaced")], "a moment later"


@pytest.mark.parametrize("topic", [ROOM, ASKED])
async def test_joins_under_way_are_refused_when_the_session_ends(scene: Scene, topic: str) -> None:
    """Left without an answer, phoenix.js would join once more; and the late yes admits nobody."""
    client = await scene.joined(QUIET)
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(topic, "2")
    client.end_session("session limit reached")
    gate.open()
    for asked in scene.backend.asked:
        asked.let_in()
    await scene.pass_time(1)

    assert client.take() == [
        ended("1", QUIET),
        refused("2", "2", topic, "session limit reached"),
        ended("2", topic),
        Closed(4001, "session limit reached"),
    ]
    assert scene.counted("joins", result="session limit reached") == 1
    assert (scene.members(topic), scene.holders(topic), scene.joins_in_flight) == (0, 0, 0)


# what is given back


async def joined(_: Scene, client: Client) -> None:
    """A member of some topics."""
    for ref, topic in enumerate((ROOM, OWN, QUIET)):
        await client.join(topic, str(ref))


async def waiting_for_the_bus(scene: Scene, client: Client) -> None:
    """A first join."""
    scene.subscribing(ROOM).shut()
    await client.join(ROOM)


async def waiting_to_be_a_session(scene: Scene, client: Client) -> None:
    """A first join that waits for what must be known of the user."""
    scene.subscribing(OWN).shut()
    await client.join(ROOM)


async def waiting_for_the_history(scene: Scene, client: Client) -> None:
    """A join that resumes."""
    await scene.joined(KEPT, "43")
    scene.history.reading.shut()
    await client.join(KEPT, params={"resume": None})


async def waiting_for_the_backend(_: Scene, client: Client) -> None:
    """Joins the backend decides on."""
    await client.join(ASKED, "1")
    await client.join("asked:2", "2")


async def replaying(scene: Scene, client: Client) -> None:
    """A member as soon as it has read what it missed."""
    await scene.joined(KEPT, "43")
    for _ in range(3):
        await scene.publish(KEPT, "missed", {"x": "x" * 40_000})
    client.wire.unsent = 1_000_000
    await client.join(KEPT, params={"resume": {"last": 3}})
    assert (client.topics, scene.members(KEPT)) == ([KEPT], 1)


async def refreshing(scene: Scene, client: Client) -> None:
    """A token that is looked at."""
    await client.join(ROOM)
    scene.looking.shut()
    await client.refresh(scene.token())


async def rejoining(scene: Scene, client: Client) -> None:
    """A channel that takes another's place, and what waits for it."""
    await client.join(ASKED, "1")
    scene.backend.last.let_in()
    await scene.settled()
    await client.join(ASKED, "2")
    await client.push(ASKED, "waits", ref="3")


async def shown(scene: Scene, client: Client) -> None:
    """Somebody others see."""
    await client.join(SHOWN)
    scene.backend.last.let_in()
    await scene.settled()


UNDER_WAY = (
    joined,
    waiting_for_the_bus,
    waiting_to_be_a_session,
    waiting_for_the_history,
    waiting_for_the_backend,
    replaying,
    refreshing,
    rejoining,
    shown,
)


@pytest.mark.parametrize("way", ["close", "release", "end_session", "drain"])
@pytest.mark.parametrize("begin", UNDER_WAY, ids=lambda begin: begin.__name__)
async def test_whatever_is_under_way_a_socket_that_ends_gives_all_back(
    scene: Scene, begin: Callable[[Scene, Client], Awaitable[None]], way: str
) -> None:
    """At once, before those it waits for have answered; and again makes no difference."""
    client = scene.connect()
    await begin(scene, client)
    others = scene.registry.count - scene.is_session(client)
    match way:
        case "close":
            client.close(CloseCode.GOING_AWAY)
        case "drain":
            client.close(CloseCode.SERVICE_RESTART)
        case "end_session":
            client.end_session("session replaced")
    client.release()
    client.release()
    await scene.settled()

    assert scene.registry.count == others
    for topic in (ROOM, QUIET, ASKED, "asked:2", SHOWN):
        assert (scene.members(topic), scene.holders(topic)) == (0, 0)
    assert (scene.members(KEPT), scene.holders(KEPT)) == (others, others)
    assert (client.topics, client.joins_under_way) == ([], 0)
    await scene.answered()
    assert (scene.tasks, scene.joins_in_flight) == (0, 0)


def connections() -> int:
    """How many are in memory."""
    return sum(type(each) is Connection for each in gc.get_objects())


async def test_a_socket_that_has_ended_does_not_wait_for_the_garbage_collector(
    scene: Scene,
) -> None:
    """The collector looks at everything that lives only now and then, and stops all for it."""
    gc.collect()
    gc.disable()
    try:
        before = connections()
        for topic in (ROOM, KEPT):
            client = scene.connect()
            await client.join(topic)
            assert connections() == before + 1
            await client.go()
            scene.clients.remove(client)
            del client
            await scene.pass_time(GRACE + 1)
            await scene.settled()
            assert connections() == before
    finally:
        gc.enable()


# timers


async def test_a_silent_socket_is_closed(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await scene.pass_time(int(IDLE) - 1)
    assert client.close_code is None
    await scene.pass_time(2)

    assert client.take() == [Closed(1002)]


async def test_a_socket_that_is_heard_of_is_not_idle(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await scene.pass_time(60)
    await client.heartbeat("2")
    await scene.pass_time(int(IDLE) - 1)
    assert client.close_code is None
    await scene.pass_time(2)

    assert client.take() == [ok(None, "2", "phoenix"), Closed(1002)]


async def test_what_is_not_heard_during_a_stall_is_no_silence(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await scene.stall(int(IDLE) * 2)
    await scene.pass_time(int(IDLE) - 1)
    assert client.close_code is None
    await scene.pass_time(2)

    assert client.take() == [Closed(1002)]


async def test_an_old_socket_is_moved_away() -> None:
    """More or less a tenth, so that those who came together do not leave together."""
    age = 50
    async with opened(max_age_seconds=age) as scene:
        client = await scene.joined(ROOM)
        await scene.pass_time(int(age * (1 - JITTER)) - 1)
        assert client.close_code is None
        await scene.pass_time(int(age * 2 * JITTER) + 3)

        assert client.take() == [Closed(1012)]


async def test_who_does_not_answer_the_close_frame_is_cut_off(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    client.close(CloseCode.GOING_AWAY)
    await scene.pass_time(GRACE - 1)
    assert not client.is_cut()
    await scene.pass_time(2)

    assert client.is_cut()


async def test_a_look_that_was_due_earlier_does_not_cut_off(scene: Scene) -> None:
    """The wheel still looks when the token would have ended, within the time a client has to answer."""
    client = await scene.joined(ROOM, seconds=20)
    await scene.pass_time(28)
    client.close(CloseCode.GOING_AWAY)
    await scene.pass_time(GRACE - 1)
    assert not client.is_cut()
    await scene.pass_time(2)

    assert client.is_cut()
    assert client.take() == [Closed(1001)]


async def test_a_client_that_has_gone_and_leaves_bytes_behind_is_cut_off(scene: Scene) -> None:
    """Its transport is closing and would otherwise wait for ever for the last bytes to be taken."""
    client = await scene.joined(ROOM)
    await client.go()
    await scene.pass_time(GRACE - 1)
    assert not client.is_cut()
    await scene.pass_time(2)

    assert client.is_cut()


# moving to another replica


async def test_who_is_drained_is_expected_on_another_replica(scene: Scene) -> None:
    """Nobody shall see a deploy: session and presence are marked before they are given up here."""
    client, other = scene.connect(), scene.connect("43")
    for each in (client, other):
        await each.join(SHOWN)
        scene.backend.last.let_in()
        await scene.pass_time(1)
    other.take()
    client.close(CloseCode.SERVICE_RESTART)
    await scene.pass_time(1)

    assert scene.moving(client) == (True, True)
    assert scene.registry.count == 1
    assert other.take() == []


@pytest.mark.parametrize("code", [code for code in CloseCode if code != 1012])
async def test_who_is_closed_for_another_reason_is_not_expected_anywhere(
    scene: Scene, code: CloseCode
) -> None:
    client, other = scene.connect(), scene.connect("43")
    for each in (client, other):
        await each.join(SHOWN)
        scene.backend.last.let_in()
        await scene.pass_time(1)
    other.take()
    client.close(code)
    await scene.pass_time(1)

    assert scene.moving(client) == (False, False)
    assert [list(frame[4]["leaves"]) for frame in other.take()] == [["42"]]


async def test_a_stranger_who_is_drained_is_expected_nowhere(scene: Scene) -> None:
    stranger = scene.connect(None)
    await stranger.join(SHOWN)
    scene.backend.last.let_in()
    await scene.settled()
    stranger.take()
    stranger.close(CloseCode.SERVICE_RESTART)

    assert stranger.take() == [Closed(1012)]


async def test_when_it_was_last_heard_of_is_when_its_last_frame_came(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await scene.pass_time(10)
    heard_at = scene.now()
    await client.heartbeat("2")
    await scene.pass_time(5)

    assert client.last_seen() == heard_at


# ends that go wrong


def then_raise(whole: Callable[..., object]) -> Callable[..., object]:
    """What a bug in one step of an end looks like to the steps after it."""

    def step(*arguments: object, **named: object) -> object:
        whole(*arguments, **named)
        raise LookupError

    return step


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, None])
@pytest.mark.parametrize(
    "broken",
    [
        ("relay", "remove", "channel"),
        ("relay.follower", "resuming", "channel"),
        ("presences", "leave", "channel"),
        ("sessions", "leave", "socket"),
        ("sessions._tracker", "remove", "session"),
        ("sessions._observer", "ended", "session"),
    ],
)
async def test_what_goes_wrong_at_an_end_keeps_nothing_else_from_ending(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, str, str], code: Any
) -> None:
    """Channels before and after it, the session, the close frame; the scene looks for the rest."""
    part, method, task = broken
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["background"])
    )
    client = await scene.joined(COUNTED)
    await client.join(KEPT, "2", {"resume": None})
    await client.join(ROOM, "3")
    client.take()
    owner = attrgetter(part)(scene.services)
    monkeypatch.setattr(owner, method, then_raise(getattr(owner, method)))
    if code is None:
        await client.go()
    else:
        client.close(code)

    assert client.take() == ([] if code is None else [Closed(code)])
    assert not scene.is_session(client)
    assert [scene.members(topic) for topic in (COUNTED, KEPT, ROOM)] == [0, 0, 0]
    assert [scene.holders(topic) for topic in (COUNTED, KEPT, ROOM)] == [0, 0, 0]
    expected = [task] if (method, code) != ("remove", 1012) or part == "relay" else []
    assert set(told) >= set(expected)
    monkeypatch.undo()
