"""The tracker: replicas on a network that loses, repeats and reorders, and what they agree on."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from gateway.device import Device
from gateway.tracker.core import Tracker
from gateway.tracker.digests import ALONE_SECONDS
from gateway.tracker.effects import Announce, Direct
from gateway.tracker.entry import Entry
from gateway.tracker.messages import Digest, Farewell, State
from gateway.tracker.moves import Moves
from gateway.tracker.peers import STALL_SECONDS
from tests.support.examples import examples
from tests.unit.tracker.network import DOWN_AFTER, TICK, Network, Node

KEYS = ("p:room:1", "p:room:2")


def pair() -> tuple[Network, Node, Node]:
    """Two replicas that know each other."""
    network = Network()
    a, b = network.start("a"), network.start("b")
    network.run(3)
    return network, a, b


def test_entries_are_shared_among_holders_alone() -> None:
    network, a, b = pair()
    c = network.start("c")
    a.join("p:room:1", "s1")
    b.hold("p:room:1")
    network.settle()

    assert b.users("p:room:1") == {"s1"}
    assert c.tracker.view("p:room:1") is None


def test_a_newcomer_is_told_and_tells() -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    b.join("p:room:1", "s2")
    network.settle()

    assert a.users("p:room:1") == b.users("p:room:1") == {"s1", "s2"}


def test_a_leave_is_one_leave_everywhere() -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    b.hold("p:room:1")
    network.settle()
    a.leave("p:room:1", "s1")
    a.leave("p:room:1", "s1")
    network.settle()

    assert b.log == [("joined", "p:room:1", "s1"), ("left", "p:room:1", "s1")]


def test_a_lost_last_delta_is_healed_by_the_digest() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.hold("p:room:1")
    network.settle()
    a.join("p:room:1", "s1")
    network.queue.clear()
    assert b.users("p:room:1") == set()

    network.run(1.5)

    assert b.users("p:room:1") == {"s1"}


def test_a_lost_leave_of_a_key_that_was_dropped_is_healed_too() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "s1")
    network.settle()
    a.drop("p:room:1")
    network.queue.clear()
    network.run(1.5)

    assert b.users("p:room:1") == set()


def test_a_leave_whose_digests_are_lost_as_well_is_asked_for_in_the_end() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "s1")
    network.settle()
    a.drop("p:room:1")
    network.queue.clear()
    network.lose = 1.0
    network.run(2)
    network.lose = 0.0
    a.tracker._forget(a.tracker._views["p:room:1"])
    network.run(400)

    assert b.users("p:room:1") == set()


def test_a_gap_is_noticed_by_the_next_delta() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.hold("p:room:1")
    network.settle()
    a.join("p:room:1", "s1")
    network.queue.clear()
    a.join("p:room:1", "s2")
    network.settle()

    assert b.users("p:room:1") == {"s1", "s2"}


def told(name: str, *entries: Entry) -> State:
    """What a replica says it has on ``room:1``."""
    return State(name, 1, "p:room:1", 1, entries)


def of_ann(session: str, since: float, *, moving: bool = False, device: str = "d") -> Entry:
    """A session of Ann's."""
    return Entry(session, "ann", f"ref-{session}", since, since, Device(device), moving=moving)


@pytest.mark.parametrize("meta", [b"{}", b'{"away":true}'], ids=["same", "changed"])
@pytest.mark.parametrize("late", [True, False], ids=["told late", "told first"])
@pytest.mark.parametrize("moving", [False, True], ids=["which stays", "which moves, too"])
def test_a_moving_entry_makes_room_for_the_one_that_has_its_place(
    meta: bytes, late: bool, moving: bool
) -> None:
    network = Network()
    c = network.start("c")
    c.hold("p:room:1")
    old, new = of_ann("s1", 1.0, moving=True), of_ann("s2", 2.0, moving=moving)
    new = replace(new, online_at=1.0, meta=meta)
    same = meta == old.meta
    new = replace(new, ref=old.ref) if same else replace(new, previous_ref=old.ref)
    states = [told("a", old), told("b", new)]
    for state in reversed(states) if late else states:
        c.perform(c.tracker.receive(state, network.now))
    c.perform(c.tracker.receive(told("a", old), network.now))
    network.run(TICK)

    assert c.users("p:room:1") == {"s2"}
    assert len([what for what, _, _ in c.log if what == "left"]) == (not same and not late)


@pytest.mark.parametrize(
    "other",
    [
        of_ann("s2", 2.0),
        of_ann("s2", 2.0, device="e"),
        of_ann("s2", 2.0, moving=True),
        replace(of_ann("s2", 2.0), user="bob"),
    ],
    ids=["one whose replica did not know", "other device", "moving too", "other user"],
)
def test_a_moving_entry_is_shown_beside_one_that_has_not_its_place(other: Entry) -> None:
    """Only the replica of a session says whose place it has: so all replicas show the same."""
    network = Network()
    c = network.start("c")
    c.hold("p:room:1")
    c.perform(c.tracker.receive(told("b", other), network.now))
    c.perform(c.tracker.receive(told("a", of_ann("s1", 1.0, moving=True)), network.now))

    assert c.users("p:room:1") == {"s1", "s2"}
    network.run(10)
    assert c.users("p:room:1") == ({"s2"} if not other.moving else set())


def test_a_dead_replicas_entries_leave_once() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    for n in range(5):
        a.join("p:room:1", f"s{n}")
    network.settle()
    network.kill("a")
    network.run(DOWN_AFTER - 1)
    assert len(b.users("p:room:1")) == 5

    network.run(4)

    assert b.users("p:room:1") == set()
    assert b.lost == ["a"]
    assert sum(1 for entry in b.log if entry[0] == "left") == 5


def test_a_restarted_replica_replaces_its_old_entries_at_once() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "old")
    network.settle()
    network.kill("a")
    again = network.start("a")
    again.join("p:room:1", "new")
    network.run(TICK)

    assert b.users("p:room:1") == {"new"}
    assert b.lost == ["a"], "the earlier run said no farewell"


def test_a_replica_dropped_by_mistake_comes_back() -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    b.join("p:room:1", "s2")
    network.run(60)
    network.cut.add(frozenset(("a", "b")))
    network.run(DOWN_AFTER + 5)
    assert a.users("p:room:1") == {"s1"}
    assert b.users("p:room:1") == {"s2"}
    network.cut.clear()
    network.run(5)

    assert a.users("p:room:1") == b.users("p:room:1") == {"s1", "s2"}


@pytest.mark.parametrize("lost", ["hello", "answer"])
def test_what_is_said_when_a_key_is_taken_may_be_lost(lost: str) -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    network.run(60)
    b.hold("p:room:1")
    if lost == "answer":
        while any(name == "a" for name, _ in network.queue):
            network.deliver()
    network.queue.clear()
    network.run(1.5)

    assert b.users("p:room:1") == {"s1"}
    assert list(a.tracker.view("p:room:1").remotes) == ["b"]  # type: ignore[union-attr]  # held


def test_replicas_that_never_heard_each_other_compare_all_they_have_when_they_do() -> None:
    """As when one starts while the way to the other is cut, which so has lost nobody."""
    network = Network()
    network.cut.add(frozenset("ab"))
    a = network.start("a")
    a.join("p:room:1", "s1")
    network.run(300)
    b = network.start("b")
    b.join("p:room:1", "s2")
    network.run(60)
    network.cut.clear()
    network.run(4)

    assert a.users("p:room:1") == b.users("p:room:1") == {"s1", "s2"}


@pytest.mark.parametrize("seconds", [5, 30], ids=["not noticed", "lost"])
@pytest.mark.parametrize("hears", ["a", "b"])
def test_who_could_hear_compares_with_who_could_not(hears: str, seconds: float) -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    network.run(30)
    network.lose_bus("b" if hears == "a" else "a", noticed=True)
    if hears == "b":
        b.join("p:room:1", "s2")
    else:
        a.join("p:room:2", "s3")
        b.hold("p:room:2")  # just before: its hello is lost
    network.run(seconds)
    network.find_bus("b" if hears == "a" else "a")
    network.run(1)

    assert a.users("p:room:1") == ({"s1", "s2"} if hears == "b" else {"s1"})
    assert b.users("p:room:2") == ({"s3"} if hears == "a" else set())


def test_what_is_shared_is_compared_though_nobody_heard_that_the_bus_is_back() -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    b.hold("p:room:1")
    network.run(30)
    network.lose_bus("b", noticed=True)
    a.join("p:room:1", "s2")
    network.run(5)
    network.find_bus("b")
    network.now += TICK
    for effect in b.tracker.tick(network.now):
        if not isinstance(effect, Announce):
            b.perform([effect])
    network.settle()

    assert b.users("p:room:1") == {"s1", "s2"}


def test_who_is_heard_of_on_a_key_for_the_first_time_is_told() -> None:
    network, a, _ = pair()
    a.join("p:room:1", "s1")
    network.run(30)
    effects = a.tracker.receive(Digest("b", 2, "p:room:1", 0, 0), network.now)

    assert [each.message for each in effects if isinstance(each, Direct)] == [
        a.tracker.own_state("p:room:1")
    ]


def test_a_stalled_replica_takes_nobody_for_dead() -> None:
    network, a, b = pair()
    a.hold("p:room:1")
    b.join("p:room:1", "s2")
    network.settle()
    a.stalled = True
    network.run(DOWN_AFTER + 5)
    a.stalled = False
    a.perform(a.tracker.tick(network.now))
    network.run(1)

    assert a.lost == []
    assert a.log == [("joined", "p:room:1", "s2")]


def test_a_bus_that_is_away_makes_nobody_dead_and_what_was_missed_is_learnt() -> None:
    network, a, b = pair()
    a.join("p:room:1", "s1")
    b.join("p:room:1", "s2")
    network.settle()
    network.deaf |= {"a", "b"}
    a.tracker.bus_changed(False, network.now)
    b.tracker.bus_changed(False, network.now)
    network.run(20)
    b.leave("p:room:1", "s2")
    b.join("p:room:1", "s3")
    assert a.users("p:room:1") == {"s1", "s2"}
    network.deaf.clear()
    a.tracker.bus_changed(True, network.now)
    b.tracker.bus_changed(True, network.now)
    network.run(1)

    assert a.users("p:room:1") == b.users("p:room:1") == {"s1", "s3"}
    assert a.lost == b.lost == []


def test_a_changed_meta_is_a_leave_and_a_join_with_the_previous_ref() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    entry = a.join("p:room:1", "s1")
    a.join("p:room:1", "s1", ref="ref-2", meta=b'{"away":true}', connected_at=entry.connected_at)
    network.settle()

    [shown] = b.shown["p:room:1"].values()
    assert (shown.ref, shown.previous_ref, shown.meta) == ("ref-2", "ref-s1", b'{"away":true}')


def move(network: Network, a: Node, session: str) -> None:
    """What a draining replica does with a socket it closes."""
    a.perform(a.tracker.move("p:room:1", session, network.now))
    network.settle()


def test_a_client_that_moves_to_another_replica_is_not_seen_to_leave() -> None:
    network, a, b = pair()
    c = network.start("c")
    network.run(3)
    c.hold("p:room:1")
    a.join("p:room:1", "old", user="u", device=Device("phone"))
    network.settle()
    move(network, a, "old")
    farewell = Farewell("a", a.incarnation)
    network.kill("a")
    for node in (b, c):
        node.perform(node.tracker.receive(farewell, network.now))
    b.hold("p:room:1")
    network.settle()
    b.join("p:room:1", "new", user="u", device=Device("phone"), ref="other")
    network.run(30)

    assert c.log == [("joined", "p:room:1", "old")]
    assert c.users("p:room:1") == b.users("p:room:1") == {"new"}
    assert {n.tracker.view("p:room:1").shown["new"].ref for n in (b, c)} == {"ref-old"}  # type: ignore[union-attr]  # held


def tabs(device: str = "") -> tuple[Network, Node, Node, Node]:
    """Two sockets of one user, alone in their room, whose replica closed them and left, and two replicas."""
    network, a, b = pair()
    c = network.start("c")
    network.run(3)
    for session in ("tab-1", "tab-2"):
        a.join("p:room:1", session, user="u", device=Device(device))
        network.now += 0.1
    for session in ("tab-1", "tab-2"):
        move(network, a, session)
    a.drop("p:room:1")
    a.perform([a.tracker.farewell()])
    network.kill("a")
    network.settle()
    network.run(2)
    return network, a, b, c


@pytest.mark.parametrize("device", ["", "d"])
@pytest.mark.parametrize("delay", [0.0, 0.5], ids=["at once", "later"])
def test_who_was_alone_in_a_room_keeps_the_ref_wherever_it_comes_back(
    device: str, delay: float
) -> None:
    network, _, b, c = tabs(device)
    for node, session in ((b, "new-1"), (c, "new-2")):
        node.join("p:room:1", session, user="u", device=Device(device), ref=f"own-{session}")
        network.run(delay)
    network.settle()

    for node in (b, c):
        assert set(node.shown["p:room:1"]) == {"ref-tab-1", "ref-tab-2"}
        assert "left" not in {what for what, _, _ in node.log}
    network.run(30)
    for node in (b, c):
        assert node.users("p:room:1") == {"new-1", "new-2"}
        assert set(node.shown["p:room:1"]) == {"ref-tab-1", "ref-tab-2"}


def test_a_third_tab_takes_nobodys_place_in_the_end() -> None:
    network, _, b, c = tabs()
    for node, session in ((b, "new-1"), (b, "new-2"), (c, "new-3")):
        node.join("p:room:1", session, user="u", ref=f"own-{session}")
        network.run(1)

    for node in (b, c):
        assert set(node.shown["p:room:1"]) == {"ref-tab-1", "ref-tab-2", "own-new-3"}


def test_a_replica_that_starts_amid_a_move_is_told_of_it() -> None:
    network, *_ = tabs()
    d = network.start("d")
    network.run(1)
    d.join("p:room:1", "new", user="u", ref="own")

    assert d.tracker.view("p:room:1").shown["new"].ref == "ref-tab-1"  # type: ignore[union-attr]  # held


def test_moves_are_forgotten_when_their_time_is_over() -> None:
    network, _, b, _ = tabs()
    network.run(11)
    b.join("p:room:1", "new", user="u", ref="own")

    assert list(b.tracker._moves) == []
    assert list(b.shown["p:room:1"]) == ["own"]


def test_a_changed_meta_names_the_ref_of_the_moving_one_as_the_previous() -> None:
    network, _, b, c = tabs()
    c.hold("p:room:1")
    b.join("p:room:1", "new", user="u", ref="own", meta=b'{"away":true}')
    network.settle()

    for node in (b, c):
        assert set(node.shown["p:room:1"]) == {"own", "ref-tab-2"}
        shown = node.shown["p:room:1"]["own"]
        assert (shown.previous_ref, shown.online_at) == ("ref-tab-1", 1006.0)


@pytest.mark.parametrize("meta", [b"{}", b'{"away":true}'], ids=["same", "changed"])
@pytest.mark.parametrize("ahead", [0.0, 3600.0], ids=["same clock", "clock ahead"])
@pytest.mark.parametrize("first", ["a", "b"])
def test_who_moves_twice_is_shown_once_to_a_replica_that_hears_of_both_moves(
    meta: bytes, ahead: float, first: str
) -> None:
    network, a, b = pair()
    c = network.start("c")
    network.run(3)
    a.join("p:room:1", "s1", user="u", connected_at=network.now + ahead)
    move(network, a, "s1")
    b.join("p:room:1", "s2", user="u", meta=meta)
    network.queue.clear()  # the first replica does not hear that the client is there
    move(network, b, "s2")
    c.tracker._moves = Moves()
    c.hold("p:room:1")
    network.queue.clear()
    for node in (a, b) if first == "a" else (b, a):
        c.perform(c.tracker.receive(node.tracker.own_state("p:room:1"), network.now))

    ref = "ref-s1" if meta == b"{}" else "ref-s2"
    assert [(e.id, e.ref) for e in c.tracker.view("p:room:1").shown.values()] == [("s2", ref)]  # type: ignore[union-attr]  # held
    c.join("p:room:1", "s3", user="u", meta=meta)
    network.run(30)
    assert {node.name: list(node.shown["p:room:1"]) for node in (a, b, c)} == {
        name: [ref] for name in "abc"
    }


def test_another_device_or_user_does_not_take_a_moving_place() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "old", user="u", device=Device("phone"))
    network.settle()
    move(network, a, "old")
    b.join("p:room:1", "laptop", user="u", device=Device("laptop"))
    b.join("p:room:1", "other", user="v")
    network.settle()

    assert b.users("p:room:1") == {"old", "laptop", "other"}


def test_who_moves_and_does_not_arrive_leaves_at_the_deadline() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "old")
    network.settle()
    move(network, a, "old")
    network.run(8)
    assert b.users("p:room:1") == {"old"}
    network.run(4)

    assert a.users("p:room:1") == b.users("p:room:1") == set()
    assert b.log == [("joined", "p:room:1", "old"), ("left", "p:room:1", "old")]


def test_a_replica_that_goes_on_after_a_move_forgets_it() -> None:
    """As when a connection was moved for its age alone: its replica may hold the key again."""
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "old", user="u")
    network.settle()
    move(network, a, "old")
    a.drop("p:room:1")
    network.run(1)
    assert b.users("p:room:1") == {"old"}
    b.join("p:room:1", "new", user="u")
    a.hold("p:room:1")
    network.run(90)

    assert a.users("p:room:1") == b.users("p:room:1") == {"new"}
    view = a.tracker.view("p:room:1")
    assert view is not None
    assert view.own == {}
    assert b.log == [("joined", "p:room:1", "old")]


def test_a_farewell_drops_the_rest_at_once() -> None:
    network, a, b = pair()
    b.hold("p:room:1")
    a.join("p:room:1", "s1")
    network.settle()
    network.kill("a")
    b.perform(b.tracker.receive(Farewell("a", a.incarnation), network.now))

    assert b.users("p:room:1") == set()
    assert b.lost == []


class Machine(RuleBasedStateMachine):
    """Anything happens; then the network heals, and all replicas agree within one digest."""

    names = st.sampled_from(("a", "b", "c", "d"))
    keys = st.sampled_from(KEYS)

    @initialize()
    def begin(self) -> None:
        self.network = Network()
        self.sessions = 0
        self.away: list[tuple[str, str]] = []
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
            self.node(name).perform(self.node(name).tracker.move(key, entry.id, self.network.now))
            self.away.append((key, entry.user))

    @rule(name=names, pick=st.integers(0, 10))
    def come_back(self, name: str, pick: int) -> None:
        if self.away:
            key, user = self.away.pop(pick % len(self.away))
            self.sessions += 1
            self.node(name).join(key, f"s{self.sessions}", user=user)

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

    @rule(name=names, noticed=st.booleans())
    def lose_bus(self, name: str, noticed: bool) -> None:
        if name in self.network.nodes:
            self.network.lose_bus(name, noticed=noticed)

    @rule(seconds=st.sampled_from((0.0, 3.0, 15.0)))
    def all_lose_the_bus(self, seconds: float) -> None:
        for name in self.network.nodes:
            self.network.lose_bus(name, noticed=True)
        self.network.run(seconds)
        self.all_find_the_bus()

    @rule()
    def all_find_the_bus(self) -> None:
        for name in sorted(self.network.deaf):
            self.network.find_bus(name)

    @rule(seconds=st.sampled_from((0.5, 3.0, 15.0)))
    def wait(self, seconds: float) -> None:
        self.network.run(seconds)

    @invariant()
    def what_clients_were_told_is_what_is_shown(self) -> None:
        for node in getattr(self, "network", Network()).nodes.values():
            for key in KEYS:
                view = node.tracker.view(key)
                if view is not None:
                    # replicas that cannot hear each other may give one place, and so its ref, to two
                    assert set(node.shown[key]) == {entry.ref for entry in view.shown.values()}

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
        self.all_find_the_bus()
        for node in network.nodes.values():
            node.stalled = False
        # long enough for the dead to be noticed, moves to end and one audit to pass, even of who is alone
        network.run(DOWN_AFTER + 100)
        network.run(ALONE_SECONDS, tick=STALL_SECONDS)
        for key in KEYS:
            views = [view for node in network.nodes.values() if (view := node.tracker.view(key))]
            expected = {session: entry for view in views for session, entry in view.own.items()}
            for view in views:
                assert view.shown == expected
            assert len({entry.ref for entry in expected.values()}) == len(expected)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(0.6), stateful_step_count=40)


class Rollout:
    """Replicas of a cluster are restarted one after another, and clients come back to any of the others."""

    def __init__(self, draw: st.DataObject) -> None:
        self.draw = draw
        self.network = Network()
        self.names = [f"r{n}" for n in range(draw.draw(st.integers(2, 4)))]
        for name in self.names:
            self.network.start(name)
        self.network.run(1)
        self.sessions = 0
        self.where: dict[str, tuple[str, str, str]] = {}
        members = st.tuples(
            st.sampled_from(self.names), st.sampled_from(KEYS), st.sampled_from(("ann", "bob"))
        )
        for name, key, user in draw.draw(st.lists(members, min_size=1, max_size=6)):
            self.enter(name, key, user)
        for name, key in draw.draw(
            st.lists(st.tuples(st.sampled_from(self.names), st.sampled_from(KEYS)), max_size=3)
        ):
            self.network.nodes[name].hold(key)  # an anonymous watcher
        self.network.run(1)
        self.refs = {
            key: {f"ref-{s}" for s, (_, k, _) in self.where.items() if k == key} for key in KEYS
        }
        for node in self.network.nodes.values():
            node.log.clear()

    def enter(self, name: str, key: str, user: str) -> None:
        """A client of a user joins."""
        self.sessions += 1
        session = f"s{self.sessions}"
        self.where[session] = (name, key, user)
        self.network.now += 0.01
        self.network.nodes[name].join(key, session, user=user)

    def some_arrive(self) -> None:
        """A part of what is under way arrives, in order."""
        for _ in range(self.draw.draw(st.integers(0, len(self.network.queue)))):
            self.network.deliver()

    def restart(self, name: str) -> None:
        """Drain one, have its clients come back, and start it again."""
        network, node = self.network, self.network.nodes[name]
        away = [session for session, (at, _, _) in self.where.items() if at == name]
        for session in away:
            node.perform(node.tracker.move(self.where[session][1], session, network.now))
        for key in KEYS:
            node.drop(key)
        # a client's first join waits until the bus has confirmed a subscription, after what was said before
        network.settle()
        others = st.sampled_from([other for other in self.names if other != name])
        early = self.draw.draw(st.integers(0, len(away)))
        for number, session in enumerate(self.draw.draw(st.permutations(away))):
            if number == early:
                node.perform([node.tracker.farewell()])
            _, key, user = self.where.pop(session)
            self.enter(self.draw.draw(others), key, user)
            self.some_arrive()
        network.settle()
        network.kill(name)
        network.run(self.draw.draw(st.sampled_from((0.5, 3.0, 15.0))))
        network.start(name)
        network.run(1)

    def check(self) -> None:
        """Everybody is shown as before, and nobody was told of anything."""
        for node in self.network.nodes.values():
            for key in KEYS:
                if node.tracker.view(key) is not None:
                    assert set(node.shown[key]) == self.refs[key], (node.name, key)
            assert "left" not in {what for what, _, _ in node.log}


@settings(max_examples=examples(0.6))
@given(st.data())
def test_nobody_sees_a_rolling_restart(draw: st.DataObject) -> None:
    rollout = Rollout(draw)
    for name in draw.draw(st.permutations(rollout.names)):
        rollout.restart(name)
        rollout.check()


def test_a_beat_tells_what_time_it_is_there_unless_it_is_of_an_earlier_release() -> None:
    a, b = (Tracker(name, 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5) for name in "ab")
    a.receive(b.announce(10.0).message, 10.0)
    assert a.peers.clocks() == {}

    b.time = 1_000_000.0
    a.receive(b.announce(10.0).message, 10.0)
    assert a.peers.clocks() == {"b": 999_990.0}
