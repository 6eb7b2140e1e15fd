"""The tracker: replicas on a network that loses, repeats and reorders, and what they agree on."""

import random
from collections import deque
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from gateway.device import Device
from gateway.tracker.core import Tracker
from gateway.tracker.effects import Announce, Direct, Lost, Publish, TrackerEffect
from gateway.tracker.entry import Entry
from gateway.tracker.messages import Farewell, State, TrackerMessage, decode, encode
from gateway.tracker.view import Change
from tests.support.examples import examples

DOWN_AFTER = 10.0
TICK = 0.25
KEYS = ("room:1", "room:2")


class Node:
    """One replica on a simulated network, with the clients of each key it has."""

    def __init__(self, network: "Network", name: str, incarnation: int) -> None:
        self.network = network
        self.name = name
        self.tracker = Tracker(name, incarnation, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5)
        self.incarnation = incarnation
        self.shown: dict[str, dict[str, Entry]] = {key: {} for key in KEYS}
        self.log: list[tuple[str, str, str]] = []
        self.lost: list[str] = []
        self.stalled = False

    def perform(self, effects: list[TrackerEffect]) -> None:
        """Carry out effects; what is shown is kept as a client of the key would keep it."""
        for effect in effects:
            match effect:
                case Publish():
                    self.network.publish(self, effect.key, effect.message)
                case Announce():
                    for other in self.network.nodes.values():
                        self.network.send(self, other, effect.message)
                case Direct():
                    self.network.direct(self, effect.replica, effect.message)
                case Change():
                    shown = self.shown[effect.key]
                    for entry in effect.left:
                        assert shown.pop(entry.ref).user == entry.user
                        self.log.append(("left", effect.key, entry.id))
                    for entry in effect.joined:
                        assert entry.ref not in shown
                        shown[entry.ref] = entry
                        self.log.append(("joined", effect.key, entry.id))
                case Lost():
                    self.lost.append(effect.replica)

    def hold(self, key: str) -> None:
        """Hold a key if it is not held."""
        if self.tracker.view(key) is None:
            self.perform(self.tracker.hold(key, self.network.now))

    def drop(self, key: str) -> None:
        """Drop a key, and its entries before, but for those that move."""
        view = self.tracker.view(key)
        if view is not None:
            for session, entry in list(view.own.items()):
                if not entry.moving:
                    self.leave(key, session)
            self.tracker.drop(key)
            self.shown[key].clear()

    def join(self, key: str, session: str, **fields: Any) -> Entry:
        """A session of this replica enters a key."""
        self.hold(key)
        usual: dict[str, Any] = {
            "id": session,
            "user": f"user-{session}",
            "ref": f"ref-{session}",
            "connected_at": self.network.now,
            "online_at": self.network.now,
        }
        entry = Entry(**usual | fields)
        self.perform(self.tracker.put(key, entry, self.network.now))
        return entry

    def leave(self, key: str, session: str) -> None:
        """A session leaves a key."""
        self.perform(self.tracker.remove(key, session, self.network.now))

    def tick(self) -> None:
        """A quarter of a second passed."""
        if self.stalled:
            return
        self.perform(self.tracker.tick(self.network.now))

    def users(self, key: str) -> set[str]:
        """Sessions shown on a key."""
        view = self.tracker.view(key)
        return set() if view is None else set(view.shown)


class Network:
    """Carries messages between nodes, as badly as it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.nodes: dict[str, Node] = {}
        self.queue: deque[tuple[str, bytes]] = deque()
        self.cut: set[frozenset[str]] = set()
        self.deaf: set[str] = set()
        self.lose = 0.0
        self.random = random.Random(7)
        self.incarnations = 0

    def start(self, name: str) -> Node:
        """Start a replica, or a new run of it."""
        self.incarnations += 1
        node = self.nodes[name] = Node(self, name, self.incarnations)
        return node

    def kill(self, name: str) -> None:
        """End a replica without a word."""
        del self.nodes[name]

    def publish(self, sender: Node, key: str, message: TrackerMessage) -> None:
        """To every node that holds the key, the sender too."""
        for node in self.nodes.values():
            if node.tracker.view(key) is not None:
                self.send(sender, node, message)

    def direct(self, sender: Node, name: str, message: TrackerMessage) -> None:
        """To one node."""
        if name in self.nodes:
            self.send(sender, self.nodes[name], message)

    def send(self, sender: Node, to: Node, message: TrackerMessage) -> None:
        """Put a message on its way, if the way is open."""
        if frozenset((sender.name, to.name)) in self.cut or {sender.name, to.name} & self.deaf:
            return
        if self.random.random() >= self.lose:
            self.queue.append((to.name, encode(message)))

    def deliver(self, index: int = 0) -> None:
        """Deliver one message."""
        self.queue.rotate(-index)
        name, data = self.queue.popleft()
        self.queue.rotate(index)
        node = self.nodes.get(name)
        if node is not None and not node.stalled:
            node.perform(node.tracker.receive(decode(data), self.now))

    def settle(self) -> None:
        """Deliver everything, and what follows from it."""
        while self.queue:
            self.deliver()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds / TICK)):
            self.now += TICK
            for node in list(self.nodes.values()):
                node.tick()
            self.settle()


def pair() -> tuple[Network, Node, Node]:
    """Two replicas that know each other."""
    network = Network()
    a, b = network.start("a"), network.start("b")
    network.run(3)
    return network, a, b


def test_entries_are_shared_among_holders_alone() -> None:
    network, a, b = pair()
    c = network.start("c")
    a.join("room:1", "s1")
    b.hold("room:1")
    network.settle()

    assert b.users("room:1") == {"s1"}
    assert c.tracker.view("room:1") is None


def test_a_newcomer_is_told_and_tells() -> None:
    network, a, b = pair()
    a.join("room:1", "s1")
    b.join("room:1", "s2")
    network.settle()

    assert a.users("room:1") == b.users("room:1") == {"s1", "s2"}


def test_a_leave_is_one_leave_everywhere() -> None:
    network, a, b = pair()
    a.join("room:1", "s1")
    b.hold("room:1")
    network.settle()
    a.leave("room:1", "s1")
    a.leave("room:1", "s1")
    network.settle()

    assert b.log == [("joined", "room:1", "s1"), ("left", "room:1", "s1")]


def test_a_lost_last_delta_is_healed_by_the_digest() -> None:
    network, a, b = pair()
    b.hold("room:1")
    a.hold("room:1")
    network.settle()
    a.join("room:1", "s1")
    network.queue.clear()
    assert b.users("room:1") == set()

    network.run(1.5)

    assert b.users("room:1") == {"s1"}


def test_a_lost_leave_of_a_key_that_was_dropped_is_healed_too() -> None:
    network, a, b = pair()
    b.hold("room:1")
    a.join("room:1", "s1")
    network.settle()
    a.drop("room:1")
    network.queue.clear()
    network.run(1.5)

    assert b.users("room:1") == set()


def test_a_leave_whose_digests_are_lost_as_well_is_asked_for_in_the_end() -> None:
    network, a, b = pair()
    b.hold("room:1")
    a.join("room:1", "s1")
    network.settle()
    a.drop("room:1")
    network.queue.clear()
    network.lose = 1.0
    network.run(2)
    network.lose = 0.0
    a.tracker._views.clear()
    network.run(400)

    assert b.users("room:1") == set()


def test_a_gap_is_noticed_by_the_next_delta() -> None:
    network, a, b = pair()
    b.hold("room:1")
    a.hold("room:1")
    network.settle()
    a.join("room:1", "s1")
    network.queue.clear()
    a.join("room:1", "s2")
    network.settle()

    assert b.users("room:1") == {"s1", "s2"}


def told(name: str, *entries: Entry) -> State:
    """What a replica says it has on ``room:1``."""
    return State(name, 1, "room:1", 1, entries)


def of_ann(session: str, since: float, *, moving: bool = False, device: str = "d") -> Entry:
    """A session of Ann's."""
    return Entry(session, "ann", f"ref-{session}", since, since, Device(device), moving=moving)


def test_a_moving_entry_told_late_is_not_shown_when_its_successor_is_there() -> None:
    network = Network()
    c = network.start("c")
    c.hold("room:1")
    old, new = of_ann("s1", 1.0, moving=True), of_ann("s2", 2.0)
    c.perform(c.tracker.receive(told("b", new), network.now))
    c.perform(c.tracker.receive(told("a", old), network.now))
    c.perform(c.tracker.receive(told("a", old), network.now))
    network.run(TICK)

    assert c.log == [("joined", "room:1", "s2")]
    assert list(c.shown["room:1"]) == ["ref-s2"]


def test_a_moving_entry_told_first_hands_its_place_to_its_successor() -> None:
    network = Network()
    c = network.start("c")
    c.hold("room:1")
    c.perform(c.tracker.receive(told("a", of_ann("s1", 1.0, moving=True)), network.now))
    c.perform(c.tracker.receive(told("b", of_ann("s2", 2.0)), network.now))

    assert c.log == [("joined", "room:1", "s1")]
    assert c.users("room:1") == {"s2"}
    assert list(c.shown["room:1"]) == ["ref-s1"]


@pytest.mark.parametrize(
    "other",
    [
        of_ann("s2", 0.5),
        of_ann("s2", 2.0, device="e"),
        of_ann("s2", 2.0, moving=True),
        replace(of_ann("s2", 2.0), user="bob"),
    ],
    ids=["older", "other device", "moving too", "other user"],
)
def test_a_moving_entry_is_shown_beside_one_that_is_not_its_successor(other: Entry) -> None:
    network = Network()
    c = network.start("c")
    c.hold("room:1")
    c.perform(c.tracker.receive(told("b", other), network.now))
    c.perform(c.tracker.receive(told("a", of_ann("s1", 1.0, moving=True)), network.now))

    assert c.users("room:1") == {"s1", "s2"}


def test_a_dead_replicas_entries_leave_once() -> None:
    network, a, b = pair()
    b.hold("room:1")
    for n in range(5):
        a.join("room:1", f"s{n}")
    network.settle()
    network.kill("a")
    network.run(DOWN_AFTER - 1)
    assert len(b.users("room:1")) == 5

    network.run(4)

    assert b.users("room:1") == set()
    assert b.lost == ["a"]
    assert sum(1 for entry in b.log if entry[0] == "left") == 5


def test_a_restarted_replica_replaces_its_old_entries_at_once() -> None:
    network, a, b = pair()
    b.hold("room:1")
    a.join("room:1", "old")
    network.settle()
    network.kill("a")
    again = network.start("a")
    again.join("room:1", "new")
    network.run(TICK)

    assert b.users("room:1") == {"new"}
    assert b.lost == ["a"], "the earlier run said no farewell"


def test_a_replica_dropped_by_mistake_comes_back() -> None:
    network, a, b = pair()
    a.join("room:1", "s1")
    b.join("room:1", "s2")
    network.settle()
    network.cut.add(frozenset(("a", "b")))
    network.run(DOWN_AFTER + 5)
    assert a.users("room:1") == {"s1"}
    assert b.users("room:1") == {"s2"}
    network.cut.clear()
    network.run(5)

    assert a.users("room:1") == b.users("room:1") == {"s1", "s2"}


def test_a_stalled_replica_takes_nobody_for_dead() -> None:
    network, a, b = pair()
    a.hold("room:1")
    b.join("room:1", "s2")
    network.settle()
    a.stalled = True
    network.run(DOWN_AFTER + 5)
    a.stalled = False
    a.perform(a.tracker.tick(network.now))
    network.run(1)

    assert a.lost == []
    assert a.log == [("joined", "room:1", "s2")]


def test_a_bus_that_is_away_makes_nobody_dead_and_what_was_missed_is_learnt() -> None:
    network, a, b = pair()
    a.join("room:1", "s1")
    b.join("room:1", "s2")
    network.settle()
    network.deaf |= {"a", "b"}
    a.tracker.bus_changed(connected=False)
    b.tracker.bus_changed(connected=False)
    network.run(20)
    b.leave("room:1", "s2")
    b.join("room:1", "s3")
    assert a.users("room:1") == {"s1", "s2"}
    network.deaf.clear()
    a.tracker.bus_changed(connected=True)
    b.tracker.bus_changed(connected=True)
    network.run(1)

    assert a.users("room:1") == b.users("room:1") == {"s1", "s3"}
    assert a.lost == b.lost == []


def test_a_changed_meta_is_a_leave_and_a_join_with_the_previous_ref() -> None:
    network, a, b = pair()
    b.hold("room:1")
    entry = a.join("room:1", "s1")
    a.join("room:1", "s1", ref="ref-2", meta=b'{"away":true}', connected_at=entry.connected_at)
    network.settle()

    [shown] = b.shown["room:1"].values()
    assert (shown.ref, shown.previous_ref, shown.meta) == ("ref-2", "ref-s1", b'{"away":true}')


def move(network: Network, a: Node, session: str, entry: Entry) -> None:
    """What a draining replica does with a socket it closes."""
    moving = replace(entry, moving=True)
    a.perform(a.tracker.put("room:1", moving, network.now))
    network.settle()
    assert session == moving.id


def test_a_client_that_moves_to_another_replica_is_not_seen_to_leave() -> None:
    network, a, b = pair()
    c = network.start("c")
    network.run(3)
    c.hold("room:1")
    entry = a.join("room:1", "old", user="u", device=Device("phone"))
    network.settle()
    move(network, a, "old", entry)
    farewell = Farewell("a", a.incarnation)
    network.kill("a")
    for node in (b, c):
        node.perform(node.tracker.receive(farewell, network.now))
    b.hold("room:1")
    network.settle()
    b.join("room:1", "new", user="u", device=Device("phone"), ref="other")
    network.run(30)

    assert c.log == [("joined", "room:1", "old")]
    assert c.users("room:1") == b.users("room:1") == {"new"}
    assert {n.tracker.view("room:1").shown["new"].ref for n in (b, c)} == {"ref-old"}  # type: ignore[union-attr]  # held


def test_another_device_or_user_does_not_take_a_moving_place() -> None:
    network, a, b = pair()
    b.hold("room:1")
    entry = a.join("room:1", "old", user="u", device=Device("phone"))
    network.settle()
    move(network, a, "old", entry)
    b.join("room:1", "laptop", user="u", device=Device("laptop"))
    b.join("room:1", "other", user="v")
    network.settle()

    assert b.users("room:1") == {"old", "laptop", "other"}


def test_who_moves_and_does_not_arrive_leaves_at_the_deadline() -> None:
    network, a, b = pair()
    b.hold("room:1")
    entry = a.join("room:1", "old")
    network.settle()
    move(network, a, "old", entry)
    network.run(8)
    assert b.users("room:1") == {"old"}
    network.run(4)

    assert a.users("room:1") == b.users("room:1") == set()
    assert b.log == [("joined", "room:1", "old"), ("left", "room:1", "old")]


def test_a_replica_that_goes_on_after_a_move_forgets_it() -> None:
    """As when a connection was moved for its age alone: its replica may hold the key again."""
    network, a, b = pair()
    b.hold("room:1")
    entry = a.join("room:1", "old", user="u")
    network.settle()
    move(network, a, "old", entry)
    a.drop("room:1")
    network.run(1)
    assert b.users("room:1") == {"old"}
    b.join("room:1", "new", user="u")
    a.hold("room:1")
    network.run(90)

    assert a.users("room:1") == b.users("room:1") == {"new"}
    view = a.tracker.view("room:1")
    assert view is not None
    assert view.own == {}
    assert b.log == [("joined", "room:1", "old")]


def test_a_farewell_drops_the_rest_at_once() -> None:
    network, a, b = pair()
    b.hold("room:1")
    a.join("room:1", "s1")
    network.settle()
    network.kill("a")
    b.perform(b.tracker.receive(Farewell("a", a.incarnation), network.now))

    assert b.users("room:1") == set()
    assert b.lost == []


class Machine(RuleBasedStateMachine):
    """Anything happens; then the network heals, and all replicas agree within one digest."""

    names = st.sampled_from(("a", "b", "c"))
    keys = st.sampled_from(KEYS)

    @initialize()
    def begin(self) -> None:
        self.network = Network()
        self.sessions = 0
        for name in ("a", "b", "c"):
            self.network.start(name)
        self.network.run(1)

    def node(self, name: str) -> Node:
        """A replica, started if it is dead."""
        return self.network.nodes.get(name) or self.network.start(name)

    @rule(name=names, key=keys)
    def join(self, name: str, key: str) -> None:
        self.sessions += 1
        user, limit = f"u{self.sessions % 3}", (None, 0, 2)[self.sessions // 3 % 3]
        self.node(name).join(key, f"s{self.sessions}", user=user, limit=limit)

    @rule(name=names, key=keys, pick=st.integers(0, 10))
    def leave(self, name: str, key: str, pick: int) -> None:
        view = self.node(name).tracker.view(key)
        if view is not None and view.own:
            self.node(name).leave(key, sorted(view.own)[pick % len(view.own)])

    @rule(name=names, key=keys, pick=st.integers(0, 10))
    def change(self, name: str, key: str, pick: int) -> None:
        view = self.node(name).tracker.view(key)
        if view is not None and view.own:
            entry = view.own[sorted(view.own)[pick % len(view.own)]]
            if not entry.moving:
                self.sessions += 1
                meta = f'{{"n":{self.sessions}}}'.encode()
                changed = replace(entry, ref=f"ref-{self.sessions}", meta=meta)
                self.node(name).perform(self.node(name).tracker.put(key, changed, self.network.now))

    @rule(name=names, key=keys, pick=st.integers(0, 10))
    def begin_to_move(self, name: str, key: str, pick: int) -> None:
        view = self.node(name).tracker.view(key)
        if view is not None and view.own:
            entry = view.own[sorted(view.own)[pick % len(view.own)]]
            moving = replace(entry, moving=True)
            self.node(name).perform(self.node(name).tracker.put(key, moving, self.network.now))

    @rule(name=names, key=keys)
    def hold(self, name: str, key: str) -> None:
        self.node(name).hold(key)

    @rule(name=names, key=keys)
    def drop(self, name: str, key: str) -> None:
        self.node(name).drop(key)

    @rule(pick=st.integers(0, 100))
    def deliver_out_of_order(self, pick: int) -> None:
        if self.network.queue:
            self.network.deliver(pick % len(self.network.queue))

    @rule(pick=st.integers(0, 100))
    def lose_one(self, pick: int) -> None:
        if self.network.queue:
            del self.network.queue[pick % len(self.network.queue)]

    @rule(pick=st.integers(0, 100))
    def repeat_one(self, pick: int) -> None:
        if self.network.queue:
            self.network.queue.append(self.network.queue[pick % len(self.network.queue)])

    @rule(name=names)
    def kill(self, name: str) -> None:
        if name in self.network.nodes:
            self.network.kill(name)

    @rule(name=names)
    def restart(self, name: str) -> None:
        self.network.start(name)

    @rule(one=names, other=names)
    def cut(self, one: str, other: str) -> None:
        self.network.cut.add(frozenset((one, other)))

    @rule()
    def join_up(self) -> None:
        self.network.cut.clear()

    @rule(name=names)
    def stall(self, name: str) -> None:
        self.node(name).stalled = True

    @rule(name=names)
    def go_on(self, name: str) -> None:
        self.node(name).stalled = False

    @rule(seconds=st.sampled_from((0.5, 3.0, 15.0)))
    def wait(self, seconds: float) -> None:
        self.network.run(seconds)

    @invariant()
    def what_clients_were_told_is_what_is_shown(self) -> None:
        for node in getattr(self, "network", Network()).nodes.values():
            for key in KEYS:
                view = node.tracker.view(key)
                if view is not None:
                    shown = sorted(entry.ref for entry in view.shown.values())
                    assert sorted(node.shown[key]) == shown

    @invariant()
    def sessions_with_a_limit_of_their_own_are_counted(self) -> None:
        for node in getattr(self, "network", Network()).nodes.values():
            for view in filter(None, map(node.tracker.view, KEYS)):
                assert view.limited == sum(bool(entry.limit) for entry in view.shown.values())

    def teardown(self) -> None:
        if not hasattr(self, "network"):
            return
        network = self.network
        network.cut.clear()
        network.queue.clear()
        for node in network.nodes.values():
            node.stalled = False
        # long enough for the dead to be noticed, moves to end and one audit to pass
        network.run(DOWN_AFTER + 100)
        for key in KEYS:
            expected = {
                session
                for node in network.nodes.values()
                if (view := node.tracker.view(key)) is not None
                for session in view.own
            }
            for node in network.nodes.values():
                if node.tracker.view(key) is not None:
                    assert node.users(key) == expected, (node.name, key)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(0.6), stateful_step_count=40)


def test_a_beat_tells_what_time_it_is_there_unless_it_is_of_an_earlier_release() -> None:
    a, b = (Tracker(name, 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5) for name in "ab")
    a.receive(b.announce().message, 10.0)
    assert a.peers.clocks() == {}

    b.time = 1_000_000.0
    a.receive(b.announce().message, 10.0)
    assert a.peers.clocks() == {"b": 999_990.0}
