"""A large cluster, to which everything happens that happens to clusters: at the end all replicas agree.

``python -m tests.unit.tracker.test_large_cluster 300 7`` does it with 300 replicas and the seed 7.
"""

import random
import sys
from collections.abc import Iterator

import pytest

from gateway.tracker.messages import Beat
from tests.unit.tracker.network import DOWN_AFTER, Network

ROOMS = 20
USERS = 3
"""Of each replica; each has a room, too."""


class LargeCluster:
    """Some replicas, and clients that are somewhere on them."""

    def __init__(self, replicas: int, seed: int) -> None:
        self.network = Network()
        self.network.lose = 0.002
        self.random = self.network.random = random.Random(seed)
        self.names = [f"r{number:04}" for number in range(replicas)]
        self.sessions = 0
        self.where: dict[str, tuple[str, str]] = {}
        for name in self.names:
            self.network.start(name)
        self.network.run(3)
        for user in range(USERS * replicas):
            self.enter(f"user-{user}", self.names)
        self.network.run(3)

    def enter(self, user: str, names: list[str]) -> None:
        """A user's client comes to one of some replicas, and leaves where it was."""
        self.leave(user)
        name = self.random.choice(names)
        self.sessions += 1
        self.where[user] = name, f"s{self.sessions}"
        for key in self.keys(user):
            self.network.nodes[name].join(key, f"s{self.sessions}", user=user)

    def leave(self, user: str) -> None:
        """A user's client goes."""
        name, session = self.where.pop(user, ("", ""))
        node = self.network.nodes.get(name)
        if node is None:
            return
        for key in self.keys(user):
            view = node.tracker.view(key)
            if view is not None and session in view.own:
                node.leave(key, session)
                if not view.own:
                    node.drop(key)

    def keys(self, user: str) -> tuple[str, str]:
        """Of a user: that of her sessions, and her room's."""
        return f"s:{user}", f"p:room:{int(user.rpartition('-')[2]) % ROOMS}"

    def some(self, share: float) -> list[str]:
        """Some of the users, in no order."""
        return self.random.sample(sorted(self.where), int(len(self.where) * share))

    def batches(self, share: float) -> Iterator[list[str]]:
        """All replicas, some at a time."""
        size = max(1, int(len(self.names) * share))
        for start in range(0, len(self.names), size):
            yield self.names[start : start + size]

    def rolling_restart(self) -> None:
        """A tenth at a time moves its clients to the others, leaves, and comes back."""
        for batch in self.batches(0.1):
            others = [name for name in self.names if name not in batch]
            for user, (name, session) in list(self.where.items()):
                if name in batch:
                    node = self.network.nodes[name]
                    for key in self.keys(user):
                        node.perform(node.tracker.move(key, session, self.network.now))
                    del self.where[user]
                    self.network.settle()
                    self.enter(user, others)
            for name in batch:
                self.network.nodes[name].perform([self.network.nodes[name].tracker.farewell()])
            self.network.settle()
            for name in batch:
                self.network.kill(name)
            self.network.run(0.5)
            for name in batch:
                self.network.start(name)
            self.network.run(0.5)

    def split(self) -> None:
        """Two halves do not hear each other for longer than it takes to count as dead."""
        halves = self.names[::2], self.names[1::2]
        self.network.cut = {frozenset((a, b)) for a in halves[0] for b in halves[1]}
        for _ in range(int(DOWN_AFTER) + 6):
            for user in self.some(0.01):
                self.enter(user, self.random.choice(halves))
            self.network.run(1)
        self.network.cut.clear()

    def lose_the_bus(self) -> None:
        """All lose it, whom nobody can join then but some leave, and find it again one after another."""
        for name in self.names:
            self.network.lose_bus(name, noticed=self.random.random() < 0.5)
        self.network.run(2)
        for user in self.some(0.05):
            self.leave(user)
        for batch in self.batches(0.25):
            self.network.run(1)
            for name in batch:
                self.network.find_bus(name)
                for user in self.some(0.001):
                    self.enter(user, [name])

    def newcomers(self) -> None:
        """New replicas come, and at once have clients."""
        fresh = [f"n{number:04}" for number in range(len(self.names) // 10)]
        for name in fresh:
            self.network.start(name)
        self.names += fresh
        for user in self.some(0.1):
            self.enter(user, fresh)
        self.network.run(3)

    def some_die(self) -> None:
        """Some replicas are killed, and their clients come to others."""
        for name in self.random.sample(self.names, len(self.names) // 20):
            self.network.kill(name)
            self.names.remove(name)
        for user, (name, _) in list(self.where.items()):
            if name not in self.names:
                self.enter(user, self.names)
        self.network.run(DOWN_AFTER)

    def check(self) -> None:
        """All that hold a key show the same."""
        self.network.lose = 0.0
        self.network.run(DOWN_AFTER + 5)
        expected: dict[str, set[str]] = {}
        for user, (_, session) in self.where.items():
            for key in self.keys(user):
                expected.setdefault(key, set()).add(session)
        for node in self.network.nodes.values():
            for key, sessions in expected.items():
                if node.tracker.view(key) is not None:
                    assert node.users(key) == sessions, (node.name, key)


def play(replicas: int, seed: int) -> LargeCluster:
    """Have everything happen to a cluster."""
    cluster = LargeCluster(replicas, seed)
    cluster.rolling_restart()
    cluster.split()
    cluster.lose_the_bus()
    cluster.newcomers()
    cluster.some_die()
    cluster.check()
    return cluster


@pytest.mark.parametrize("seed", [1])
def test_a_hundred_replicas_agree_whatever_happened(seed: int) -> None:
    play(100, seed)


if __name__ == "__main__":
    for node in play(int(sys.argv[1]), int(sys.argv[2])).network.nodes.values():
        print(
            node.name,
            {kind.__name__: count for kind, count in node.sent.items() if kind is not Beat},
        )
