"""Newer tokens on a socket that is connected: which are taken, and what ends when they allow less."""

import pytest
import structlog.testing

from gateway.protocol.reasons import CloseCode
from tests.unit.channels.scene import (
    LEEWAY,
    NAMED,
    NOW,
    OPEN,
    OWN,
    ROOM,
    Scene,
    ended,
    ok,
    refused,
)

KEPT_ON = "named:2"


async def test_a_newer_token_of_the_same_user_is_taken(scene: Scene) -> None:
    client = await scene.joined(ROOM, seconds=60)
    await client.refresh(scene.token(seconds=600))

    assert client.take() == [ok(None, "5", "phoenix")]
    assert client.expires_at == NOW + 600
    assert scene.counted("token_refreshes", result="ok") == 1
    assert (client.topics, scene.tasks) == ([ROOM], 0)


async def test_a_newer_token_on_a_channel_is_answered_there(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await client.refresh(scene.token(seconds=600), topic=ROOM)

    assert client.take() == [ok("1", "5", ROOM)]
    assert client.expires_at == NOW + 600


async def test_a_newer_token_allows_what_it_allows(scene: Scene) -> None:
    client = await scene.joined(ROOM)
    await client.refresh(scene.token(topics=[NAMED]))
    client.take()
    await client.join(NAMED, "2")

    assert client.take() == [ok("2", "2", NAMED)]


@pytest.mark.parametrize(
    ("user", "seconds", "result"),
    [("43", 600, "token_subject"), ("42", -LEEWAY - 1, "token_expired")],
)
async def test_a_token_that_is_not_good_changes_nothing(
    scene: Scene, user: str, seconds: float, result: str
) -> None:
    client = await scene.joined(ROOM, seconds=60)
    await client.refresh(scene.token(user, seconds=seconds))

    assert client.take() == [refused(None, "5", "phoenix", "unauthorized")]
    assert (client.user, client.expires_at, client.topics) == ("42", NOW + 60, [ROOM])
    assert scene.counted("token_refreshes", result=result) == 1
    assert client.close_code is None
    await client.refresh(scene.token(seconds=600))
    assert client.take() == [ok(None, "5", "phoenix")], "the next one may be good"


async def test_a_token_that_is_none_changes_nothing(scene: Scene) -> None:
    client = await scene.joined(ROOM, seconds=60)
    await client.refresh("no token")

    assert client.take() == [refused(None, "5", "phoenix", "unauthorized")]
    assert scene.counted("token_refreshes", result="token_malformed") == 1
    assert client.expires_at == NOW + 60


async def test_a_token_that_was_called_back_is_not_taken(scene: Scene) -> None:
    client = await scene.joined(ROOM, seconds=60)
    scene.revoked.add("42")
    await client.refresh(scene.token(seconds=600))

    assert client.take() == [refused(None, "5", "phoenix", "unauthorized")]
    assert scene.counted("token_refreshes", result="token_revoked") == 1
    assert client.expires_at == NOW + 60


async def test_a_stranger_becomes_nobody_by_a_token(scene: Scene) -> None:
    stranger = await scene.joined(OPEN, None)
    await stranger.refresh(scene.token())

    assert stranger.take() == [refused(None, "5", "phoenix", "unauthorized")]
    assert stranger.user is None


async def test_one_token_is_looked_at_at_a_time(scene: Scene) -> None:
    """Its key may have to be fetched first. Another is refused meanwhile, and heartbeats are answered."""
    client = await scene.joined(ROOM)
    scene.looking.shut()
    await client.refresh(scene.token(seconds=600), "5")
    await client.refresh(scene.token(seconds=700), "6")
    await client.refresh(scene.token(seconds=700), "7", ROOM)
    await client.heartbeat("8")
    assert client.take() == [
        refused(None, "6", "phoenix", "rate limited"),
        refused("1", "7", ROOM, "rate limited"),
        ok(None, "8", "phoenix"),
    ]
    scene.looking.open()
    await scene.settled()

    assert client.take() == [ok(None, "5", "phoenix")]
    assert client.expires_at == NOW + 600
    assert scene.looking.waiting == 0
    await client.refresh(scene.token(seconds=800), "9")
    assert client.take() == [ok(None, "9", "phoenix")]


async def test_a_look_that_meets_a_bug_changes_nothing_and_is_logged(scene: Scene) -> None:
    client = await scene.joined(ROOM, seconds=60)
    scene.looking.open(RuntimeError("a bug"))
    with structlog.testing.capture_logs() as logs:
        await client.refresh(scene.token(seconds=600))

    assert client.take() == [refused(None, "5", "phoenix", "unauthorized")]
    assert [entry["event"] for entry in logs] == ["refresh crashed"]
    assert scene.counted("token_refreshes", result="crashed") == 1
    assert (client.expires_at, client.topics, client.close_code) == (NOW + 60, [ROOM], None)
    scene.looking.open()
    await client.refresh(scene.token(seconds=600))
    assert client.take() == [ok(None, "5", "phoenix")]


async def test_an_answer_goes_to_no_later_channel(scene: Scene) -> None:
    """The token counts all the same: it is the socket's, not the channel's."""
    client = await scene.joined(ROOM)
    scene.looking.shut()
    await client.refresh(scene.token(seconds=600), topic=ROOM)
    await client.leave(ROOM)
    await client.join(ROOM)
    client.take()
    scene.looking.open()
    await scene.settled()

    assert client.take() == []
    assert client.expires_at == NOW + 600


@pytest.mark.parametrize("way", ["gone", "closed", "ended before it began"])
async def test_a_look_ends_with_its_socket(scene: Scene, way: str) -> None:
    client = await scene.joined(ROOM, seconds=60)
    scene.looking.shut()
    if way == "ended before it began":
        await client.refresh_and_go(scene.token(seconds=600))
    else:
        await client.refresh(scene.token(seconds=600))
        assert scene.tasks == 1
        if way == "gone":
            await client.go()
        else:
            client.close(CloseCode.GOING_AWAY)
            await scene.settled()
    assert (scene.tasks, scene.looking.waiting) == (0, 0)
    scene.looking.open()
    await scene.settled()

    assert client.expires_at == NOW + 60
    assert [frame for frame in client.take() if isinstance(frame, list)] == []
    assert scene.counted("token_refreshes", result="ok") == 0


# a token that allows less


async def test_channels_the_newer_token_does_not_allow_end_behind_its_answer(
    scene: Scene,
) -> None:
    client = await scene.joined(NAMED, topics=("named:*",))
    await client.join(KEPT_ON, "2")
    await client.join("named:3", "3")
    await client.join(OWN, "4")
    client.take()
    await client.refresh(scene.token(topics=[KEPT_ON]))

    assert client.take() == [
        ok(None, "5", "phoenix"),
        ended("1", NAMED),
        ended("3", "named:3"),
    ]
    assert client.topics == [KEPT_ON, OWN]
    assert (scene.members(NAMED), scene.holders(NAMED), scene.members(KEPT_ON)) == (0, 0, 1)
    assert scene.is_session(client)
    await scene.publish(NAMED, "late", {})
    assert client.take() == []


async def test_a_channel_that_ends_by_its_own_token_is_answered_first(scene: Scene) -> None:
    client = await scene.joined(NAMED, topics=(NAMED,))
    await client.refresh(scene.token(), topic=NAMED)

    assert client.take() == [ok("1", "5", NAMED), ended("1", NAMED)]


async def test_pushes_that_wait_on_a_channel_that_ends_are_dropped_and_counted(
    scene: Scene,
) -> None:
    """Those of other channels go on, and what the backend has already."""
    client = await scene.joined(NAMED, topics=("named:*",))
    await client.join(KEPT_ON, "2")
    for event in ("first", "second", "third"):
        await client.push(NAMED, event, ref=event)
    await client.say(["2", "r", KEPT_ON, "elsewhere", {}])
    client.take()
    await client.refresh(scene.token(topics=[KEPT_ON]))
    assert client.take() == [ok(None, "5", "phoenix"), ended("1", NAMED)]
    assert scene.counted("messages_dropped", reason="not_member") == 2
    for _ in range(2):
        scene.backend.last.take()
        await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["first", "elsewhere"]
    assert client.take() == [ok("2", "r", KEPT_ON)]


async def test_a_token_that_is_refused_ends_no_channel(scene: Scene) -> None:
    client = await scene.joined(NAMED, topics=(NAMED,))
    await client.refresh(scene.token("43"))

    assert client.take() == [refused(None, "5", "phoenix", "unauthorized")]
    assert client.topics == [NAMED]


# when a token ends


async def test_a_socket_is_closed_when_its_token_has_expired(scene: Scene) -> None:
    """With the leeway of a handshake: closed earlier, it would come back with the same token at once."""
    client = await scene.joined(ROOM, seconds=30)
    await scene.pass_time(30 + LEEWAY - 1)
    assert client.take() == []
    await scene.pass_time(2)

    assert client.take() == [(4003, "")]
    assert (scene.registry.count, scene.holders(ROOM)) == (0, 0)


async def test_a_later_end_is_honoured(scene: Scene) -> None:
    client = await scene.joined(ROOM, seconds=30)
    await client.refresh(scene.token(seconds=60))
    client.take()
    await scene.pass_time(60 + LEEWAY - 1)
    assert client.take() == []
    await scene.pass_time(2)

    assert client.take() == [(4003, "")]


async def test_an_earlier_end_is_honoured(scene: Scene) -> None:
    """Long before the socket would be looked at for any other reason."""
    client = await scene.joined(ROOM, seconds=3600)
    await client.refresh(scene.token(seconds=20))
    client.take()
    await scene.pass_time(20 + LEEWAY - 1)
    assert client.take() == []
    await scene.pass_time(2)

    assert client.take() == [(4003, "")]


async def test_an_earlier_end_that_is_put_off_again_closes_nothing(scene: Scene) -> None:
    client = await scene.joined(ROOM, seconds=3600)
    await client.refresh(scene.token(seconds=20))
    await client.refresh(scene.token(seconds=3600))
    client.take()
    await scene.pass_time(20 + LEEWAY + 5)

    assert client.take() == []
    assert client.close_code is None


async def test_a_stranger_never_expires(scene: Scene) -> None:
    stranger = await scene.joined(OPEN, None)
    for _ in range(5):
        await scene.pass_time(60)
        await stranger.heartbeat("1")

    assert stranger.close_code is None
