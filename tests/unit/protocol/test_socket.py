"""The protocol core: each input, and the effects it has in their order."""

import json
from typing import Any

import pytest

from gateway.protocol.channel import MAX_HELD_BYTES
from gateway.protocol.effects import (
    Activate,
    Authorize,
    Close,
    Effect,
    Forward,
    Ignore,
    Refresh,
    RefuseJoin,
    Resume,
    Send,
    Subscribe,
    Unsubscribe,
    UpdatePresence,
)
from gateway.protocol.messages import Message, Undecodable
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.socket import Socket
from gateway.protocol.v2 import V2

ROOM = "room:1"


class Client:
    """A core, driven as its shell drives it, with decisions that come at once or when told."""

    def __init__(self, *, immediate: bool = True, max_channels: int = 100) -> None:
        self.socket = Socket(max_channels=max_channels)
        self.immediate = immediate
        self.refuse: Reason | None = None
        self.may_push = True
        self.shows_presence = False
        self.sent: list[Any] = []
        self.effects: list[Effect] = []
        self.active: dict[str, int] = {}
        self.subscribed: set[int] = set()
        self.unsubscribed: set[int] = set()

    def receive(self, *frame: Any) -> None:
        """One V2 frame arrives."""
        self.perform(self.socket.receive(V2().decode(json.dumps(frame))))

    def perform(self, effects: list[Effect]) -> None:
        """Carry out what the core asks, appending what follows."""
        for effect in effects:
            self.effects.append(effect)
            match effect:
                case Send() | RefuseJoin():
                    self.sent.append(json.loads(V2().encode(effect.message)))
                case Authorize() if self.immediate:
                    effects += self.socket.join_decided(
                        effect.topic,
                        effect.attempt,
                        refused=self.refuse,
                        may_push=self.may_push,
                        shows_presence=self.shows_presence,
                    )
                case Subscribe():
                    self.subscribed.add(effect.attempt)
                    if self.immediate:
                        effects += self.socket.subscribed(effect.topic, effect.attempt)
                case Activate():
                    self.active[effect.topic] = effect.attempt
                case Unsubscribe():
                    assert effect.attempt not in self.unsubscribed
                    self.unsubscribed.add(effect.attempt)
                    self.subscribed.discard(effect.attempt)
                    self.active.pop(effect.topic, None)
                case Resume():
                    effects += self.socket.resume(effect.topic, effect.attempt)
                case Forward() if self.immediate:
                    effects += self.socket.push_answered(effect.topic, effect.attempt, effect.ref)

    def take(self) -> list[Any]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


def ok(join_ref: Any, ref: Any, topic: str = ROOM) -> list[Any]:
    """An ok reply, decoded."""
    return [join_ref, ref, topic, "phx_reply", {"status": "ok", "response": {}}]


def error(join_ref: Any, ref: Any, reason: str, topic: str = ROOM) -> list[Any]:
    """An error reply, decoded."""
    return [join_ref, ref, topic, "phx_reply", {"status": "error", "response": {"reason": reason}}]


def closed(join_ref: Any, topic: str = ROOM) -> list[Any]:
    """A phx_close, decoded."""
    return [join_ref, join_ref, topic, "phx_close", {}]


@pytest.fixture
def joined() -> Client:
    """A client that joined ROOM with join_ref "1"."""
    client = Client()
    client.receive("1", "1", ROOM, "phx_join", {})
    client.take()
    return client


def test_a_join_is_answered_before_it_is_activated() -> None:
    client = Client()
    client.receive("1", "1", ROOM, "phx_join", {"a": 1})

    assert client.take() == [ok("1", "1")]
    kinds = [type(effect) for effect in client.effects]
    assert kinds == [Authorize, Subscribe, Send, Activate]
    assert client.effects[0] == Authorize(ROOM, 1, b'{"a": 1}')


def test_the_ok_waits_for_the_bus() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.perform(client.socket.join_decided(ROOM, 1))
    assert client.take() == []

    client.perform(client.socket.subscribed(ROOM, 1, b'{"session":"s"}'))

    assert client.take() == [
        ["1", "1", ROOM, "phx_reply", {"status": "ok", "response": {"session": "s"}}]
    ]


@pytest.mark.parametrize("reason", [Reason.UNAUTHORIZED, Reason.JOIN_CRASHED])
def test_a_refused_join_leaves_the_topic_unjoined(reason: Reason) -> None:
    client = Client()
    client.refuse = reason
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "shout", {})

    assert client.take() == [error("1", "1", reason), error(None, "2", "unmatched topic")]
    assert not client.subscribed


def test_an_unmatched_join_has_no_join_ref_in_its_reply() -> None:
    client = Client()
    client.refuse = Reason.UNMATCHED_TOPIC
    client.receive("1", "1", ROOM, "phx_join", {})

    assert client.take() == [error(None, "1", "unmatched topic")]


def test_a_join_the_bus_cannot_serve_is_refused() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.perform(client.socket.join_decided(ROOM, 1))
    client.perform(client.socket.subscribe_failed(ROOM, 1, Reason.BUS_UNAVAILABLE))

    assert client.take() == [error("1", "1", "bus unavailable")]
    assert client.socket.topics == []


def test_a_decision_for_one_join_does_not_admit_another_with_the_same_join_ref() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.perform(client.socket.join_decided(ROOM, 1, refused=Reason.UNAUTHORIZED))
    client.receive("1", "1", ROOM, "phx_join", {})

    client.perform(client.socket.join_decided(ROOM, 1))

    assert Subscribe(ROOM, 1) not in client.effects
    assert client.socket.join_decided(ROOM, 2) == [Subscribe(ROOM, 2)]


def test_rejoin_closes_the_old_join_ref_after_the_reply(joined: Client) -> None:
    joined.receive("5", "5", ROOM, "phx_join", {})

    assert joined.take() == [ok("5", "5"), closed("1")]
    assert joined.active == {ROOM: 2}
    assert joined.subscribed == {2}


def test_the_old_channel_hears_nothing_while_its_rejoin_is_decided(joined: Client) -> None:
    joined.immediate = False
    joined.receive("5", "5", ROOM, "phx_join", {})

    assert joined.effects[-2:] == [Unsubscribe(ROOM, 1), Authorize(ROOM, 2, b"{}")]


def test_a_refused_rejoin_ends_the_old_channel_all_the_same(joined: Client) -> None:
    joined.refuse = Reason.UNAUTHORIZED
    joined.receive("5", "5", ROOM, "phx_join", {})

    assert joined.take() == [error("5", "5", "unauthorized"), closed("1")]
    assert not joined.subscribed


def test_leave_is_answered_then_closed_and_hears_nothing_in_between(joined: Client) -> None:
    joined.receive("1", "2", ROOM, "phx_leave", {})

    assert joined.take() == [ok("1", "2"), closed("1")]
    assert [type(effect) for effect in joined.effects[-3:]] == [Unsubscribe, Send, Send]
    joined.receive("1", "3", ROOM, "phx_leave", {})
    assert joined.take() == [ok("1", "3")]


def test_a_leave_without_a_join_ref_is_of_the_channel_there_is(joined: Client) -> None:
    joined.receive(None, "2", ROOM, "phx_leave", {})

    assert joined.take() == [ok("1", "2"), closed("1")]
    assert joined.socket.topics == []


@pytest.mark.parametrize("join_ref", ["99", "", 1, 0, False])
def test_a_leave_with_another_join_ref_is_ignored(joined: Client, join_ref: object) -> None:
    joined.receive(join_ref, "2", ROOM, "phx_leave", {})

    assert joined.take() == []
    assert joined.socket.topics == [ROOM]


def test_leaving_a_topic_never_joined_is_fine() -> None:
    client = Client()
    client.receive("1", "2", "room:never", "phx_leave", {})

    assert client.take() == [ok("1", "2", "room:never")]


@pytest.mark.parametrize("join_ref", ["1", None])
def test_a_push_is_answered_with_the_current_join_ref(joined: Client, join_ref: object) -> None:
    joined.receive(join_ref, "2", ROOM, "shout", {"x": 1})

    assert joined.take() == [ok("1", "2")]
    forward = Forward(ROOM, 1, b'"2"', "shout", b'{"x": 1}', binary=False)
    assert forward in joined.effects


@pytest.mark.parametrize(
    "event", ["shout", "presence_update", "access_token", "phx_leave", "phx_close"]
)
@pytest.mark.parametrize("join_ref", ["99", "", 1, 0, False])
def test_what_is_meant_for_another_join_is_counted_alone(
    joined: Client, join_ref: object, event: str
) -> None:
    joined.receive(join_ref, "2", ROOM, event, {"x": 1})

    assert joined.take() == []
    assert joined.effects[-1] == Ignore()
    assert joined.socket.topics == [ROOM]


def test_a_leave_waits_for_the_answers_to_the_pushes_before_it(joined: Client) -> None:
    joined.immediate = False
    joined.receive("1", "2", ROOM, "shout", {})
    joined.receive("1", "3", ROOM, "shout", {})
    joined.receive("1", "4", ROOM, "phx_leave", {})
    joined.receive("1", "5", ROOM, "shout", {})
    joined.perform(joined.socket.push_answered(ROOM, 1, b'"2"'))
    assert joined.take() == [ok("1", "2")]
    assert joined.active == {ROOM: 1}

    joined.perform(joined.socket.push_answered(ROOM, 1, b'"3"', refused=Reason.UPSTREAM_TIMEOUT))

    assert joined.take() == [
        error("1", "3", "upstream timeout"),
        ok("1", "4"),
        closed("1"),
        error(None, "5", "unmatched topic"),
    ]
    assert not joined.subscribed


def test_a_join_behind_a_leave_waits_for_no_push(joined: Client) -> None:
    joined.immediate = False
    joined.receive("1", "2", ROOM, "shout", {})
    joined.receive("1", "3", ROOM, "phx_leave", {})
    joined.immediate = True
    joined.receive("4", "4", ROOM, "phx_join", {})
    assert joined.take() == [ok("1", "3"), closed("1"), ok("4", "4")]

    joined.perform(joined.socket.push_answered(ROOM, 1, b'"2"'))

    assert joined.take() == []


def test_what_waits_behind_a_leave_is_answered_when_the_channel_is_ended(joined: Client) -> None:
    joined.immediate = False
    joined.receive("1", "2", ROOM, "shout", {})
    joined.receive("1", "3", ROOM, "phx_leave", {})
    joined.receive("1", "4", ROOM, "shout", {})

    joined.perform(joined.socket.end(ROOM))

    assert joined.take() == [ok("1", "3"), error("1", "4", "unauthorized"), closed("1")]


def test_a_push_with_a_null_ref_is_answered_too(joined: Client) -> None:
    joined.receive("1", None, ROOM, "shout", {})

    assert joined.take() == [ok("1", None)]


def test_the_bus_refusing_a_push_is_its_reply(joined: Client) -> None:
    joined.immediate = False
    joined.receive("1", "2", ROOM, "shout", {})
    joined.perform(joined.socket.push_answered(ROOM, 1, b'"2"', refused=Reason.BUS_UNAVAILABLE))

    assert joined.take() == [error("1", "2", "bus unavailable")]


def test_an_answer_for_a_channel_that_was_ended_is_not_sent(joined: Client) -> None:
    joined.immediate = False
    joined.receive("1", "2", ROOM, "shout", {})
    joined.perform(joined.socket.end(ROOM))
    joined.take()

    joined.perform(joined.socket.push_answered(ROOM, 1, b'"2"'))

    assert joined.take() == []


@pytest.mark.parametrize(
    "event",
    [
        "phx_close",
        "phx_error",
        "phx_reply",
        "phx_anything",
        "chan_reply_1",
        "presence_state",
        "presence_diff",
        "presence_count",
        "presence_update",
        "position",
        "live",
    ],
)
def test_a_reserved_event_is_not_forwarded(joined: Client, event: str) -> None:
    joined.receive("1", "2", ROOM, event, {})

    assert joined.take() == [error("1", "2", "push not allowed")]


def test_a_push_is_answered_in_a_backends_words(joined: Client) -> None:
    joined.immediate = False
    joined.receive("1", "2", ROOM, "say", {})
    joined.perform(joined.socket.push_answered(ROOM, 1, b'"2"', response=b'{"id":7}'))
    joined.perform(joined.socket.push_answered(ROOM, 1, b'"3"', refused=b'{"errors":[1]}'))

    assert joined.take() == [
        ["1", "2", ROOM, "phx_reply", {"status": "ok", "response": {"id": 7}}],
        ["1", "3", ROOM, "phx_reply", {"status": "error", "response": {"errors": [1]}}],
    ]


def test_a_join_is_refused_in_a_backends_words() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.perform(client.socket.join_decided(ROOM, 1, refused=b'{"reason":"not a member"}'))

    assert client.take() == [error("1", "1", "not a member")]
    [refusal] = [effect for effect in client.effects if isinstance(effect, RefuseJoin)]
    assert refusal.reason is None
    assert client.socket.topics == []


@pytest.mark.parametrize(
    ("join_ref", "topic", "attempt"), [("1", ROOM, 1), (None, "phoenix", 0), ("9", "phoenix", 0)]
)
def test_new_credentials_are_for_the_whole_socket(
    joined: Client, join_ref: str | None, topic: str, attempt: int
) -> None:
    joined.receive(join_ref, 5, topic, "access_token", {"access_token": "a.b.c", "more": 1})
    assert joined.effects[-1] == Refresh(topic, attempt, b"5", "a.b.c")
    joined.perform(joined.socket.refresh_answered(topic, attempt, b"5"))
    joined.perform(
        joined.socket.refresh_answered(topic, attempt, b"6", refused=Reason.UNAUTHORIZED)
    )

    echoed = join_ref if attempt else None
    assert joined.take() == [ok(echoed, 5, topic), error(echoed, 6, "unauthorized", topic)]


def test_channels_that_new_credentials_do_not_allow_end_after_the_answer(joined: Client) -> None:
    joined.receive("2", "2", "room:2", "phx_join", {})
    joined.take()
    joined.receive("1", "3", ROOM, "access_token", {"access_token": "x"})
    joined.perform(joined.socket.refresh_answered(ROOM, 1, b'"3"', ended=[ROOM, "room:gone"]))

    assert joined.take() == [ok("1", "3"), closed("1")]
    assert joined.socket.topics == ["room:2"]
    assert joined.active == {"room:2": 2}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([], "malformed"),
        ("a.b.c", "malformed"),
        (None, "malformed"),
        ({}, "unauthorized"),
        ({"access_token": 7}, "unauthorized"),
        ({"access_token": None}, "unauthorized"),
        ({"token": "a.b.c"}, "unauthorized"),
    ],
)
@pytest.mark.parametrize("topic", [ROOM, "phoenix"])
def test_what_is_no_token_is_refused_at_once(
    joined: Client, topic: str, payload: object, reason: str
) -> None:
    joined.receive("1", "2", topic, "access_token", payload)

    assert joined.take() == [error("1" if topic == ROOM else None, "2", reason, topic)]


def test_a_token_on_a_topic_that_was_not_joined_finds_no_channel() -> None:
    client = Client()
    client.receive(None, "1", ROOM, "access_token", {"access_token": "x"})

    assert client.take() == [error(None, "1", "unmatched topic")]


def test_a_rule_may_deny_pushes() -> None:
    client = Client()
    client.may_push = False
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "shout", {})

    assert client.take() == [ok("1", "1"), error("1", "2", "push not allowed")]


@pytest.mark.parametrize("payload", ["str", [1], None, 1, True])
def test_a_push_whose_payload_is_no_object_is_malformed(joined: Client, payload: object) -> None:
    joined.receive("1", "2", ROOM, "shout", payload)

    assert joined.take() == [error("1", "2", "malformed")]


def test_a_binary_push_is_forwarded_whatever_its_bytes(joined: Client) -> None:
    joined.perform(
        joined.socket.receive(Message(b'"1"', b'"2"', ROOM, "shout", b"\x00", binary=True))
    )

    assert Forward(ROOM, 1, b'"2"', "shout", b"\x00", binary=True) in joined.effects


def test_a_binary_join_has_no_params() -> None:
    client = Client()
    client.perform(client.socket.receive(Message(b'"1"', b'"1"', ROOM, "phx_join", b"x", True)))

    assert client.effects[0] == Authorize(ROOM, 1, None)


@pytest.mark.parametrize(
    ("join_ref", "ref", "event", "reply"),
    [
        (None, "1", "heartbeat", ok(None, "1", "phoenix")),
        (None, None, "heartbeat", ok(None, None, "phoenix")),
        ("9", 2, "heartbeat", ok(None, 2, "phoenix")),
        (None, "3", "other", error(None, "3", "unmatched topic", "phoenix")),
        ("1", "4", "phx_join", error(None, "4", "unmatched topic", "phoenix")),
        ("1", "5", "phx_leave", error(None, "5", "unmatched topic", "phoenix")),
    ],
)
def test_the_phoenix_topic(join_ref: object, ref: object, event: str, reply: list[Any]) -> None:
    client = Client()
    client.receive(join_ref, ref, "phoenix", event, {"x": 1})

    assert client.take() == [reply]


def test_heartbeats_are_answered_while_a_join_is_under_way() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive(None, "2", "phoenix", "heartbeat", {})

    assert client.take() == [ok(None, "2", "phoenix")]


def test_the_channel_limit_counts_joins_under_way_and_spares_rejoins() -> None:
    client = Client(immediate=False, max_channels=2)
    client.receive("1", "1", "room:1", "phx_join", {})
    client.receive("2", "2", "room:2", "phx_join", {})
    client.receive("3", "3", "room:3", "phx_join", {})
    assert client.take() == [error("3", "3", "too many channels joined", "room:3")]

    client.immediate = True
    client.perform(client.socket.join_decided("room:1", 1))
    client.receive("4", "4", "room:1", "phx_join", {})

    assert client.take() == [ok("1", "1"), ok("4", "4"), closed("1")]


def test_messages_wait_for_the_join_before_them_and_come_in_order() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "shout", {})
    client.receive("3", "3", ROOM, "phx_join", {})
    client.receive("3", "4", ROOM, "shout", {})
    client.receive("3", "5", ROOM, "phx_leave", {})
    client.receive("3", "6", ROOM, "shout", {})
    assert client.take() == []

    client.immediate = True
    client.perform(client.socket.join_decided(ROOM, 1, may_push=True))

    assert client.take() == [
        ok("1", "1"),
        ok("1", "2"),
        ok("3", "3"),
        closed("1"),
        ok("3", "4"),
        ok("3", "5"),
        closed("3"),
        error(None, "6", "unmatched topic"),
    ]
    assert not client.subscribed


def test_messages_that_waited_for_a_refused_join_find_no_channel() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "shout", {})
    client.receive("1", "3", ROOM, "phx_leave", {})
    client.receive("4", "4", ROOM, "phx_join", {})
    client.receive("4", "5", ROOM, "shout", {})
    client.perform(client.socket.join_decided(ROOM, 1, refused=Reason.UNAUTHORIZED))

    assert client.take() == [
        error("1", "1", "unauthorized"),
        error(None, "2", "unmatched topic"),
        ok("1", "3"),
    ]
    client.immediate = True
    client.perform(client.socket.join_decided(ROOM, 2, may_push=True))
    assert client.take() == [ok("4", "4"), ok("4", "5")]


def test_a_thousand_messages_may_wait_and_those_above_are_refused() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    for ref in range(1000):
        client.receive("1", ref, ROOM, "shout", {})
    assert client.take() == []

    for ref in range(1000, 1025):
        client.receive("1", ref, ROOM, "shout", {})
    client.receive("9", "9", ROOM, "phx_join", {})

    assert client.take()[-2:] == [error("1", 1024, "rate limited"), error("9", "9", "rate limited")]
    assert isinstance(client.effects[-1], RefuseJoin)


def test_what_waits_for_all_joins_of_a_socket_is_bounded() -> None:
    client = Client(immediate=False)
    half = {"x": "x" * (MAX_HELD_BYTES // 2 - 512 - len('{"x": ""}"1""3"'))}
    client.receive("1", "1", "room:1", "phx_join", {})
    client.receive("2", "2", "room:2", "phx_join", {})
    client.receive("1", "3", "room:1", "shout", half)
    client.receive("2", "4", "room:2", "shout", half)
    assert client.take() == []
    client.receive("1", "5", "room:1", "shout", {})
    client.receive("2", "6", "room:2", "phx_leave", {})
    assert client.take() == [
        error("1", "5", "rate limited", "room:1"),
        error("2", "6", "rate limited", "room:2"),
    ]

    client.immediate = True
    client.perform(client.socket.join_decided("room:1", 1, may_push=True))
    assert client.take() == [ok("1", "1", "room:1"), ok("1", "3", "room:1")]
    client.receive("2", "7", "room:2", "shout", half)

    assert client.take() == []  # there is room for it again


def test_refs_count_too_among_what_waits() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    refs, payload = 512 + len('"1"') + 252, len('{"x": ""}')
    for ref in "2345":
        text = "x" * (MAX_HELD_BYTES // 4 - refs - payload)
        client.receive("1", ref * 250, ROOM, "shout", {"x": text})
    assert client.take() == []

    client.receive("1", "6", ROOM, "shout", {})

    assert client.take() == [error("1", "6", "rate limited")]


def test_one_message_waits_however_long_it_is() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "shout", {"x": "x" * MAX_HELD_BYTES})
    assert client.take() == []
    client.receive("1", "3", ROOM, "shout", {})
    assert client.take() == [error("1", "3", "rate limited")]


def test_what_waits_behind_a_push_is_refused_when_the_channel_is_ended() -> None:
    """The push before it is on its way to the bus, whose answer has not come."""
    client = Client(immediate=False)
    for attempt in range(1, 4):
        client.receive("1", "1", ROOM, "phx_join", {})
        client.receive("1", "2", ROOM, "shout", {})
        client.receive("1", "3", ROOM, "shout", {"x": "x" * (MAX_HELD_BYTES // 2)})
        client.perform(client.socket.join_decided(ROOM, attempt, may_push=True))
        client.socket.subscribed(ROOM, attempt)
        assert isinstance(client.socket.resume(ROOM, attempt)[0], Forward)
        client.take()

        client.perform(client.socket.end(ROOM))

        assert client.take() == [
            error("1", "3", "unauthorized"),
            ["1", "1", ROOM, "phx_close", {}],
        ]


@pytest.mark.parametrize("way", ["refused", "failed", "ended", "crashed", "resumed"])
def test_room_for_what_waits_is_given_back_whichever_way_a_join_ends(way: str) -> None:
    client = Client(immediate=False)
    whole = {"x": "x" * (MAX_HELD_BYTES - len('{"x": ""}"1""2"'))}
    for attempt in range(1, 4):
        client.receive("1", "1", ROOM, "phx_join", {})
        client.receive("1", "2", ROOM, "shout", whole)
        assert client.take() == []
        socket = client.socket
        if way == "refused":
            client.perform(socket.join_decided(ROOM, attempt, refused=Reason.UNAUTHORIZED))
        elif way == "ended":
            client.perform(socket.end(ROOM))
        else:
            client.perform(socket.join_decided(ROOM, attempt, may_push=True))
            if way == "failed":
                client.perform(socket.subscribe_failed(ROOM, attempt, Reason.BUS_UNAVAILABLE))
            elif way == "crashed":
                socket.subscribed(ROOM, attempt)
                client.perform(socket.crash(ROOM, attempt))
            else:
                client.perform(socket.subscribed(ROOM, attempt))
                client.perform(socket.push_answered(ROOM, attempt, b'"2"'))
                client.receive("1", "3", ROOM, "phx_leave", {})
        client.take()


@pytest.fixture
def present() -> Client:
    """A client that joined ROOM with join_ref "1", where others see it."""
    client = Client()
    client.shows_presence = True
    client.may_push = False
    client.receive("1", "1", ROOM, "phx_join", {})
    client.take()
    return client


def test_a_presence_update_is_handed_on_and_answered(present: Client) -> None:
    present.receive("1", "2", ROOM, "presence_update", {"x": 1})
    assert present.effects[-1] == UpdatePresence(ROOM, 1, b'"2"', b'{"x": 1}')
    present.perform(present.socket.push_answered(ROOM, 1, b'"2"'))
    present.perform(present.socket.push_answered(ROOM, 1, b'"3"', refused=Reason.PAYLOAD_TOO_LARGE))

    assert present.take() == [ok("1", "2"), error("1", "3", "payload too large")]


@pytest.mark.parametrize("payload", ["str", [1], None, 1, True])
def test_a_presence_update_that_is_no_object_is_malformed(present: Client, payload: object) -> None:
    present.receive("1", "2", ROOM, "presence_update", payload)

    assert present.take() == [error("1", "2", "malformed")]


def test_a_binary_presence_update_is_malformed(present: Client) -> None:
    message = Message(b'"1"', b'"2"', ROOM, "presence_update", b"{}", binary=True)
    present.perform(present.socket.receive(message))

    assert present.take() == [error("1", "2", "malformed")]


@pytest.mark.parametrize("event", ["presence_state", "presence_diff", "phx_close"])
def test_where_others_see_a_client_other_events_stay_reserved(present: Client, event: str) -> None:
    present.receive("1", "2", ROOM, event, {})

    assert present.take() == [error("1", "2", "push not allowed")]


def test_a_presence_update_waits_for_its_join() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "presence_update", {})
    client.perform(client.socket.join_decided(ROOM, 1, shows_presence=True))
    client.perform(client.socket.subscribed(ROOM, 1))

    assert client.effects[-1] == UpdatePresence(ROOM, 1, b'"2"', b"{}")


def test_a_push_of_the_gateways_own_is_for_the_join_it_was_meant_for(joined: Client) -> None:
    joined.perform(joined.socket.push(ROOM, 1, "presence_state", b'{"a":1}'))
    joined.perform(joined.socket.push(ROOM, 2, "presence_state", b"{}"))
    joined.perform(joined.socket.push("room:2", 1, "presence_state", b"{}"))

    assert joined.take() == [["1", None, ROOM, "presence_state", {"a": 1}]]


def test_the_gateway_pushes_nothing_before_the_reply() -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})

    assert client.socket.push(ROOM, 1, "presence_state", b"{}") == []


def test_ending_a_channel_closes_it_and_nothing_else(joined: Client) -> None:
    joined.receive("2", "2", "room:2", "phx_join", {})
    joined.take()
    joined.perform(joined.socket.end(ROOM))

    assert joined.take() == [closed("1")]
    assert [type(effect) for effect in joined.effects[-2:]] == [Unsubscribe, Send]
    assert joined.socket.topics == ["room:2"]
    assert joined.socket.end(ROOM) == []


@pytest.mark.parametrize("subscribing", [False, True])
def test_ending_a_join_under_way_refuses_it(subscribing: bool) -> None:
    client = Client(immediate=False)
    client.receive("1", "1", ROOM, "phx_join", {})
    client.receive("1", "2", ROOM, "shout", {})
    client.receive("3", "3", ROOM, "phx_join", {})
    if subscribing:
        client.perform(client.socket.join_decided(ROOM, 1))
    client.perform(client.socket.end(ROOM))

    assert client.take() == [
        error("1", "1", "unauthorized"),
        error("1", "2", "unauthorized"),
        error("3", "3", "unauthorized"),
    ]
    assert client.subscribed == set()
    assert client.socket.subscribed(ROOM, 1) == []


def test_ending_a_rejoin_under_way_closes_the_old_channel_too(joined: Client) -> None:
    joined.immediate = False
    joined.receive("5", "5", ROOM, "phx_join", {})
    joined.perform(joined.socket.end(ROOM))

    assert joined.take() == [error("5", "5", "unauthorized"), closed("1")]
    assert joined.subscribed == set()


def test_ending_all_channels_closes_each_after_its_last_message(joined: Client) -> None:
    joined.receive("2", "2", "room:2", "phx_join", {})
    joined.immediate = False
    joined.receive("3", "3", "room:3", "phx_join", {})
    joined.take()
    effects = joined.socket.end_all()
    joined.perform(effects)

    assert joined.take() == [
        closed("1"),
        closed("2", "room:2"),
        error("3", "3", "session limit reached", "room:3"),
        closed("3", "room:3"),
    ]
    assert [type(effect) for effect in effects[:2]] == [Unsubscribe, Unsubscribe]
    assert joined.subscribed == set()
    assert joined.socket.topics == []
    assert joined.socket.end_all() == []


def test_disconnecting_undoes_every_subscription_whatever_its_stage(joined: Client) -> None:
    joined.immediate = False
    joined.receive("2", "2", "room:2", "phx_join", {})
    joined.receive("3", "3", "room:3", "phx_join", {})
    joined.perform(joined.socket.join_decided("room:3", 3))

    joined.perform(joined.socket.disconnected())

    assert joined.subscribed == set()
    assert joined.socket.topics == []
    assert joined.socket.subscribed("room:3", 3) == []
    assert joined.socket.join_decided("room:2", 2) == []


def test_ten_malformed_frames_in_a_minute_close_the_socket() -> None:
    socket = Socket(max_channels=1)
    problem = Undecodable(None)
    nine = [socket.undecodable(problem, now=float(second)) for second in range(9)]

    assert nine == [[]] * 9
    assert socket.undecodable(problem, now=9.0) == [Close(CloseCode.PROTOCOL_ABUSE)]


def test_malformed_frames_far_apart_are_forgiven() -> None:
    socket = Socket(max_channels=1)

    assert all(socket.undecodable(Undecodable(None), now=7.0 * i) == [] for i in range(50))


def test_a_topic_that_is_no_string_never_closes_the_socket() -> None:
    socket = Socket(max_channels=1)
    problem = Undecodable(None, malformed=False)

    assert all(socket.undecodable(problem, now=0.0) == [] for _ in range(50))


def test_a_channel_that_cannot_go_on_is_joined_again_by_its_client(joined: Client) -> None:
    joined.perform(joined.socket.crash(ROOM, 2))
    assert joined.take() == [], "another attempt's"
    joined.perform(joined.socket.crash(ROOM, 1))

    assert joined.take() == [["1", "1", ROOM, "phx_error", {}]]
    assert joined.active == {}
    joined.receive("2", "2", ROOM, "phx_join", {})
    assert joined.take() == [ok("2", "2")]
