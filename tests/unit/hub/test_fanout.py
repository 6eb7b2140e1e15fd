"""Fan-out: who gets what, in which order, in how many writes, and what a slow socket leads to."""

import asyncio
from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audience import Audience
from gateway.device import UNKNOWN, Device
from gateway.hub.broadcast import Broadcast
from gateway.hub.fanout import (
    PASS_BYTES,
    PATIENCE_SECONDS,
    POLL_SECONDS,
    SLICE_WRITES,
    Fanout,
)
from gateway.hub.registry import Member, Registry
from gateway.transport.compression import Deflater
from gateway.transport.framing import RSV1
from gateway.transport.sse.stream import EVENT_STREAM_ENCODINGS
from gateway.transport.websocket import WEBSOCKET_ENCODINGS, compressed_encodings
from tests.support.counted import Counted

LIMIT = 1000
ROOM = "room:1"


class Loop:
    """An event loop whose turns the test makes."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.now = 0.0

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.later.append((self.now + seconds, function))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and run what is due."""
        self.now += seconds
        due = [function for at, function in self.later if at <= self.now]
        self.later = [(at, function) for at, function in self.later if at > self.now]
        self.ready += due
        self.run()

    def call_soon(self, function: Callable[[], None]) -> None:
        self.ready.append(function)

    def turn(self) -> bool:
        """One turn; False when nothing was scheduled."""
        ready, self.ready = self.ready, []
        for function in ready:
            function()
        return bool(ready)

    def run(self) -> None:
        while self.turn():
            pass


class Text:
    """Encodes a message as its event, its position if that is wanted, and a semicolon; counts how often."""

    def __init__(self, *, binary: bool = True, positions: bool = False) -> None:
        self.encoded = 0
        self.binary = binary
        self.positions = positions

    def broadcast(self, message: Broadcast, *, shared: bool = True) -> bytes | None:  # noqa: ARG002 -- no difference here
        if message.binary and not self.binary:
            return None
        self.encoded += 1
        return f"{message.event}{message.position.decode() if self.positions else ''};".encode()


class Screen:
    """An outlet that shows what was written to it."""

    user = ""

    def __init__(self, name: str) -> None:
        self.id = name
        self.device: Device = UNKNOWN
        self.writes: list[bytes] = []
        self.waiting = 0
        self.clear = False
        self.overflows = 0

    @property
    def wire(self) -> "Screen":
        return self

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        assert not self.clear
        return self.waiting

    def overflowed(self) -> None:
        self.overflows += 1

    def rejoin(self, topic: str, member: object) -> None:
        raise NotImplementedError

    @property
    def shown(self) -> str:
        return b"".join(self.writes).decode()


class Hub:
    """Registry and fan-out with a loop of the test's."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.counted = Counted()
        self.registry = Registry()
        self.encoding = Text()
        self.fanout = Fanout(
            self.registry,
            self.counted,
            outbound_limit=LIMIT,
            call_soon=self.loop.call_soon,
            call_later=self.loop.call_later,
            clock=lambda: self.loop.now,
        )

    def join(self, name: str, topic: str = ROOM, *, drops: bool = False) -> tuple[Screen, Member]:
        screen = Screen(name)
        member = Member(screen, self.encoding, drops=drops)
        self.registry.add(topic, member)
        return screen, member

    def members(self) -> int:
        topic = self.registry.get(ROOM)
        return 0 if topic is None else len(topic.members)

    def send(self, *events: str, topic: str = ROOM, payload: bytes = b"{}") -> None:
        for event in events:
            self.fanout.send(Broadcast(topic, event, payload))


@pytest.fixture
def hub() -> Hub:
    return Hub()


def test_every_member_gets_the_same_bytes_encoded_once(hub: Hub) -> None:
    screens = [hub.join(str(n))[0] for n in range(5)]
    hub.send("a")
    hub.loop.run()

    assert [screen.writes for screen in screens] == [[b"a;"]] * 5
    assert hub.encoding.encoded == 1
    assert len({id(screen.writes[0]) for screen in screens}) == 1
    assert hub.counted.value("messages_delivered_total") == 5


def test_a_wire_that_is_clear_is_not_asked_how_much_waits(hub: Hub) -> None:
    (one, _), (other, _) = hub.join("1"), hub.join("2")
    one.clear, other.waiting = True, LIMIT + 1
    hub.send("a")
    hub.loop.run()

    assert (one.writes, other.writes, other.overflows) == ([b"a;"], [], 1)


def test_who_is_not_told_of_a_message_is_written_nothing(hub: Hub) -> None:
    screen = Screen("stream")
    kind = EVENT_STREAM_ENCODINGS[False, False]["2"]
    hub.registry.add(ROOM, Member(screen, kind, drops=False))
    hub.send("presence_diff")
    hub.loop.run()
    hub.send("a", "presence_diff")
    hub.loop.run()

    assert len(screen.writes) == 1
    assert screen.writes[0].count(b"event: ") == 1
    assert hub.counted.value("messages_dropped_total") == 0


def test_what_is_compressed_is_compressed_once_and_shared_by_all_who_can_read_it(hub: Hub) -> None:
    sizes: list[int] = []
    compressed = compressed_encodings(Deflater(1, before=lambda _: None, after=sizes.append))
    kinds = [compressed["2"], WEBSOCKET_ENCODINGS["2"], compressed["1"]]
    screens: list[list[Screen]] = [[], [], []]
    for number in range(SLICE_WRITES):
        for kind, those in zip(kinds, screens, strict=True):
            those.append(Screen(str(number)))
            hub.registry.add(ROOM, Member(those[-1], kind, drops=False))
    hub.send("a", "b", payload=b'{"said":"%b"}' % (b"x" * 500))
    hub.loop.run()

    written = [{id(write) for screen in those for write in screen.writes} for those in screens]
    assert [len(each) for each in written] == [1, 1, 1]
    assert len(sizes) == 4, "two messages, each once for either version"
    assert [len(those[0].writes[0]) > 1000 for those in screens] == [False, True, False]
    assert screens[0][0].writes[0][0] & screens[2][0].writes[0][0] & RSV1


def test_what_is_for_a_few_is_not_compressed(hub: Hub) -> None:
    sizes: list[int] = []
    kind = compressed_encodings(Deflater(1, before=lambda _: None, after=sizes.append))["2"]
    screens = [Screen(name) for name in ("author", "reader", "late")]
    payload = b'{"said":"%b"}' % (b"x" * 500)
    for screen in screens[:2]:
        hub.registry.add(ROOM, Member(screen, kind, drops=False))
    hub.send("a", payload=payload)
    hub.fanout.send(Broadcast(ROOM, "b", payload, audience=Audience(frozenset({"author"}))))
    hub.registry.add(ROOM, Member(screens[2], kind, drops=False))
    hub.send("c", payload=payload)
    hub.loop.run()
    author, reader, late = (screen.writes for screen in screens)

    assert len(sizes) == 3, "all messages, for those who get all"
    assert [len(each[0]) > 500 for each in (author, reader, late)] == [True, False, True]


def test_other_topics_and_topics_without_members_get_nothing(hub: Hub) -> None:
    screen, _ = hub.join("a", "room:2")
    hub.send("x")
    hub.loop.run()

    assert screen.writes == []


def test_nothing_is_written_before_the_next_turn_and_messages_of_one_turn_are_one_write(
    hub: Hub,
) -> None:
    screen, _ = hub.join("a")
    hub.send("a", "b", "c")
    assert screen.writes == []

    hub.loop.run()

    assert screen.writes == [b"a;b;c;"]
    assert hub.counted.value("messages_delivered_total") == 3


def test_messages_that_arrive_during_a_pass_are_joined_in_the_next(hub: Hub) -> None:
    screens = [hub.join(str(n))[0] for n in range(SLICE_WRITES + 10)]
    hub.send("a")
    hub.loop.turn()
    assert screens[0].writes == [b"a;"]
    assert screens[-1].writes == []

    hub.send("b")
    hub.send("c")
    hub.loop.run()

    assert all(screen.writes == [b"a;", b"b;c;"] for screen in screens)


def test_a_turn_writes_to_no_more_than_a_slice_of_sockets(hub: Hub) -> None:
    screens = [hub.join(str(n))[0] for n in range(3 * SLICE_WRITES)]
    hub.send("a")
    turns = 0
    while hub.loop.turn():
        turns += 1
        assert sum(len(screen.writes) for screen in screens) <= turns * SLICE_WRITES

    assert turns == 3


def test_a_big_topic_does_not_hold_up_a_small_one(hub: Hub) -> None:
    for n in range(4 * SLICE_WRITES):
        hub.join(str(n))
    small, _ = hub.join("small", "room:2")
    hub.send("a")
    hub.send("b", topic="room:2")
    hub.loop.turn()
    hub.loop.turn()

    assert small.writes == [b"b;"]


def test_a_pass_takes_a_bounded_number_of_bytes(hub: Hub) -> None:
    screen, _ = hub.join("a")
    hub.send("a", "b", "c", payload=b"x" * (PASS_BYTES // 2))
    hub.loop.run()

    assert screen.writes == [b"a;b;", b"c;"]


def test_a_message_above_the_bound_of_a_pass_goes_alone(hub: Hub) -> None:
    screen, _ = hub.join("a")
    hub.send("a", "b", payload=b"x" * (2 * PASS_BYTES))
    hub.loop.run()

    assert screen.writes == [b"a;", b"b;"]


def test_who_left_during_a_pass_gets_nothing_more(hub: Hub) -> None:
    for n in range(SLICE_WRITES):
        hub.join(str(n))
    screen, member = hub.join("last")
    hub.send("a")
    hub.loop.turn()
    hub.registry.remove(ROOM, member)
    hub.loop.run()

    assert screen.writes == []


def test_who_joins_gets_nothing_older_than_the_join(hub: Hub) -> None:
    for n in range(SLICE_WRITES):
        hub.join(str(n))
    hub.join("old")
    hub.send("a")
    hub.loop.turn()
    hub.send("b")
    screen, _ = hub.join("new")
    hub.send("c")
    hub.loop.run()

    assert screen.shown == "c;"


def test_a_rejoin_makes_a_new_member_that_starts_afresh(hub: Hub) -> None:
    screen, member = hub.join("a")
    hub.send("a")
    hub.registry.remove(ROOM, member)
    again = Member(screen, hub.encoding, drops=False)
    hub.registry.add(ROOM, again)
    hub.send("b")
    hub.loop.run()

    assert screen.shown == "b;"


def test_excluded_sockets_are_left_out_of_a_joined_write(hub: Hub) -> None:
    author, _ = hub.join("author")
    reader, _ = hub.join("reader")
    hub.send("a")
    hub.fanout.send(Broadcast(ROOM, "b", b"{}", audience=Audience(frozenset({"author"}))))
    hub.send("c")
    hub.loop.run()

    assert author.writes == [b"a;c;"]
    assert reader.writes == [b"a;b;c;"]


def test_a_kind_of_socket_without_binary_misses_it_and_that_is_counted(hub: Hub) -> None:
    hub.encoding = Text(binary=False)
    old, _ = hub.join("old")
    hub.encoding = Text()
    new, _ = hub.join("new")
    hub.fanout.send(Broadcast(ROOM, "a", b"\x00", binary=True))
    hub.send("b")
    hub.loop.run()

    assert (old.shown, new.shown) == ("b;", "a;b;")
    assert hub.counted.value("messages_dropped_total", reason="no_binary") == 1


def test_a_socket_that_is_behind_is_closed_and_others_see_nothing_of_it(hub: Hub) -> None:
    slow, _ = hub.join("slow")
    quick, _ = hub.join("quick")
    slow.waiting = LIMIT + 1
    hub.send("a")
    hub.loop.run()

    assert (slow.writes, slow.overflows) == ([], 1)
    assert quick.shown == "a;"
    assert hub.counted.value("messages_dropped_total", reason="slow_consumer") == 1


def test_a_rule_may_drop_messages_of_a_socket_that_is_behind(hub: Hub) -> None:
    slow, _ = hub.join("slow", drops=True)
    slow.waiting = LIMIT + 1
    hub.send("a", "b")
    hub.loop.run()
    slow.waiting = LIMIT
    hub.send("c")
    hub.loop.run()

    assert (slow.shown, slow.overflows) == ("c;", 0)
    assert hub.counted.value("messages_dropped_total", reason="slow_consumer") == 2


def test_an_overflow_that_ends_memberships_does_not_disturb_the_pass(hub: Hub) -> None:
    first, member = hub.join("first")
    second, _ = hub.join("second")
    first.waiting = LIMIT + 1
    first.overflowed = lambda: hub.registry.remove(ROOM, member)  # type: ignore[method-assign]
    hub.send("a")
    hub.loop.run()

    assert second.shown == "a;"
    assert hub.members() == 1


def test_the_registry_forgets_a_topic_with_its_last_member(hub: Hub) -> None:
    _, first = hub.join("a")
    _, second = hub.join("b")
    hub.registry.remove(ROOM, first)
    hub.registry.remove(ROOM, first)
    assert (len(hub.registry), hub.members()) == (1, 1)

    hub.registry.remove(ROOM, second)

    assert (len(hub.registry), hub.members()) == (0, 0)
    assert hub.registry.get(ROOM) is None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("join"), st.integers(0, 5)),
            st.tuples(st.just("leave"), st.integers(0, 5)),
            st.tuples(st.just("send"), st.integers(0, 7)),
            st.tuples(st.just("turn"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_every_member_gets_exactly_what_was_sent_while_it_was_one(
    steps: list[tuple[str, int]],
) -> None:
    """A leaver may miss what was still on its way; it never gets what came later, or twice."""
    hub = Hub()
    hub.registry.add(ROOM, Member(Screen("anchor"), hub.encoding, drops=False))
    members: dict[int, tuple[Screen, Member]] = {}
    expected: dict[Screen, str] = {}
    gone: list[Screen] = []
    number = 0
    for step, value in steps:
        if step == "join" and value not in members:
            members[value] = hub.join(str(value))
            expected[members[value][0]] = ""
        elif step == "leave" and value in members:
            screen, member = members.pop(value)
            hub.registry.remove(ROOM, member)
            gone.append(screen)
        elif step == "send":
            number += 1
            # an even value excludes the socket of half its number
            excluded = frozenset({str(value // 2)}) if value % 2 == 0 else frozenset[str]()
            audience = Audience(excluded) if excluded else None
            hub.fanout.send(Broadcast(ROOM, f"m{number}", b"{}", audience=audience))
            for screen, _ in members.values():
                if screen.id not in excluded:
                    expected[screen] += f"m{number};"
        elif step == "turn":
            hub.loop.turn()
    hub.loop.run()

    for screen, _ in members.values():
        assert screen.shown == expected[screen]
    for screen in gone:
        assert expected[screen].startswith(screen.shown)


def test_a_connection_that_is_gone_keeps_nobody_else_from_a_message(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transport of uvloop raises once it is closed, and the hub may see that before its owner."""
    first, _ = hub.join("first")
    gone, _ = hub.join("gone")
    last, _ = hub.join("last")

    def closed(data: bytes) -> None:
        raise RuntimeError(f"the handler is closed, {len(data)} bytes are lost")

    monkeypatch.setattr(gone, "write", closed)
    hub.send("a")
    hub.loop.run()
    hub.send("b")
    hub.loop.run()

    assert first.writes == last.writes == [b"a;", b"b;"]
    assert hub.counted.value("messages_dropped_total", reason="disconnected") == 2
    assert hub.counted.value("messages_delivered_total") == 4


async def test_a_message_that_cannot_be_encoded_keeps_no_other_from_being_sent(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: problems.append(context["exception"])
    )
    screen, _ = hub.join("a")
    other, _ = hub.join("b", "room:2")
    encode = hub.encoding.broadcast

    def broken(message: Broadcast, *, shared: bool) -> bytes | None:
        if message.event == "bad":
            raise KeyError(message.event)
        return encode(message, shared=shared)

    monkeypatch.setattr(hub.encoding, "broadcast", broken)
    hub.send("before", "bad", "after")
    hub.send("good", topic="room:2")
    hub.loop.run()

    assert (screen.writes, other.writes) == ([b"before;after;"], [b"good;"])
    assert [type(problem) for problem in problems] == [KeyError]


async def test_a_member_that_cannot_be_written_to_keeps_no_other_from_getting_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: problems.append(context["exception"])
    )
    bad, good = hub.join("bad")[0], hub.join("good")[0]
    monkeypatch.setattr(bad, "write", lambda _: 1 / 0)
    hub.send("a")
    hub.loop.run()

    assert good.writes == [b"a;"]
    assert [type(problem) for problem in problems] == [ZeroDivisionError]


class Missed:
    """A topic of two members, and more that was missed than a slow one reads at once."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.slow, self.fast = hub.join("slow")[0], hub.join("fast")[0]
        self.slow.waiting = LIMIT

    def send(self, event: str, *, paced: bool = True) -> None:
        self.hub.fanout.send(Broadcast(ROOM, event, b"x" * PASS_BYTES), paced=paced)
        self.hub.loop.run()


@pytest.fixture
def missed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Missed:
    monkeypatch.setattr(hub.fanout, "_paced_bytes", LIMIT // 2)
    return Missed(hub)


def test_what_was_missed_is_sent_as_members_read(missed: Missed) -> None:
    missed.send("a")
    missed.send("b")
    missed.send("live", paced=False)
    assert (missed.slow.shown, missed.fast.shown) == ("", "")
    missed.hub.loop.pass_time(POLL_SECONDS)
    assert missed.slow.shown == ""

    missed.slow.waiting = 0
    missed.hub.loop.pass_time(POLL_SECONDS)

    assert (missed.slow.shown, missed.fast.shown) == ("a;b;live;", "a;b;live;")
    assert missed.slow.overflows == 0


def test_who_does_not_read_keeps_the_others_waiting_for_a_moment_only(missed: Missed) -> None:
    missed.send("a")
    for _ in range(ceil(PATIENCE_SECONDS / POLL_SECONDS)):
        missed.hub.loop.pass_time(POLL_SECONDS)
    assert (missed.slow.shown, missed.fast.shown) == ("a;", "a;")

    missed.slow.waiting = LIMIT + 1
    missed.send("b")

    assert (missed.slow.overflows, missed.fast.shown) == (1, "a;b;")


def test_what_comes_in_time_waits_for_nobody(missed: Missed) -> None:
    missed.send("a", paced=False)
    assert (missed.slow.shown, missed.fast.shown) == ("a;", "a;")


def test_who_joins_while_somebody_is_waited_for_gets_nothing_of_before(missed: Missed) -> None:
    missed.send("a")
    late, _ = missed.hub.join("late")
    missed.send("b", paced=False)
    missed.slow.waiting = 0
    missed.hub.loop.pass_time(POLL_SECONDS)

    assert (missed.slow.shown, late.shown) == ("a;b;", "b;")


def test_another_topic_does_not_wait_meanwhile(missed: Missed) -> None:
    missed.send("a")
    other, _ = missed.hub.join("other", "room:2")
    missed.hub.send("x", topic="room:2")
    missed.hub.loop.run()

    assert other.shown == "x;"


def test_those_who_want_them_get_positions_and_reminders(hub: Hub) -> None:
    plain, plain_member = hub.join("plain")
    hub.encoding = Text(positions=True)
    placed, placed_member = hub.join("placed")
    hub.fanout.send(Broadcast(ROOM, "a", b"{}", position=b"@1"))
    hub.fanout.send(Broadcast(ROOM, "presence", b"{}"))
    hub.loop.run()
    hub.fanout.send(Broadcast(ROOM, "position", b"{}", position=b"@2", reminder=True))
    hub.loop.run()
    hub.fanout.send(Broadcast(ROOM, "b", b"{}", position=b"@3"))
    hub.fanout.send(Broadcast(ROOM, "position", b"{}", position=b"@4", reminder=True))
    hub.loop.run()

    assert plain.shown == "a;presence;b;"
    assert placed.shown == "a@1;presence;position@2;b@3;position@4;"
    assert placed_member.position == plain_member.position == b"@4"
    assert hub.counted.value("messages_dropped_total", reason="slow_consumer") == 0


def test_a_member_stands_where_the_messages_it_was_sent_end(hub: Hub) -> None:
    members = [hub.join(str(n))[1] for n in range(SLICE_WRITES + 1)]
    hub.fanout.send(Broadcast(ROOM, "a", b"{}", position=b"@1"))
    hub.loop.turn()

    assert [member.position for member in members] == [b"@1"] * SLICE_WRITES + [b""]
