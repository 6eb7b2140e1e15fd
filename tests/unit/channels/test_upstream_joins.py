"""Joins the backend decides on: what it is asked, what its answer leads to, and joins that end meanwhile."""

import json

import pytest
import structlog.testing

from gateway.errors import (
    SubscriptionRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.unit.channels.scene import (
    ASKED,
    META_BYTES,
    MOST_WAITING,
    ORDERS,
    ROOM,
    SHOWN,
    Scene,
    ended,
    ok,
    opened,
    refused,
)

OTHER = "asked:2"


async def test_the_backend_is_asked_and_its_answer_is_the_reply(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED, params={"seat": 7})
    asked = scene.backend.last
    call = asked.call
    assert (call.type, call.session, call.user, call.topic, call.params, call.state) == (
        "gateway.join",
        client.id,
        "42",
        ASKED,
        b'{"seat":7}',
        b'{"n":0}',
    )
    assert call.device is not None
    assert call.device.id.startswith("device")
    assert asked.url == "http://joins/"
    assert client.take() == []
    assert (scene.joins_in_flight, scene.registry.count, scene.subscriptions) == (1, 0, 0)
    asked.let_in({"row": 3}, state={"n": 1})
    await scene.settled()

    assert client.take() == [ok("1", "1", ASKED, {"row": 3})]
    assert client.state == {"n": 1}
    assert (scene.members(ASKED), scene.joins_in_flight, scene.is_session(client)) == (1, 0, True)
    assert client.joins_under_way == 0


async def test_a_stranger_is_asked_about_too(scene: Scene) -> None:
    client = scene.connect(None)
    await client.join(ASKED)
    assert scene.backend.last.call.user is None
    scene.backend.last.let_in()
    await scene.settled()

    assert client.take() == [ok("1", "1", ASKED)]
    assert client.state == {"n": 0}, "an answer without state leaves it"


async def test_what_the_backend_wants_shown_is_shown(scene: Scene) -> None:
    client = scene.connect(presence=b'{"name":"Ann"}')
    await client.join(SHOWN)
    scene.backend.last.let_in(presence={"role": "host"})
    await scene.pass_time(1)

    reply, state = client.take()
    assert (reply, state[:4]) == (ok("1", "1", SHOWN), ["1", None, SHOWN, "presence_state"])
    [meta] = state[4]["42"]["metas"]
    assert (meta["name"], meta["role"]) == ("Ann", "host")


@pytest.mark.parametrize(
    ("body", "response"),
    [
        ({"reason": "full", "seats": 0}, {"reason": "full", "seats": 0}),
        ({}, {"reason": "unauthorized"}),
        ({"seats": 0}, {"reason": "unauthorized"}),
        ({"reason": ""}, {"reason": "unauthorized"}),
        ({"reason": 7}, {"reason": "unauthorized"}),
    ],
)
async def test_a_refusal_reaches_the_client_in_the_backends_words_if_it_gives_a_reason(
    scene: Scene, body: object, response: object
) -> None:
    client = scene.connect()
    await client.join(ASKED)
    scene.backend.last.refuse(body)
    await scene.settled()

    assert client.take() == [refused("1", "1", ASKED, response)]
    assert scene.counted("joins", result="upstream refused") == 1
    assert (scene.joins_in_flight, client.joins_under_way, scene.registry.count) == (0, 0, 0)
    assert scene.subscriptions == 0


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (UpstreamTimeout("no answer"), "upstream timeout"),
        (UpstreamUnavailable("busy"), "upstream unavailable"),
        (UpstreamError("something else"), "upstream unavailable"),
    ],
)
async def test_a_join_the_backend_does_not_answer_is_refused(
    scene: Scene, problem: Exception, reason: str
) -> None:
    client = scene.connect()
    await client.join(ASKED)
    scene.backend.last.fail(problem)
    await scene.settled()

    assert client.take() == [refused("1", "1", ASKED, reason)]
    assert scene.counted("joins", result=reason) == 1
    assert (scene.joins_in_flight, client.joins_under_way) == (0, 0)


async def test_a_question_that_meets_a_bug_refuses_the_join_and_is_logged(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED)
    with structlog.testing.capture_logs() as logs:
        scene.backend.last.fail(RuntimeError("a bug"))
        await scene.settled()

    assert client.take() == [refused("1", "1", ASKED, "join crashed")]
    assert [entry["event"] for entry in logs] == ["join crashed", "join refused"]
    assert (scene.joins_in_flight, client.close_code) == (0, None)


async def test_more_to_show_than_may_be_shown_refuses_the_join(scene: Scene) -> None:
    client = scene.connect(presence=b'{"name":"Ann"}')
    await client.join(SHOWN)
    scene.backend.last.let_in({"a": 1}, presence={"role": "x" * META_BYTES})
    await scene.settled()

    assert client.take() == [refused("1", "1", SHOWN, "payload too large")]
    assert scene.counted("joins", result="payload too large") == 1
    assert (scene.subscriptions, client.joins_under_way, scene.registry.count) == (0, 0, 0)


async def test_a_join_let_in_waits_for_the_bus_and_may_fail_there(scene: Scene) -> None:
    client = scene.connect()
    gate = scene.subscribing(ASKED)
    gate.shut()
    await client.join(ASKED)
    scene.backend.last.let_in()
    await scene.settled()
    assert client.take() == []
    assert scene.joins_in_flight == 1
    gate.open(SubscriptionRefused("denied"))
    await scene.settled()

    assert client.take() == [refused("1", "1", ASKED, "bus unavailable")]
    assert (scene.joins_in_flight, scene.registry.count, client.joins_under_way) == (0, 0, 0)


async def test_a_second_member_needs_the_backend_alone(scene: Scene) -> None:
    first, second = scene.connect(), scene.connect()
    for client in (first, second):
        await client.join(ASKED)
        scene.backend.last.let_in()
        await scene.settled()

    assert (scene.members(ASKED), scene.holders(ASKED), scene.joins_in_flight) == (2, 2, 0)


# one at a time, and not too many


async def test_the_joins_of_a_socket_are_asked_about_one_by_one(scene: Scene) -> None:
    """The state of one answer goes with the next question."""
    client = scene.connect()
    await client.join(ASKED, "1")
    await client.join(OTHER, "2")
    assert scene.backend.calls == [(ASKED, None)]
    assert scene.joins_in_flight == 2
    scene.backend.last.let_in(state={"n": 1})
    await scene.settled()
    assert scene.backend.calls == [(ASKED, None), (OTHER, None)]
    assert json.loads(scene.backend.last.call.state) == {"n": 1}
    scene.backend.last.let_in(state={"n": 2})
    await scene.settled()

    assert client.take() == [ok("1", "1", ASKED), ok("2", "2", OTHER)]
    assert (client.state, scene.backend.most, scene.joins_in_flight) == ({"n": 2}, 1, 0)


async def test_a_refused_join_leaves_the_state_and_the_next_is_asked_about(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED, "1")
    await client.join(OTHER, "2")
    scene.backend.last.refuse({"reason": "no"})
    await scene.settled()
    scene.backend.last.let_in()
    await scene.settled()

    assert client.take() == [refused("1", "1", ASKED, "no"), ok("2", "2", OTHER)]
    assert client.state == {"n": 0}


async def test_a_join_waits_for_the_pushes_before_it(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "order", {"n": 1})
    await client.join(ASKED, "3")
    assert scene.backend.calls == [(ORDERS, "order")]
    scene.backend.last.take()
    await scene.settled()
    assert scene.backend.calls == [(ORDERS, "order"), (ASKED, None)]
    scene.backend.last.let_in()
    await scene.settled()

    assert client.take() == [ok("1", "2", ORDERS), ok("3", "3", ASKED)]


async def test_joins_above_the_bound_are_refused_while_others_wait_for_the_backend() -> None:
    async with opened(joins_in_flight=2) as scene:
        client, other = scene.connect(), scene.connect("43")
        await client.join(ASKED, "1")
        await client.join(OTHER, "2")
        await other.join(ASKED)
        await other.join(ROOM, "2")

        assert other.take() == [
            refused("1", "1", ASKED, "rate limited"),
            refused("2", "2", ROOM, "rate limited"),
        ]
        assert scene.counted("joins", result="rate limited") == 2
        assert other.joins_under_way == 0
        for _ in range(2):
            scene.backend.last.let_in()
            await scene.settled()
        assert scene.joins_in_flight == 0
        await other.join(ROOM, "3")
        assert other.take() == [ok("3", "3", ROOM)]


async def test_a_socket_with_too_much_waiting_for_the_backend_joins_nothing_more(
    scene: Scene,
) -> None:
    client = scene.connect()
    for number in range(MOST_WAITING):
        await client.join(f"asked:{number}", str(number))
    assert client.take() == []
    await client.join("asked:more", "more")

    assert client.take() == [refused("more", "more", "asked:more", "rate limited")]
    assert (client.joins_under_way, scene.joins_in_flight) == (MOST_WAITING, MOST_WAITING)
    await client.go()
    scene.backend.last.refuse({})
    await scene.settled()
    assert scene.joins_in_flight == 0
    assert len(scene.backend.asked) == 1, "nobody asks for those who are gone"


# what ends while the backend is asked


async def test_the_backend_is_not_asked_about_the_joins_of_who_has_gone(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED, "1")
    await client.join(OTHER, "2")
    await client.go()
    assert scene.joins_in_flight == 2, "they are counted until their turn comes"
    scene.backend.last.let_in()
    await scene.settled()

    assert scene.backend.calls == [(ASKED, None)]
    assert (scene.joins_in_flight, scene.registry.count, scene.subscriptions) == (0, 0, 0)


async def test_who_has_gone_is_not_admitted(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED)
    await client.go()
    scene.backend.last.let_in()
    await scene.settled()

    assert (scene.members(ASKED), scene.registry.count, client.take()) == (0, 0, [])


async def test_who_is_taken_off_while_the_backend_is_asked_is_refused_at_once(
    scene: Scene,
) -> None:
    """Its late yes admits nobody."""
    client = scene.connect()
    await client.join(ASKED)
    assert await scene.take_off("42", ASKED) == 1
    assert client.take() == [refused("1", "1", ASKED, "unauthorized")]
    scene.backend.last.let_in()
    await scene.settled()

    assert client.take() == []
    assert (scene.members(ASKED), scene.registry.count, scene.joins_in_flight) == (0, 0, 0)
    assert (client.joins_under_way, scene.subscriptions) == (0, 0)


async def test_a_late_refusal_refuses_no_later_join(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED)
    client.leave_topic(ASKED)
    await client.join(ASKED)
    first = scene.backend.last
    first.refuse({"reason": "no"})
    await scene.settled()
    assert client.take() == [refused("1", "1", ASKED, "unauthorized")]
    assert scene.backend.last is not first
    scene.backend.last.let_in()
    await scene.settled()

    assert client.take() == [ok("1", "1", ASKED)]


async def test_the_backend_is_not_asked_about_a_join_that_was_taken_off_while_it_waited(
    scene: Scene,
) -> None:
    client = scene.connect()
    await client.join(ASKED, "1")
    await client.join(OTHER, "2")
    assert client.leave_topic(OTHER)
    scene.backend.last.let_in()
    await scene.settled()
    asked = scene.backend.calls
    if scene.backend.open:
        scene.backend.last.refuse({})
    await scene.settled()

    assert asked == [(ASKED, None)]


async def test_a_leave_waits_for_the_backends_answer(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED)
    await client.leave(ASKED, "2")
    assert client.take() == []
    scene.backend.last.let_in()
    await scene.settled()

    assert client.take() == [ok("1", "1", ASKED), ok("1", "2", ASKED), ended("1", ASKED)]
    assert scene.holders(ASKED) == 0


async def test_joining_again_asks_again_and_replaces_the_first(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED, "1")
    await client.join(ASKED, "2")
    scene.backend.last.let_in({"try": 1})
    await scene.settled()
    scene.backend.last.let_in({"try": 2})
    await scene.settled()

    assert client.take() == [
        ok("1", "1", ASKED, {"try": 1}),
        ok("2", "2", ASKED, {"try": 2}),
        ended("1", ASKED),
    ]
    assert (scene.members(ASKED), scene.holders(ASKED)) == (1, 1)


async def test_a_rejoin_that_is_refused_ends_the_channel_too(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ASKED, "1")
    scene.backend.last.let_in()
    await scene.settled()
    await client.join(ASKED, "2")
    assert scene.members(ASKED) == 0, "its old channel ends at once"
    scene.backend.last.refuse({"reason": "no"})
    await scene.settled()

    assert client.take() == [
        ok("1", "1", ASKED),
        refused("2", "2", ASKED, "no"),
        ended("1", ASKED),
    ]
    assert (scene.members(ASKED), scene.holders(ASKED), client.topics) == (0, 0, [])
