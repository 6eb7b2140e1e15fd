"""Joins: who is let in, what they wait for, and what is given back however one ends."""

import asyncio

import pytest
import structlog.testing

from gateway.channels.connection import RESUMED_PER_TURN
from gateway.errors import SubscriptionRefused
from gateway.protocol.reasons import CloseCode
from tests.unit.channels.scene import (
    DENIED,
    JOIN_WAIT,
    KEPT,
    NAMED,
    OPEN,
    OWN,
    QUIET,
    ROOM,
    Scene,
    ended,
    ok,
    opened,
    refused,
    said,
)

# who is let in


async def test_a_first_join_is_answered_and_makes_a_member_and_a_session(scene: Scene) -> None:
    client = scene.connect()
    await client.join(ROOM)

    assert client.take() == [ok("1", "1", ROOM)]
    assert (client.topics, scene.members(ROOM), scene.registry.count) == ([ROOM], 1, 1)
    assert (scene.holders(ROOM), scene.holders(OWN)) == (1, 1)
    assert scene.counted("joins", result="ok") == 1
    assert (scene.joins_in_flight, scene.tasks, client.joins_under_way) == (0, 0, 0)


async def test_a_topic_without_a_rule_is_refused(scene: Scene) -> None:
    client = scene.connect()
    with structlog.testing.capture_logs() as logs:
        await client.join("nothing:1")

    assert client.take() == [refused(None, "1", "nothing:1", "unmatched topic")]
    assert scene.counted("joins", result="unmatched topic") == 1
    [line] = logs
    assert (line["event"], line["log_level"]) == ("join refused", "info")
    assert (line["user"], line["topic"]) == ("42", '"nothing:1"')
    assert line["reason"] == line["throttle"] == "unmatched topic"
    assert (scene.subscriptions, scene.registry.count) == (0, 0)


async def test_a_stranger_is_refused_where_a_user_is_needed_and_let_in_where_not(
    scene: Scene,
) -> None:
    client = scene.connect(None)
    await client.join(ROOM)
    await client.join(OPEN, "2")

    assert client.take() == [refused("1", "1", ROOM, "unauthorized"), ok("2", "2", OPEN)]
    assert scene.counted("joins", result="unauthorized") == 1
    assert (scene.subscriptions, scene.registry.count) == (1, 0), "strangers are no sessions"


async def test_a_topic_the_token_does_not_name_is_refused(scene: Scene) -> None:
    client = scene.connect(topics=("named:2", "named:x*"))
    await client.join(NAMED)
    await client.join("named:2", "2")

    assert client.take() == [refused("1", "1", NAMED, "unauthorized"), ok("2", "2", "named:2")]


async def test_only_its_user_joins_a_personal_topic_and_is_told_the_session(scene: Scene) -> None:
    client, other = scene.connect("42"), scene.connect("43")
    await client.join(OWN)
    await other.join(OWN)

    assert client.take() == [ok("1", "1", OWN, {"session": client.id})]
    assert other.take() == [refused("1", "1", OWN, "unauthorized")]
    assert scene.holders(OWN) == 2, "by the member, and by the user's being a session"


async def test_a_user_at_her_limit_of_sessions_is_refused() -> None:
    async with opened(sessions_per_user=1) as full:
        first, second = await full.joined(ROOM), full.connect()
        await second.join(QUIET)

        assert second.take() == [refused("1", "1", QUIET, "session limit reached")]
        assert full.counted("joins", result="session limit reached") == 1
        assert (full.registry.count, full.is_session(first), full.holders(QUIET)) == (1, True, 0)


async def test_a_socket_may_have_so_many_channels_joins_under_way_included() -> None:
    async with opened(max_channels_per_socket=2) as scene:
        client = await scene.joined(ROOM)
        gate = scene.subscribing(QUIET)
        gate.shut()
        await client.join(QUIET, "2")
        await client.join(DENIED, "3")
        gate.open()
        await scene.settled()

        assert client.take() == [
            refused("3", "3", DENIED, "too many channels joined"),
            ok("2", "2", QUIET),
        ]
        assert scene.counted("joins", result="too many channels joined") == 1


async def test_a_second_member_is_let_in_at_once(scene: Scene) -> None:
    """Its topic is subscribed and its user's session known: no task, no turn of the loop in between."""
    await scene.joined(ROOM)
    again = await scene.joined(QUIET)
    scene.subscribing(ROOM).shut()
    await again.join(ROOM, "2")

    assert again.take() == [ok("2", "2", ROOM)]
    assert (scene.holders(ROOM), scene.members(ROOM)) == (2, 2)


async def test_a_first_join_of_a_topic_others_are_on_makes_a_session(scene: Scene) -> None:
    """Its topic is subscribed, so it need not wait for that; for the session it does."""
    await scene.joined(ROOM, "43")
    client = scene.connect()
    gate = scene.subscribing(OWN)
    gate.shut()
    await client.join(ROOM)
    assert client.take() == []
    gate.open()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM)]
    assert scene.is_session(client)


async def test_a_first_join_is_one_step_where_nobody_has_to_be_waited_for(scene: Scene) -> None:
    scene.bus.at_once = True
    client = scene.connect()
    client.join_at_once(ROOM)

    assert client.take() == [ok("1", "1", ROOM)]
    assert (scene.is_session(client), scene.members(ROOM)) == (True, 1)
    assert (scene.holders(ROOM), scene.holders(OWN)) == (1, 1)
    assert scene.tasks == 0


# the bus


async def test_a_join_is_not_answered_before_its_topic_is_subscribed(scene: Scene) -> None:
    """A message published right after the reply would miss the first member of a topic."""
    client = scene.connect()
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(ROOM)
    assert client.take() == []
    assert (scene.joins_in_flight, client.joins_under_way, scene.members(ROOM)) == (1, 1, 0)
    await client.heartbeat("3")
    assert client.take() == [ok(None, "3", "phoenix")], "others are not kept waiting"
    gate.open()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM)]
    await scene.publish(ROOM, "hello", {"n": 1})
    assert client.take() == [said(ROOM, "hello", {"n": 1})]
    assert scene.joins_in_flight == 0


async def test_a_join_is_refused_when_the_bus_stays_away(scene: Scene) -> None:
    """It may come back within JOIN_WAIT seconds, so the refusal is not there at once."""
    client = await scene.joined(QUIET)
    scene.bus.lose()
    await client.join(ROOM, "2")
    await scene.pass_time(JOIN_WAIT - 1)
    assert client.take() == []
    await scene.pass_time(1)

    assert client.take() == [refused("2", "2", ROOM, "bus unavailable")]
    assert scene.counted("joins", result="bus unavailable") == 1
    assert (scene.joins_in_flight, client.joins_under_way, scene.holders(ROOM)) == (0, 0, 0)
    assert scene.is_session(client), "it is one by its first join"


async def test_a_join_goes_on_when_the_bus_comes_back(scene: Scene) -> None:
    client = scene.connect()
    scene.bus.lose()
    await client.join(ROOM)
    assert client.take() == []
    await scene.bus.start()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM)]


async def test_a_first_join_the_bus_refuses_leaves_no_session(scene: Scene) -> None:
    client = scene.connect()
    scene.subscribing(ROOM).open(SubscriptionRefused("denied"))
    await client.join(ROOM)

    assert client.take() == [refused("1", "1", ROOM, "bus unavailable")]
    assert (scene.registry.count, scene.holders(ROOM), client.topics) == (0, 0, [])


async def test_a_join_that_meets_a_bug_is_refused_and_logged(scene: Scene) -> None:
    client = scene.connect()
    scene.break_sessions(RuntimeError("a bug"))
    with structlog.testing.capture_logs() as logs:
        await client.join(ROOM)

    assert client.take() == [refused("1", "1", ROOM, "join crashed")]
    assert [entry["event"] for entry in logs] == ["join crashed", "join refused"]
    assert scene.counted("joins", result="join crashed") == 1
    assert (scene.joins_in_flight, scene.tasks, client.joins_under_way) == (0, 0, 0)


# leaving, joining again and going while a join is under way


async def test_a_leave_waits_for_the_join_before_it(scene: Scene) -> None:
    """As in Phoenix, where a join blocks its socket: a leave is never for a join without an answer."""
    client = scene.connect()
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(ROOM)
    await client.leave(ROOM, "2")
    assert client.take() == []
    gate.open()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM), ok("1", "2", ROOM), ended("1", ROOM)]
    assert (scene.holders(ROOM), scene.members(ROOM)) == (0, 0)


async def test_a_join_again_while_joining_replaces_the_first(scene: Scene) -> None:
    client = scene.connect()
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(ROOM, "1")
    await client.join(ROOM, "2")
    gate.open()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM), ok("2", "2", ROOM), ended("1", ROOM)]
    assert (scene.holders(ROOM), scene.members(ROOM)) == (1, 1)


async def test_messages_wait_for_the_join_before_them_in_order(scene: Scene) -> None:
    client = scene.connect()
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(ROOM)
    await client.push(ROOM, "a", ref="2")
    await client.push(ROOM, "b", ref="3")
    gate.open()
    await scene.settled()

    assert client.take() == [
        ok("1", "1", ROOM),
        ok("1", "2", ROOM),
        ok("1", "3", ROOM),
        said(ROOM, "a", {}),
        said(ROOM, "b", {}),
    ]


async def test_a_join_that_was_taken_off_its_topic_is_refused_and_never_admitted(
    scene: Scene,
) -> None:
    """It waits for the bus; what it acquires until it hears of it is given back."""
    client = scene.connect()
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(ROOM)
    assert await scene.take_off("42", ROOM) == 1
    assert client.take() == [refused("1", "1", ROOM, "unauthorized")]
    gate.open()
    await scene.settled()

    assert client.take() == []
    assert (scene.holders(ROOM), scene.registry.count, scene.joins_in_flight) == (0, 0, 0)


async def test_an_attempt_that_is_over_admits_no_later_one(scene: Scene) -> None:
    """Taken off while it waits for the bus, and joined again with the same join_ref before that answers."""
    client = scene.connect()
    gate = scene.subscribing(ROOM)
    gate.shut()
    await client.join(ROOM)
    client.leave_topic(ROOM)
    await client.join(ROOM)
    assert client.take() == [refused("1", "1", ROOM, "unauthorized")]
    assert scene.joins_in_flight == 1
    gate.open()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM)]
    assert (scene.holders(ROOM), scene.members(ROOM)) == (1, 1)


@pytest.mark.parametrize("waits_for", [OWN, ROOM])
async def test_going_while_joining_gives_back_subscription_and_session(
    scene: Scene, waits_for: str
) -> None:
    """Both of what a first join waits for: the user's own topic, which comes first, and the one it joins."""
    client = scene.connect()
    gate = scene.subscribing(waits_for)
    gate.shut()
    await client.join(ROOM)
    await client.go()
    assert (scene.joins_in_flight, scene.registry.count) == (0, 0)
    gate.open()
    await scene.settled()

    assert (scene.members(ROOM), scene.holders(ROOM), scene.registry.count) == (0, 0, 0)
    assert client.take() == []


async def test_a_join_that_ends_before_its_task_began_is_counted_off(scene: Scene) -> None:
    """A task that is cancelled before its first step never runs, so it cannot count itself off."""
    client = scene.connect()
    scene.subscribing(OWN).shut()
    await client.join_and_go(ROOM)

    assert (scene.joins_in_flight, scene.registry.count, scene.holders(ROOM)) == (0, 0, 0)


async def test_going_while_joining_again_gives_back_both(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await scene.joined(QUIET, "43")
    gate = scene.subscribing(DENIED)
    gate.shut()
    await client.join(QUIET, "2")
    await client.join(DENIED, "3")
    await client.go()
    gate.open()
    await scene.settled()

    assert (scene.holders(ROOM), scene.holders(QUIET), scene.holders(DENIED)) == (0, 1, 0)
    assert scene.registry.count == 1


async def test_leaving_gives_back_the_subscription_and_keeps_the_session(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await client.leave(ROOM)

    assert client.take() == [ok("1", "9", ROOM), ended("1", ROOM)]
    assert (scene.holders(ROOM), scene.members(ROOM)) == (0, 0)
    assert scene.is_session(client)
    await scene.publish(ROOM, "late", {})
    assert client.take() == []


# two joins of one socket at once


async def test_a_session_stays_when_one_of_two_first_joins_fails_after_the_other_succeeded(
    scene: Scene,
) -> None:
    client = scene.connect()
    slow = scene.subscribing(QUIET)
    slow.shut()
    await client.join(ROOM, "1")
    await client.join(QUIET, "2")
    assert client.take() == [ok("1", "1", ROOM)]
    slow.open(SubscriptionRefused("denied"))
    await scene.settled()

    assert client.take() == [refused("2", "2", QUIET, "bus unavailable")]
    assert scene.is_session(client)


async def test_a_session_stays_when_the_first_of_two_first_joins_fails(scene: Scene) -> None:
    """The one that fails made the session, and the other still waits for the bus and relies on it."""
    client = scene.connect()
    slow, failing = scene.subscribing(ROOM), scene.subscribing(QUIET)
    slow.shut()
    failing.open(SubscriptionRefused("denied"))
    await client.join(ROOM, "1")
    await client.join(QUIET, "2")
    assert client.take() == [refused("2", "2", QUIET, "bus unavailable")]
    slow.open()
    await scene.settled()

    assert client.take() == [ok("1", "1", ROOM)]
    assert scene.is_session(client)
    assert scene.holders(ROOM) == 1


async def test_the_place_of_a_session_is_kept_for_a_join_that_still_waits() -> None:
    """The last place of a user does not go to another socket because one of two joins failed."""
    async with opened(sessions_per_user=1) as scene:
        client, rival = scene.connect(), scene.connect()
        slow, failing = scene.subscribing(ROOM), scene.subscribing(QUIET)
        slow.shut()
        failing.open(SubscriptionRefused("denied"))
        await client.join(ROOM, "1")
        await client.join(QUIET, "2")
        await rival.join(DENIED)
        slow.open()
        await scene.settled()

        assert client.take() == [
            refused("2", "2", QUIET, "bus unavailable"),
            ok("1", "1", ROOM),
        ]
        assert rival.take() == [refused("1", "1", DENIED, "session limit reached")]
        assert (scene.holders(ROOM), scene.registry.count) == (1, 1)


async def test_a_join_that_resumes_is_a_session_though_another_failed_meanwhile(
    scene: Scene,
) -> None:
    client = scene.connect()
    await client.join(KEPT)
    await client.leave(KEPT)
    await client.go()
    again = scene.connect()
    scene.history.reading.shut()
    await again.join(KEPT, "1", {"resume": None})
    scene.subscribing(QUIET).open(SubscriptionRefused("denied"))
    await again.join(QUIET, "2")
    scene.history.reading.open()
    await scene.settled()

    assert again.topics == [KEPT]
    assert scene.is_session(again)


async def test_a_session_without_topics_stays_when_a_later_join_fails(scene: Scene) -> None:
    """A socket is a session from its first successful join on, as long as it is connected."""
    client = await scene.joined(ROOM)
    await client.leave(ROOM)
    scene.subscribing(QUIET).open(SubscriptionRefused("denied"))
    await client.join(QUIET, "2")

    assert scene.is_session(client)


# the bound on joins that wait


async def test_joins_above_the_bound_are_refused_until_one_is_decided() -> None:
    async with opened(joins_in_flight=1) as scene:
        first, second = await scene.joined(ROOM), await scene.joined(ROOM, "43")
        gate = scene.subscribing(QUIET)
        gate.shut()
        await first.join(QUIET, "2")
        await second.join(QUIET, "2")
        await second.join(ROOM, "3")  # this one needs not wait
        assert second.take() == [
            refused("2", "2", QUIET, "rate limited"),
            ok("3", "3", ROOM),
            ended("1", ROOM),
        ]
        assert scene.counted("joins", result="rate limited") == 1
        assert second.joins_under_way == 0
        gate.open()
        await scene.settled()
        assert scene.joins_in_flight == 0
        await second.join(DENIED, "4")

        assert second.take() == [ok("4", "4", DENIED)]


async def test_a_first_join_above_the_bound_leaves_no_session() -> None:
    """It was made one at once, but its topic's history would have to be waited for."""
    async with opened(joins_in_flight=1) as scene:
        first, second = await scene.joined(ROOM), scene.connect("43")
        gate = scene.subscribing(QUIET)
        gate.shut()
        await first.join(QUIET, "2")
        scene.bus.at_once = True
        await second.join(KEPT)

        assert second.take() == [refused("1", "1", KEPT, "rate limited")]
        assert not scene.is_session(second)
        gate.open()
        await scene.settled()


# claims that are refreshed while a join is under way


async def test_a_join_the_newer_token_does_not_allow_is_refused_and_all_given_back(
    scene: Scene,
) -> None:
    """The token is refreshed to allow less between the admission and the bus's answer."""
    client = scene.connect(topics=(NAMED,))
    gate = scene.subscribing(NAMED)
    gate.shut()
    await client.join(NAMED)
    await client.refresh(scene.token(topics=["named:2"]))
    assert client.take() == [ok(None, "5", "phoenix")]
    gate.open()
    await scene.settled()

    assert client.take() == [refused("1", "1", NAMED, "unauthorized")]
    assert (scene.holders(NAMED), scene.registry.count, scene.members(NAMED)) == (0, 0, 0)
    assert (scene.joins_in_flight, client.joins_under_way) == (0, 0)


async def test_a_later_join_the_newer_token_does_not_allow_leaves_the_session(
    scene: Scene,
) -> None:
    client = await scene.joined(ROOM, topics=(NAMED,))
    gate = scene.subscribing(NAMED)
    gate.shut()
    await client.join(NAMED, "2")
    await client.refresh(scene.token())
    gate.open()
    await scene.settled()

    assert client.take() == [ok(None, "5", "phoenix"), refused("2", "2", NAMED, "unauthorized")]
    assert scene.is_session(client)
    assert scene.holders(NAMED) == 0


# resuming


@pytest.mark.parametrize("resume", ["no position", 7, {"last": 0}, {"last": 11}, {"first": 1}])
async def test_a_resume_that_is_none_is_refused(scene: Scene, resume: object) -> None:
    client = scene.connect()
    await client.join(KEPT, params={"resume": resume})

    assert client.take() == [refused("1", "1", KEPT, "invalid resume")]
    assert scene.counted("joins", result="invalid resume") == 1
    assert (scene.subscriptions, client.joins_under_way, scene.registry.count) == (0, 0, 0)


@pytest.mark.parametrize(("resume", "recovered"), [(None, None), ("@e.1.1", False)])
async def test_a_topic_without_history_says_so_to_who_resumes(
    scene: Scene, resume: str | None, recovered: bool | None
) -> None:
    client = scene.connect()
    await client.join(ROOM, params={"resume": resume})
    position = {"recovered": recovered, "reason": "no_history", "position": "@-.0.0"}
    await client.join(OWN, "2", {"resume": resume})

    assert client.take() == [
        ok("1", "1", ROOM, position),
        ok("2", "2", OWN, {"session": client.id} | position),
    ]
    assert scene.counted("resumes", result="no_history") == 0, "no history was asked"


async def test_who_resumes_is_a_member_behind_what_it_missed(scene: Scene) -> None:
    first = await scene.joined(KEPT)
    await scene.publish(KEPT, "missed", {"n": 1})
    client = scene.connect("43")
    await client.join(KEPT, params={"resume": {"last": 5}})
    await scene.publish(KEPT, "live", {"n": 2})

    reply, missed, live = client.take()
    before = reply[4]["response"].pop("position")
    assert reply == ok("1", "1", KEPT, {"recovered": None, "reason": None})
    assert before.startswith("@")
    assert before != missed[1], "it stands before what it is sent"
    assert (missed[2:], live[2:]) == ([KEPT, "missed", {"n": 1}], [KEPT, "live", {"n": 2}])
    assert missed[1] != live[1], "each with its position"
    assert [frame[1] for frame in first.take()] == [None, None], "who did not resume gets none"
    assert scene.counted("resumes", result="fresh") == 1
    assert scene.resuming(KEPT) == 1
    await client.leave(KEPT)
    assert (scene.resuming(KEPT), scene.members(KEPT)) == (0, 1)


async def test_a_resume_the_history_does_not_answer_is_refused(scene: Scene) -> None:
    client = scene.connect()
    scene.history.reading.open(SubscriptionRefused("away"))
    await client.join(KEPT, params={"resume": None})

    assert client.take() == [refused("1", "1", KEPT, "bus unavailable")]
    assert (scene.holders(KEPT), scene.registry.count, client.joins_under_way) == (0, 0, 0)


async def test_a_resume_that_fails_after_the_subscribing_gives_the_topic_back(
    scene: Scene,
) -> None:
    await scene.joined(KEPT, "43")  # so the topic is followed, and resuming alone reads the store
    client = scene.connect()
    scene.history.reading.open(SubscriptionRefused("away"))
    await client.join(KEPT, params={"resume": None})

    assert client.take() == [refused("1", "1", KEPT, "bus unavailable")]
    assert scene.holders(KEPT) == 1


async def test_going_while_the_history_is_asked_gives_the_topic_back(scene: Scene) -> None:
    await scene.joined(KEPT, "43")
    client = scene.connect()
    scene.history.reading.shut()
    await client.join(KEPT, params={"resume": None})
    assert scene.holders(KEPT) == 2
    await client.go()
    scene.history.reading.open()
    await scene.settled()

    assert (scene.holders(KEPT), scene.joins_in_flight) == (1, 0)


async def test_joining_again_replays_nothing_the_socket_was_sent_before(scene: Scene) -> None:
    """What replaces a channel begins where that one stood: the client cannot name it better itself."""
    client = scene.connect()
    await client.join(KEPT, params={"resume": None})
    await scene.publish(KEPT, "first", {})
    client.take()
    await client.join(KEPT, "2", {"resume": {"last": 5}})

    events = [frame[3] for frame in client.take()]
    assert events == ["phx_reply", "phx_close"], "and not the first message once more"


async def test_a_join_behind_a_leave_is_sent_what_it_asks_for(scene: Scene) -> None:
    """Only what stands in one list of effects with the channel's end replaces it."""
    client = scene.connect()
    await client.join(KEPT, params={"resume": None})
    await scene.publish(KEPT, "first", {})
    await client.leave(KEPT)
    client.take()
    await client.join(KEPT, "2", {"resume": {"last": 5}})

    events = [frame[3] for frame in client.take()]
    assert events == ["phx_reply", "first"]


@pytest.mark.parametrize("way", ["taken off", "told to join again"])
async def test_a_join_behind_an_end_from_elsewhere_is_sent_what_it_asks_for(
    scene: Scene, way: str
) -> None:
    """It replaces nothing, however soon it comes."""
    client = scene.connect()
    await client.join(KEPT, params={"resume": None})
    await scene.publish(KEPT, "first", {})
    if way == "taken off":
        client.leave_topic(KEPT)
    else:
        client.rejoin(KEPT)
    client.take()
    await client.join(KEPT, "2", {"resume": {"last": 5}})

    assert [frame[3] for frame in client.take()] == ["phx_reply", "first"]


async def test_a_resume_that_meets_a_bug_is_refused_and_logged(scene: Scene) -> None:
    client = scene.connect()
    scene.break_resume(RuntimeError("a bug"))
    with structlog.testing.capture_logs() as logs:
        await client.join(KEPT, params={"resume": None})

    assert client.take() == [refused("1", "1", KEPT, "join crashed")]
    assert [entry["event"] for entry in logs] == ["join crashed", "join refused"]


# a member that lacks messages


async def test_a_member_that_lacks_messages_is_told_to_join_again(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    client.rejoin(ROOM)

    assert client.take() == [["1", "1", ROOM, "phx_error", {}]]
    assert (scene.members(ROOM), scene.holders(ROOM), client.topics) == (0, 0, [])
    assert client.close_code is None
    await client.join(ROOM, "2")
    assert client.take() == [ok("2", "2", ROOM)]


async def test_closing_refuses_nobody(scene: Scene) -> None:
    """Whose join is under way when the socket is closed hears the close frame alone."""
    client = scene.connect()
    scene.subscribing(ROOM).shut()
    await client.join(ROOM)
    client.close(CloseCode.GOING_AWAY)
    scene.subscribing(ROOM).open()
    await scene.settled()

    assert client.take() == [(1001, "")]
    assert (scene.holders(ROOM), scene.joins_in_flight, scene.registry.count) == (0, 0, 0)


# what waits for a join


async def test_what_waited_for_a_join_is_handled_some_in_each_turn(scene: Scene) -> None:
    gate = scene.subscribing(ROOM)
    gate.shut()
    client = scene.connect()
    await client.join(ROOM)
    client.say_all(*(["1", str(ref), ROOM, "shout", {}] for ref in range(1000)))
    gate.open()
    answered = [0]
    while sum(answered) < 1001:
        await asyncio.sleep(0)
        answered.append(sum(frame[3] == "phx_reply" for frame in client.take()))

    assert max(answered) <= RESUMED_PER_TURN + 1


async def test_what_comes_while_the_rest_still_waits_comes_after_it(scene: Scene) -> None:
    gate = scene.subscribing(ROOM)
    gate.shut()
    client = scene.connect()
    await client.join(ROOM)
    client.say_all(*(["1", str(ref), ROOM, "shout", {}] for ref in range(100)))
    gate.open()
    while not client.take():  # noqa: ASYNC110 -- the turns themselves are looked at
        await asyncio.sleep(0)
    client.say_all(["1", "100", ROOM, "phx_leave", {}], ["101", "101", ROOM, "phx_join", {}])
    await scene.settled()

    replies = [frame[1] for frame in client.take() if frame[3] == "phx_reply"]
    assert replies == [str(ref) for ref in range(102 - len(replies), 102)]
    assert len(replies) > 2
