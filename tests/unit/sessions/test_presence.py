"""Presence as a topic's members see it: a state at the join, diffs from then on, and nothing twice."""

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.claims import Claims
from gateway.device import UNKNOWN, Device
from gateway.sessions.client import Origin
from gateway.sessions.presence import MetaTooLarge, Presences, merge
from gateway.tracker.core import Tracker
from gateway.tracker.entry import Entry
from gateway.tracker.messages import Beat, Hello, encode
from gateway.tracker.presence import SYNC_SECONDS, Event
from gateway.tracker.service import TrackerService
from tests.support.clock import Clock

ROOM = "room:1"
KEY = "p:room:1"
GATHER = 0.25
DAY = 1_000_000.0


class Carrier:
    """Keeps what a tracker says."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []

    def to_topic(self, topic: str, message: bytes) -> None:
        self.said.append((topic, message))

    def to_replica(self, replica: str, message: bytes) -> None:
        self.said.append((replica, message))

    def to_all(self, message: bytes) -> None:
        self.said.append(("", message))


class Client:
    """A socket that shows what phoenix.js would show: users and their metas, by ref."""

    def __init__(
        self, name: str, user: str | None, device: Device = UNKNOWN, presence: bytes = b"{}"
    ) -> None:
        self.id = name
        self.claims = None if user is None else Claims(user, 0.0, presence=presence)
        self.origin = Origin("websocket", "2.0.0", "", "", device)
        self.state = b"null"
        self.topics = [ROOM]
        self.events: list[str] = []
        self.shown: dict[str, tuple[str, dict[str, Any]]] = {}
        self.count: Any = None

    def greet(self, events: list[Event]) -> None:
        for event, payload in events:
            self.hear(event, payload)

    def hear(self, event: str, payload: bytes) -> None:
        """An event of the gateway's; nothing may join twice, or leave that is not there."""
        self.events.append(event)
        content = json.loads(payload)
        if event == "presence_count":
            self.count = content
        elif event == "presence_state":
            assert not self.shown
            self._joined(content)
        else:
            assert event == "presence_diff"
            self._joined(content["joins"])
            for _, ref, _ in metas(content["leaves"]):
                del self.shown[ref]

    def _joined(self, content: Any) -> None:
        for user, ref, meta in metas(content):
            assert ref not in self.shown
            self.shown[ref] = (user, meta)

    @property
    def users(self) -> list[str]:
        """The user of each meta, sorted."""
        return sorted(user for user, _ in self.shown.values())

    def take(self) -> list[str]:
        """Names of the events since the last call."""
        events, self.events = self.events, []
        return events

    def last_seen(self) -> float:
        return 0.0

    def end_session(self, reason: str) -> None:
        raise NotImplementedError

    def go_away(self) -> bool:
        raise NotImplementedError

    def leave_topic(self, topic: str) -> bool:
        raise NotImplementedError


def metas(content: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """User, ref and the rest of each meta."""
    assert all(value.keys() == {"metas"} for value in content.values())
    return [
        (user, meta["phx_ref"], {name: each for name, each in meta.items() if name != "phx_ref"})
        for user, value in content.items()
        for meta in value["metas"]
    ]


class Room:
    """One replica's presence on a topic, and its members; to be made inside a loop."""

    def __init__(self, mode: Literal[True, "count"] = True, part_bytes: int = 100_000) -> None:
        self.clock = Clock()
        self.mode = mode
        self.members: dict[str, Client] = {}
        self.lost: list[str] = []
        self.tracker = TrackerService(
            Tracker("a", 1, down_after_seconds=10.0, spread=lambda: 0.5),
            Carrier(),
            clock=lambda: self.clock.now,
            lost=lambda lost: self.lost.append(lost.replica),
            superseded=lambda: None,
        )
        self.refs = 0
        self.version = 0
        self.presences = Presences(
            self.tracker,
            self._send,
            new_ref=self._new_ref,
            max_meta_bytes=40,
            gather_seconds=GATHER,
            part_bytes=part_bytes,
            clock=lambda: DAY,
        )

    def _send(self, topic: str, event: str, payload: bytes, but: frozenset[str]) -> None:
        assert topic == ROOM
        for client in self.members.values():
            if client.id not in but:
                client.hear(event, payload)

    def _new_ref(self) -> str:
        self.refs += 1
        return f"r{self.refs}"

    def enter(self, client: Client) -> Client:
        """A client joins."""
        self.members[client.id] = client
        self.presences.enter(ROOM, client, self.mode, client.greet)
        return client

    def leave(self, client: Client) -> None:
        """A client leaves."""
        del self.members[client.id]
        self.presences.leave(ROOM, client)

    def move(self, client: Client) -> None:
        """A client is sent to another replica."""
        self.presences.move(ROOM, client)
        self.leave(client)

    def update(self, client: Client, meta: bytes) -> None:
        """A client changes what is shown of it."""
        self.presences.update(ROOM, client, meta)

    def peer(self, *entries: Entry) -> None:
        """Another replica says who is there with it."""
        self.version += 1
        self.tracker.receive(encode(Hello("b", 1, KEY, self.version, entries)))

    def expected(self) -> dict[str, str]:
        """Ref and user of everybody the tracker shows."""
        view = self.tracker._core.view(KEY)
        return {} if view is None else {e.ref: e.user for e in view.shown.values()}


def remote(session: str, user: str, **fields: Any) -> Entry:
    """A session on another replica."""
    usual: dict[str, Any] = {"ref": f"ref-{session}", "connected_at": 5.0, "online_at": 5.0}
    return Entry(session, user, **usual | fields)


@pytest.mark.parametrize(
    ("claim", "own", "merged"),
    [
        (b"{}", b"{}", {}),
        (b'{"a":1}', b"{}", {"a": 1}),
        (b"{}", b'{ "b" : 2 }', {"b": 2}),
        (b'{"a":1,"b":1}', b'{"b":2}', {"a": 1, "b": 2}),
        (b"{}", b'{"a":1,"a":2}', {"a": 2}),
        (
            b'{"phx_ref":"x"}',
            b'{"phx_ref_prev":"x","online_at":0,"device_type":"tv","c":3}',
            {"c": 3},
        ),
        (b"{}", b'{"phx_\\u0072ef":"x"}', {}),
        (b"{}", b'{"n":1e400}', None),
    ],
)
def test_merge(claim: bytes, own: bytes, merged: Any) -> None:
    result = merge(claim, own)

    if merged is None:
        assert result == own  # values are passed on as they stand
    else:
        assert json.loads(result) == merged


@pytest.mark.parametrize(
    "own",
    [b"[]", b"null", b'"x"', b"1", b"{", b"", b'{"a":\xff}', b'{"a":' + b"[" * 100_000],
)
def test_what_is_no_object_cannot_be_merged(own: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the text is msgspec's
        merge(b'{"a":1}', own)


async def test_a_joiner_is_told_who_is_there_itself_among_them() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann"))
    await room.clock.run()
    assert (ann.take(), ann.users) == (["presence_state"], ["ann"])
    bob, eve = room.enter(Client("s2", "bob")), room.enter(Client("s3", "eve"))
    await room.clock.run(GATHER / 2)
    assert (ann.take(), bob.take()) == ([], []), "the topic is busy"

    await room.clock.run(GATHER / 2)

    assert (ann.take(), bob.take()) == (["presence_diff"], ["presence_state"])
    assert ann.shown == bob.shown == eve.shown
    assert ann.users == ["ann", "bob", "eve"]


async def test_on_a_quiet_topic_nobody_waits_for_the_state() -> None:
    room = Room()
    room.enter(Client("s1", "ann"))
    await room.clock.run()
    await room.clock.run(GATHER)
    nobody = room.enter(Client("s2", None))
    assert (nobody.take(), nobody.users) == (["presence_state"], ["ann"])
    bob = room.enter(Client("s3", "bob"))
    await room.clock.run()

    assert bob.users == ["ann", "bob"]


async def test_a_meta_has_the_gateways_fields_and_those_of_the_token() -> None:
    room = Room()
    presence = b'{"name":"Ann","online_at":3,"phx_ref":"forged"}'
    ann = room.enter(Client("s1", "ann", Device("d", "Ann's phone", "phone"), presence))
    await room.clock.run()

    assert ann.shown == {
        "r1": ("ann", {"online_at": int(DAY), "device_type": "phone", "name": "Ann"})
    }


async def test_two_devices_are_two_metas_of_one_user() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann"))
    room.enter(Client("s2", "ann"))
    await room.clock.run()

    assert ann.users == ["ann", "ann"]


async def test_changes_are_gathered_after_a_diff() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann"))
    await room.clock.run()
    ann.take()
    for number in range(20):
        room.enter(Client(f"t{number}", f"user-{number}"))
        await room.clock.run(GATHER / 100)
    assert ann.take() == []

    await room.clock.run(GATHER)

    assert ann.take() == ["presence_diff"]
    assert len(ann.shown) == 21


async def test_who_comes_and_goes_between_two_diffs_is_not_told_of() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann"))
    await room.clock.run()
    ann.take()
    room.leave(room.enter(Client("s2", "bob")))
    await room.clock.run(GATHER)

    assert ann.take() == []


async def test_an_anonymous_socket_sees_and_is_not_seen() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann"))
    await room.clock.run(GATHER)
    nobody = room.enter(Client("s2", None))
    await room.clock.run(GATHER)
    assert (ann.users, nobody.users) == (["ann"], ["ann"])

    room.leave(nobody)
    await room.clock.run(GATHER)

    assert ann.users == ["ann"]


async def test_an_update_is_a_leave_and_a_join_that_knows_its_predecessor() -> None:
    room = Room()
    client = Client("s1", "ann", presence=b'{"name":"Ann","mood":"?"}')
    ann = room.enter(client)
    await room.clock.run(GATHER)
    room.update(client, b'{"mood":"good"}')
    await room.clock.run(GATHER)

    meta = {"online_at": int(DAY), "phx_ref_prev": "r1", "name": "Ann", "mood": "good"}
    assert ann.shown == {"r2": ("ann", meta)}


async def test_an_update_takes_the_place_of_the_last_one() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann"))
    room.update(ann, b'{"a":1}')
    room.update(ann, b'{"b":2}')
    await room.clock.run(GATHER)

    [(_, meta)] = ann.shown.values()
    assert (meta.get("a"), meta["b"]) == (None, 2)


async def test_an_update_that_changes_nothing_is_not_told() -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann", presence=b'{"a":1}'))
    await room.clock.run(GATHER)
    ann.take()
    room.update(ann, b"{}")
    room.update(ann, b'{ "a": 1 }')
    await room.clock.run(GATHER)

    assert ann.take() == []


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        (b'{"b":"%b"}' % (b"x" * 26), None),
        (b'{"b":"%b"}' % (b"x" * 27), MetaTooLarge),
        (b'{"b":[1,2}', ValueError),
        (b"[]", ValueError),
    ],
)
async def test_an_update_is_bounded_together_with_the_claim(
    meta: bytes, error: type[Exception] | None
) -> None:
    room = Room()
    ann = room.enter(Client("s1", "ann", presence=b'{"a":1}'))
    await room.clock.run(GATHER)
    before = dict(ann.shown)
    if error is None:
        room.update(ann, meta)
    else:
        with pytest.raises(error):
            room.update(ann, meta)
    await room.clock.run(GATHER)

    assert (ann.shown == before) is (error is not None)


async def test_with_count_members_are_told_numbers_alone() -> None:
    room = Room("count")
    ann = room.enter(Client("s1", "ann"))
    await room.clock.run()
    room.enter(Client("s2", "ann"))
    bob = room.enter(Client("s3", "bob"))
    nobody = room.enter(Client("s4", None))
    assert (ann.take(), ann.count) == (["presence_count"], {"users": 1, "sessions": 1})
    await room.clock.run(GATHER)

    assert ann.count == bob.count == nobody.count == {"users": 2, "sessions": 3}
    assert bob.take() == ["presence_count"]
    late = room.enter(Client("s5", None))
    assert late.count == ann.count


async def test_a_long_state_comes_in_parts() -> None:
    room = Room(part_bytes=500)
    for number in range(40):
        room.enter(Client(f"s{number}", f"user-{number}"))
    await room.clock.run()
    late = room.enter(Client("late", "late"))
    await room.clock.run(GATHER)

    events = late.take()
    assert events == ["presence_state", *["presence_diff"] * (len(events) - 1)]
    assert len(events) > 3
    assert late.users == sorted(["late", *(f"user-{number}" for number in range(40))])


async def test_the_first_joiner_waits_a_moment_for_what_other_replicas_know() -> None:
    room = Room()
    room.tracker.receive(encode(Beat("b", 1)))
    ann = room.enter(Client("s1", "ann"))
    assert ann.take() == []
    room.peer(remote("x", "bob"))
    await room.clock.run(SYNC_SECONDS)

    assert ann.take() == ["presence_state"]
    assert ann.users == ["ann", "bob"]


async def test_who_leaves_before_the_state_is_known_disturbs_nobody() -> None:
    room = Room()
    room.tracker.receive(encode(Beat("b", 1)))
    ann, bob = room.enter(Client("s1", "ann")), room.enter(Client("s2", "bob"))
    room.leave(bob)
    await room.clock.run(SYNC_SECONDS)

    assert ann.users == ["ann"]


async def test_the_last_member_ends_it_and_the_next_begins_afresh() -> None:
    room = Room()
    room.leave(room.enter(Client("s1", "ann")))
    assert room.tracker._core.view(KEY) is None
    await room.clock.run(GATHER)
    bob = room.enter(Client("s2", "bob"))
    await room.clock.run(GATHER)

    assert bob.users == ["bob"]


async def test_a_client_that_moves_is_not_seen_to_leave_and_come() -> None:
    room = Room()
    ann, bob = room.enter(Client("s1", "ann", Device("d"))), room.enter(Client("s2", "bob"))
    await room.clock.run(GATHER)
    bob.take()
    before = dict(bob.shown)
    room.move(ann)
    await room.clock.run(GATHER)
    room.peer(remote("s9", "ann", device=Device("d"), ref="r1", online_at=DAY))
    await room.clock.run(GATHER)

    assert bob.take() == []
    assert bob.shown == before
    room.peer()
    await room.clock.run(GATHER)
    assert bob.users == ["bob"]


async def test_a_client_that_moves_and_finds_itself_here_again_keeps_its_ref() -> None:
    room = Room()
    room.move(room.enter(Client("s1", "ann", Device("d"))))
    again = room.enter(Client("s2", "ann", Device("d")))
    await room.clock.run(GATHER)

    assert list(again.shown) == ["r1"]


async def test_a_client_that_moves_and_changes_is_told_of_as_changed() -> None:
    room = Room()
    ann, bob = room.enter(Client("s1", "ann", Device("d"))), room.enter(Client("s2", "bob"))
    await room.clock.run(GATHER)
    room.move(ann)
    changed: dict[str, Any] = {"meta": b'{"mood":"new"}', "previous_ref": "r1", "online_at": DAY}
    room.peer(remote("s9", "ann", device=Device("d"), **changed))
    await room.clock.run(GATHER)

    assert bob.users == ["ann", "bob"]
    meta = next(meta for user, meta in bob.shown.values() if user == "ann")
    assert (meta["phx_ref_prev"], meta["mood"]) == ("r1", "new")


NAMES = [f"s{number}" for number in range(5)]
USERS = {name: f"user-{index % 3}" for index, name in enumerate(NAMES)}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from(NAMES)),
        st.tuples(st.just("leave"), st.sampled_from(NAMES)),
        st.tuples(st.just("move"), st.sampled_from(NAMES)),
        st.tuples(st.just("update"), st.sampled_from(NAMES)),
        st.tuples(st.just("anonymous"), st.just("")),
        st.tuples(
            st.just("peer"), st.frozensets(st.integers(0, 3)).map(lambda s: bytes(sorted(s)))
        ),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, GATHER])),
    ),
    max_size=40,
)


async def check(taken: list[tuple[str, Any]], *, part_bytes: int) -> None:
    """Go through some steps; in the end everybody shows what is there, after a state that came first."""
    room = Room(part_bytes=part_bytes)
    everybody: list[Client] = []
    for number, (step, value) in enumerate(taken):
        current = room.members.get(f"{value!s}")
        if step == "enter" and current is None:
            # a session that moved away comes back as another
            client = Client(str(value), USERS[value], Device(f"d-{value}"))
            everybody.append(room.enter(client))
        elif step == "anonymous":
            everybody.append(room.enter(Client(f"anonymous-{number}", None)))
        elif step == "leave" and current:
            room.leave(current)
        elif step == "move" and current:
            room.move(current)
        elif step == "update" and current:
            room.update(current, b'{"n":%d}' % number)
        elif step == "peer":
            room.peer(*(remote(f"x{n}", f"user-{n}", device=Device(f"d-s{n}")) for n in value))
        elif step == "pass":
            await room.clock.run(value)
    await room.clock.run(GATHER)
    await room.clock.run(GATHER)
    for client in room.members.values():
        assert {ref: user for ref, (user, _) in client.shown.items()} == room.expected()
    for client in everybody:
        assert client.events[:1] in ([], ["presence_state"])


@given(steps, st.sampled_from([120, 100_000]))
def test_every_member_shows_who_is_there(taken: list[tuple[str, Any]], part_bytes: int) -> None:
    asyncio.run(check(taken, part_bytes=part_bytes))
