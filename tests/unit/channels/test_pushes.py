"""Pushes: broadcast, kept, handed to the backend or shown, and how each is answered."""

import pytest
import structlog.testing

from gateway.errors import HistoryUnavailable, UpstreamTimeout, UpstreamUnavailable
from tests.unit.channels.fakes import Binary
from tests.unit.channels.scene import (
    COUNTED,
    DENIED,
    KEPT,
    META_BYTES,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    OPEN,
    ORDERS,
    OWN,
    QUIET,
    ROOM,
    SHOWN,
    Scene,
    ended,
    ok,
    refused,
    said,
)

MEGABYTE = 1024 * 1024


# what is broadcast


async def test_a_push_is_answered_and_reaches_all_members(scene: Scene) -> None:
    client, other = await scene.joined(ROOM), await scene.joined(ROOM, "43")
    await client.push(ROOM, "hello", {"n": 1})

    assert client.take() == [ok("1", "2", ROOM), said(ROOM, "hello", {"n": 1})]
    assert other.take() == [said(ROOM, "hello", {"n": 1})]
    assert scene.backend.asked == []


async def test_where_there_is_no_echo_all_but_the_pusher_get_it(scene: Scene) -> None:
    client, same, other = [await scene.joined(QUIET, user) for user in ("42", "42", "43")]
    await client.push(QUIET, "hello", {"n": 1})

    assert client.take() == [ok("1", "2", QUIET)]
    assert same.take() == other.take() == [said(QUIET, "hello", {"n": 1})]


async def test_bytes_are_broadcast_as_they_came(scene: Scene) -> None:
    client, other = await scene.joined(ROOM), await scene.joined(ROOM, "43")
    await client.push_binary(ROOM, "blob", b"\x00\xff")

    head = bytes((2, len(ROOM), len("blob"))) + ROOM.encode() + b"blob"
    assert other.take() == [Binary(head + b"\x00\xff")]
    assert client.take()[0] == ok("1", "2", ROOM)


async def test_a_push_is_refused_while_the_bus_is_away(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    scene.bus.lose()
    await client.push(ROOM, "hello")

    assert client.take() == [refused("1", "2", ROOM, "bus unavailable")]


async def test_a_push_above_what_the_bus_takes_is_refused(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await client.push(ROOM, "hello", {"text": "x" * MEGABYTE})

    assert client.take() == [refused("1", "2", ROOM, "payload too large")]


@pytest.mark.parametrize("topic", [DENIED, OWN, COUNTED])
async def test_a_push_where_none_may_push_is_refused(scene: Scene, topic: str) -> None:
    client = await scene.joined(topic)
    client.take()
    await client.push(topic, "hello")

    assert client.take() == [refused("1", "2", topic, "push not allowed")]


# what is kept


async def test_a_push_that_is_kept_is_answered_when_it_is_stored(scene: Scene) -> None:
    """Heartbeats pass it, and what is pushed behind it waits."""
    client, other = await scene.joined(KEPT), await scene.joined(KEPT, "43")
    scene.history.storing.shut()
    await client.push(KEPT, "a", ref="2")
    await client.push(KEPT, "b", ref="3")
    await client.heartbeat("4")
    assert client.take() == [ok(None, "4", "phoenix")]
    assert scene.history.storing.waiting == 1
    scene.history.storing.open()
    await scene.settled()

    replies = [frame for frame in client.take() if frame[3] == "phx_reply"]
    assert replies == [ok("1", "2", KEPT), ok("1", "3", KEPT)]
    assert other.take() == [said(KEPT, "a", {}), said(KEPT, "b", {})]


async def test_a_push_the_history_does_not_take_is_refused(scene: Scene) -> None:
    client = await scene.joined(KEPT)
    scene.history.storing.open(HistoryUnavailable("unavailable", "away"))
    await client.push(KEPT, "a")

    assert client.take() == [refused("1", "2", KEPT, "bus unavailable")]


async def test_bytes_are_neither_kept_nor_handed_to_a_backend(scene: Scene) -> None:
    for topic in (KEPT, ORDERS):
        client = await scene.joined(topic)
        await client.push_binary(topic, "blob", b"\x00")
        assert client.take() == [refused("1", "2", topic, "push not allowed")]

    assert scene.backend.asked == []
    assert scene.tasks == 0


# what goes to the backend


async def test_a_push_is_answered_as_the_backend_says(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order", {"n": 1})
    asked = scene.backend.last
    call = asked.call
    assert (call.type, call.session, call.user, call.topic, call.event, call.payload) == (
        "gateway.push",
        client.id,
        "42",
        ORDERS,
        "order",
        b'{"n":1}',
    )
    assert (call.state, call.params, asked.url) == (b'{"n":0}', None, "http://orders/")
    assert client.take() == []
    await client.heartbeat("3")
    asked.take({"number": 12}, {"n": 1})
    await scene.settled()

    assert client.take() == [ok(None, "3", "phoenix"), ok("1", "2", ORDERS, {"number": 12})]
    assert client.state == {"n": 1}
    assert scene.tasks == 0, "a queue that is empty costs no task"


async def test_the_backend_may_have_messages_broadcast_before_the_answer(scene: Scene) -> None:
    client, other = await scene.joined(ORDERS), await scene.joined(ORDERS, "43")
    await client.push(ORDERS, "order")
    scene.backend.last.take({}, None, ("made", {"n": 1}), ("told", {"n": 2}))
    await scene.settled()

    expected = [said(ORDERS, "made", {"n": 1}), said(ORDERS, "told", {"n": 2})]
    assert other.take() == expected
    assert sorted(client.take(), key=repr) == sorted([ok("1", "2", ORDERS), *expected], key=repr)


async def test_what_the_backend_names_is_kept_once_though_the_client_repeats_it(
    scene: Scene,
) -> None:
    topic = "kept-orders:1"
    client, other = await scene.joined(topic), await scene.joined(topic, "43")
    for ref in ("2", "3"):
        await client.push(topic, "order", {"id": "o1"}, ref=ref)
        scene.backend.last.take({}, None, ("made", {"n": 1}, "o1"))
        await scene.settled()

    assert other.take() == [said(topic, "made", {"n": 1})]
    replies = [frame for frame in client.take() if frame[3] == "phx_reply"]
    assert replies == [ok("1", "2", topic), ok("1", "3", topic)]


@pytest.mark.parametrize("event", ["phx_close", "presence_state", "access_token", "é" * 128])
async def test_a_reserved_event_of_the_backends_is_dropped_and_counted(
    scene: Scene, event: str
) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order")
    with structlog.testing.capture_logs() as logs:
        scene.backend.last.take({}, None, (event, {}), ("fine", {}))
        await scene.settled()

    assert [frame[3] for frame in client.take()] == ["phx_reply", "fine"]
    assert scene.counted("messages_dropped", reason="reserved_event") == 1
    assert [entry["event"] for entry in logs] == ["broadcast of a backend dropped"]


async def test_a_refusal_is_passed_on_as_it_is(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order")
    scene.backend.last.refuse({"errors": {"amount": "too high"}})
    await scene.settled()

    assert client.take() == [refused("1", "2", ORDERS, {"errors": {"amount": "too high"}})]
    assert client.close_code is None


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (UpstreamTimeout("no answer"), "upstream timeout"),
        (UpstreamUnavailable("busy"), "upstream unavailable"),
    ],
)
async def test_a_push_the_backend_does_not_answer_is_refused(
    scene: Scene, problem: Exception, reason: str
) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order")
    scene.backend.last.fail(problem)
    await scene.settled()

    assert client.take() == [refused("1", "2", ORDERS, reason)]


async def test_the_push_is_refused_when_one_of_its_messages_cannot_be_broadcast(
    scene: Scene,
) -> None:
    """The others are all the same: the backend has acted already."""
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order")
    scene.backend.last.take({"n": 1}, None, ("big", {"x": "x" * MEGABYTE}), ("small", {}))
    await scene.settled()

    assert client.take() == [
        refused("1", "2", ORDERS, "payload too large"),
        said(ORDERS, "small", {}),
    ]


async def test_pushes_go_to_the_backend_one_by_one_in_their_order(scene: Scene) -> None:
    """The state of one answer goes with the next question."""
    client = await scene.joined(ORDERS)
    for number in range(3):
        await client.push(ORDERS, f"order{number}", ref=f"r{number}")
    states = []
    for number in range(3):
        assert len(scene.backend.asked) == number + 1
        states.append(scene.backend.last.call.state)
        scene.backend.last.take({}, {"n": number + 1})
        await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["order0", "order1", "order2"]
    assert client.take() == [ok("1", f"r{number}", ORDERS) for number in range(3)]
    assert states == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


async def test_the_pushes_of_two_sockets_go_side_by_side(scene: Scene) -> None:
    first, second = await scene.joined(ORDERS), await scene.joined(ORDERS)
    await first.push(ORDERS, "order")
    await second.push(ORDERS, "order")
    assert scene.backend.open == 2
    for asked in scene.backend.asked:
        asked.take()
    await scene.settled()

    assert first.take() == second.take() == [ok("1", "2", ORDERS)]


async def test_too_many_pushes_that_wait_are_refused(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    for _ in range(MOST_WAITING):
        await client.push(ORDERS, "order")
    assert client.take() == []
    await client.push(ORDERS, "more", ref="more")
    assert client.take() == [refused("1", "more", ORDERS, "rate limited")]
    scene.backend.last.take()
    await scene.settled()
    client.take()
    await client.push(ORDERS, "again", ref="again")

    assert client.take() == [], "there is room again"


async def test_too_many_bytes_that_wait_are_refused(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    half = {"x": "x" * (MOST_WAITING_BYTES // 2)}
    await client.push(ORDERS, "one", half)
    await client.push(ORDERS, "two", half, ref="two")
    assert client.take() == [refused("1", "two", ORDERS, "rate limited")]
    await client.push(ORDERS, "small", {}, ref="small")
    assert client.take() == [], "a small one fits"
    scene.backend.last.take()
    await scene.settled()
    client.take()
    await client.push(ORDERS, "three", half, ref="three")
    assert client.take() == [], "the first one counts no longer"


async def test_what_was_dropped_counts_no_longer(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.join("orders:2", "2")
    most = {"x": "x" * (MOST_WAITING_BYTES - 100)}
    await client.say(["2", "3", "orders:2", "first", {}])
    await client.push(ORDERS, "dropped", most, ref="4")
    client.leave_topic(ORDERS)
    await scene.take_off("42", ORDERS)
    client.take()
    await client.say(["2", "5", "orders:2", "second", most])

    assert client.take() == []


async def test_one_push_is_taken_however_large(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "one", {"x": "x" * MOST_WAITING_BYTES})

    assert client.take() == []
    assert len(scene.backend.asked) == 1


# what ends while pushes wait


async def test_pushes_before_a_leave_are_answered_before_it(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "first", ref="2")
    await client.push(ORDERS, "second", ref="3")
    await client.leave(ORDERS, "4")
    assert client.take() == []
    for _ in range(2):
        scene.backend.last.take({"n": 1})
        await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["first", "second"]
    answers = [ok("1", ref, ORDERS, {"n": 1}) for ref in "23"]
    assert client.take() == [*answers, ok("1", "4", ORDERS), ended("1", ORDERS)]
    assert scene.members(ORDERS) == 0


async def test_the_answer_to_a_push_goes_to_no_later_channel(scene: Scene) -> None:
    """Left and joined again with the same refs before the backend answered."""
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order")
    await client.leave(ORDERS)
    await client.join(ORDERS)
    client.take()
    scene.backend.last.take({"n": 1})
    await scene.settled()

    assert client.take() == []


async def test_what_a_client_said_before_it_went_still_goes_to_the_backend(scene: Scene) -> None:
    """Who says something and closes the lid has said it; and its messages reach the others."""
    client, other = await scene.joined(ORDERS), await scene.joined(ORDERS, "43")
    await client.push(ORDERS, "first")
    await client.push(ORDERS, "second")
    await client.go()
    for _ in range(2):
        scene.backend.last.take({}, None, ("made", {}))
        await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["first", "second"]
    assert other.take() == [said(ORDERS, "made", {}), said(ORDERS, "made", {})]
    assert (client.take(), scene.tasks) == ([], 0)


async def test_what_waits_of_a_user_whose_tokens_are_called_back_is_dropped(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    for event in ("first", "second", "third"):
        await client.push(ORDERS, event)
    scene.revoked.add("42")
    client.go_away()
    scene.backend.last.take()
    await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["first"]
    assert scene.counted("messages_dropped", reason="not_member") == 2
    assert scene.tasks == 0


async def test_what_waits_to_be_kept_of_a_user_whose_tokens_are_called_back_is_dropped(
    scene: Scene,
) -> None:
    client, other = await scene.joined(KEPT), await scene.joined(KEPT, "43")
    scene.history.storing.shut()
    await client.push(KEPT, "first")
    await client.push(KEPT, "second")
    scene.revoked.add("42")
    scene.history.storing.open()
    await scene.settled()

    assert other.take() == [said(KEPT, "first", {})]
    assert scene.counted("messages_dropped", reason="not_member") == 1


async def test_what_waits_of_a_user_who_is_taken_off_a_topic_is_dropped(scene: Scene) -> None:
    """On that topic alone, of that user alone, and what the backend has already goes on."""
    client, other = await scene.joined(ORDERS), await scene.joined(ORDERS, "43")
    await client.join("orders:2", "2")
    await client.push(ORDERS, "first", ref="3")
    await client.push(ORDERS, "second", ref="4")
    await client.say(["2", "5", "orders:2", "elsewhere", {}])
    await other.push(ORDERS, "theirs")
    await other.push(ORDERS, "theirs too")
    client.take()
    assert await scene.take_off("42", ORDERS) == 1
    assert client.take() == [ended("1", ORDERS)]
    assert scene.counted("messages_dropped", reason="not_member") == 1
    while scene.backend.open:
        for asked in scene.backend.asked:
            if not asked.answer.done():
                asked.take()
        await scene.settled()

    assert [event for _, event in scene.backend.calls] == [
        "first",
        "theirs",
        "elsewhere",
        "theirs too",
    ]
    assert client.take() == [ok("2", "5", "orders:2")]


async def test_what_waits_of_a_socket_that_has_gone_is_dropped_too(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "first")
    await client.push(ORDERS, "second")
    await client.go()
    assert await scene.take_off("42", ORDERS) == 0, "it is on the topic no longer"
    scene.backend.last.take()
    await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["first"]
    assert scene.counted("messages_dropped", reason="not_member") == 1


# what is shown of a client


async def test_a_client_changes_what_others_see_of_it(scene: Scene) -> None:
    client, other = scene.connect(presence=b'{"name":"Ann"}'), scene.connect("43")
    for each in (client, other):
        await each.join(SHOWN)
        scene.backend.last.let_in(presence={"role": "guest"})
        await scene.pass_time(1)
    client.take()
    other.take()
    await client.push(SHOWN, "presence_update", {"mood": "fine", "phx_ref": "forged"})
    await scene.pass_time(1)

    assert client.take()[0] == ok("1", "2", SHOWN)
    [diff] = other.take()
    [meta] = diff[4]["joins"]["42"]["metas"]
    assert (meta["name"], meta["role"], meta["mood"]) == ("Ann", "guest", "fine")
    assert meta["phx_ref"] != "forged"


async def test_who_leaves_is_shown_no_longer(scene: Scene) -> None:
    client, other = scene.connect(), scene.connect("43")
    for each in (client, other):
        await each.join(SHOWN)
        scene.backend.last.let_in()
        await scene.pass_time(1)
    other.take()
    await client.leave(SHOWN)
    await scene.pass_time(1)

    [diff] = other.take()
    assert (diff[3], list(diff[4]["leaves"])) == ("presence_diff", ["42"])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [({"x": "x" * META_BYTES}, "payload too large"), (["no object"], "malformed")],
)
async def test_a_change_that_cannot_be_shown_is_refused(
    scene: Scene, payload: object, reason: str
) -> None:
    client = scene.connect()
    await client.join(SHOWN)
    scene.backend.last.let_in()
    await scene.pass_time(1)
    client.take()
    await client.push(SHOWN, "presence_update", payload)
    await scene.pass_time(1)

    assert client.take() == [refused("1", "2", SHOWN, reason)]


async def test_a_stranger_is_not_shown_and_cannot_change_that(scene: Scene) -> None:
    stranger = scene.connect(None)
    await stranger.join(SHOWN)
    scene.backend.last.let_in()
    await scene.pass_time(1)
    assert stranger.take() == [
        ok("1", "1", SHOWN),
        ["1", None, SHOWN, "presence_state", {}],
    ]
    await stranger.push(SHOWN, "presence_update", {"mood": "fine"})

    assert stranger.take() == [refused("1", "2", SHOWN, "push not allowed")]


async def test_where_members_are_counted_they_are_told_how_many(scene: Scene) -> None:
    client = scene.connect()
    await client.join(COUNTED)
    await scene.pass_time(1)
    assert client.take() == [
        ok("1", "1", COUNTED),
        ["1", None, COUNTED, "presence_count", {"users": 1, "sessions": 1}],
    ]
    await scene.joined(COUNTED)
    await scene.pass_time(1)

    assert client.take() == [said(COUNTED, "presence_count", {"users": 1, "sessions": 2})]


async def test_a_stranger_pushes_where_anyone_may(scene: Scene) -> None:
    stranger = await scene.joined(OPEN, None)
    await stranger.push(OPEN, "hello")

    assert stranger.take() == [ok("1", "2", OPEN), said(OPEN, "hello", {})]
