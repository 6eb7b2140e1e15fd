"""What trackers say as their cluster grows, changes and breaks, counted on a simulated network."""

from collections.abc import Iterable
from itertools import cycle

import pytest

from gateway.tracker.core import Tracker
from gateway.tracker.effects import Announce, Direct, Lost
from gateway.tracker.messages import Beat, Digest
from tests.unit.tracker.network import DOWN_AFTER, TICK, Network, Node

MANY = 3_000
CALM = 30.0
"""Seconds after which the digests of a change are over."""


def said(nodes: Iterable[Node]) -> int:
    """Messages of some replicas, but for beats."""
    return sum(node.sent.total() - node.sent[Beat] for node in nodes)


def crowd(shared: int = 0) -> tuple[Network, Node, Node]:
    """A replica with many users, of whom another knows some."""
    network = Network()
    a, b = network.start("a"), network.start("b")
    network.run(1)
    for number in range(MANY):
        a.join(f"s:user:{number}", f"s{number}")
        network.settle()
    for number in range(shared):
        b.join(f"s:user:{number}", f"t{number}")
    network.run(CALM)
    return network, a, b


def test_a_replica_that_comes_costs_the_others_nothing_while_it_shares_nothing() -> None:
    network, a, b = crowd()
    a.sent.clear()
    b.sent.clear()
    c = network.start("c")
    network.run(CALM)

    assert said([a, b, c]) == 0
    c.hold("s:user:7")
    network.settle()
    assert c.users("s:user:7") == {"s7"}
    assert said([a, b, c]) == 2, "a hello and an answer"


def test_users_of_one_replica_alone_are_hardly_spoken_of() -> None:
    network, a, _ = crowd()
    a.sent.clear()
    network.run(1200, tick=1.0)

    assert said([a]) <= 2 * MANY
    assert a.sent[Beat] < 1200


def test_a_key_that_others_hold_is_spoken_of_each_minute() -> None:
    network = Network()
    a, b = network.start("a"), network.start("b")
    network.run(1)
    a.join("p:room:1", "s1")
    b.hold("p:room:1")
    network.run(CALM)
    a.sent.clear()
    network.run(600)
    assert 9 <= a.sent[Digest] <= 11

    network.kill("b")
    network.run(DOWN_AFTER + 70)
    a.sent.clear()
    network.run(600)
    assert a.sent[Digest] <= 1


def test_a_bus_that_comes_back_costs_what_is_shared_and_what_changed() -> None:
    network, a, b = crowd(shared=100)
    a.sent.clear()
    b.sent.clear()
    network.lose_bus("a", noticed=False)
    network.run(5)
    a.join("s:user:200", "new-here")
    b.join("s:user:300", "new-there")
    b.leave("s:user:1", "t1")
    for node in (a, b):
        node.sent.clear()
    network.find_bus("a")
    most = 0
    for _ in range(int(CALM / TICK)):
        before = said([a, b])
        network.run(TICK)
        most = max(most, said([a, b]) - before)

    assert b.users("s:user:200") == set()  # nobody there wants to know
    assert a.users("s:user:300") == b.users("s:user:300") == {"s300", "new-there"}
    assert a.users("s:user:1") == {"s1"}
    assert said([a, b]) < 1000
    assert most <= 150, "they are spread"


def rolling_restart(replicas: int, users: int, rooms: int) -> tuple[float, float]:
    """Restart one after another, each with so many users, all in the rooms that all replicas share.

    Returns:
        For each client that had to move: how many messages all replicas together sent, and how many one got,
        on average. Beats do not count.
    """
    network = Network()
    names = [f"r{number}" for number in range(replicas)]
    where: dict[str, list[int]] = {name: [] for name in names}
    for name in names:
        network.start(name)
    network.run(1)
    for number in range(users * replicas):
        enter(network.nodes[names[number % replicas]], number, rooms)
        where[names[number % replicas]].append(number)
    network.run(CALM)
    counts = {name: (node.sent, node.received) for name, node in network.nodes.items()}
    for each in counts.values():
        for counter in each:
            counter.clear()
    moved = 0
    for name in names:
        leaving = network.nodes[name]
        others = cycle(other for other in names if other != name)
        away, where[name] = where[name], []
        for number in away:
            for key in (f"s:user:{number}", room := f"p:room:{number % rooms}"):
                for entry in list(leaving.tracker.view(key).own.values()):  # type: ignore[union-attr]  # held
                    if entry.user == f"user-{number}":
                        leaving.perform(leaving.tracker.move(key, entry.id, network.now))
            leaving.drop(f"s:user:{number}")
            network.settle()
            to = next(others)
            enter(network.nodes[to], number, rooms)
            where[to].append(number)
            moved += 1
        network.run(2)
        leaving.perform([leaving.tracker.farewell()])
        network.kill(name)
        network.run(5)
        fresh = network.start(name)
        fresh.sent, fresh.received = counts[name]
        network.run(CALM)
    for node in network.nodes.values():
        assert node.tracker.view(room) is None or len(node.users(room)) == users * replicas / rooms
    sent, received = (
        sum(each[which].total() - each[which][Beat] for each in counts.values()) for which in (0, 1)
    )
    return sent / moved, received / moved / replicas


def enter(node: Node, user: int, rooms: int) -> None:
    """A client of a user joins her room."""
    node.sessions += 1
    session = f"{node.name}-{node.incarnation}-{node.sessions}"
    for key in (f"s:user:{user}", f"p:room:{user % rooms}"):
        node.join(key, session, user=f"user-{user}")
        node.network.settle()


def test_what_a_client_that_moves_costs_does_not_grow_with_the_replicas() -> None:
    """With a room for twenty users of a replica, each on all replicas."""
    few, many = (rolling_restart(replicas, 40, 2) for replicas in (2, 8))

    for with_few, with_many in zip(few, many, strict=True):
        assert with_many <= 1.2 * with_few


@pytest.mark.parametrize(
    ("peers", "beats"), [(0, 50), (50, 50), (75, 33), (100, 25), (150, 17), (1000, 17)]
)
def test_beats_are_slower_among_many(peers: int, beats: int) -> None:
    tracker = Tracker("a", 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5)
    for number in range(peers):
        tracker.receive(Beat(f"r{number}", 1), 0.0)
    count = 0
    for tick in range(int(100 / TICK)):
        now = tick * TICK
        if tick % 4 == 0:
            for name in list(tracker.peers):
                tracker.peers.hear(name, 1, now)
        count += sum(isinstance(each, Announce) for each in tracker.tick(now))

    assert abs(count - beats) <= 2


def test_one_whose_beat_was_lost_is_asked_before_it_counts_as_dead() -> None:
    a, b = (Tracker(name, 1, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5) for name in "ab")
    a.receive(b.announce(0.0).message, 0.0)
    doubts = [
        (now, effect)
        for now in (tick * TICK for tick in range(1, int((DOWN_AFTER - 1) / TICK)))
        for effect in a.tick(now)
        if isinstance(effect, Direct)
    ]
    assert len(doubts) == 2, "one each second"
    now, doubt = doubts[-1]
    [answer] = b.receive(doubt.message, now)[1:]
    assert isinstance(answer, Direct)
    a.receive(answer.message, now)

    assert not any(isinstance(each, Lost) for each in a.tick(DOWN_AFTER + 1))
    assert list(a.peers) == ["b"]
