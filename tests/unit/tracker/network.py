"""Replicas on a simulated network that loses, repeats and reorders, as badly as it is told to."""

import random
from collections import Counter, defaultdict, deque
from functools import lru_cache
from typing import Any

from gateway.tracker.core import Tracker
from gateway.tracker.effects import Announce, Direct, Lost, Publish, TrackerEffect
from gateway.tracker.entry import Entry
from gateway.tracker.messages import TrackerMessage, decode, encode
from gateway.tracker.view import Change

DOWN_AFTER = 10.0
TICK = 0.25

decode_once = lru_cache(1000)(decode)
"""As what goes to many is the same for all."""


class Node:
    """One replica on a simulated network, with the clients of each key it has."""

    def __init__(self, network: "Network", name: str, incarnation: int) -> None:
        self.network = network
        self.name = name
        self.tracker = Tracker(name, incarnation, down_after_seconds=DOWN_AFTER, spread=lambda: 0.5)
        self.incarnation = incarnation
        self.shown: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self.sent: Counter[type[TrackerMessage]] = Counter()
        self.received: Counter[type[TrackerMessage]] = Counter()
        self.sessions = 0
        self.log: list[tuple[str, str, str]] = []
        self.lost: list[str] = []
        self.stalled = False

    def perform(self, effects: list[TrackerEffect]) -> None:
        """Carry out effects; what is shown is kept as a client of the key would keep it."""
        for effect in effects:
            if isinstance(effect, Publish | Announce | Direct):
                self.sent[type(effect.message)] += 1
            match effect:
                case Publish():
                    self.network.publish(self, effect.key, effect.message)
                case Announce():
                    self.network.send(self, list(self.network.nodes.values()), effect.message)
                case Direct():
                    self.network.direct(self, effect.replica, effect.message)
                case Change():
                    self.tell(effect.key)
                case Lost():
                    self.lost.append(effect.replica)

    def tell(self, key: str) -> None:
        """Tell the clients of a key what is different, by ref, as presence does."""
        view = self.tracker.view(key)
        assert view is not None
        before, now = self.shown[key], {entry.ref: entry for entry in view.shown.values()}
        self.log += [("left", key, e.id) for ref, e in before.items() if ref not in now]
        self.log += [("joined", key, e.id) for ref, e in now.items() if ref not in before]
        self.shown[key] = now

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
        holders = [node for node in self.nodes.values() if node.tracker.view(key) is not None]
        self.send(sender, holders, message)

    def direct(self, sender: Node, name: str, message: TrackerMessage) -> None:
        """To one node."""
        if name in self.nodes:
            self.send(sender, [self.nodes[name]], message)

    def send(self, sender: Node, to: list[Node], message: TrackerMessage) -> None:
        """Put a message on its way to each, if the way is open."""
        if sender.name in self.deaf:
            return
        data = encode(message)
        for name in (node.name for node in to):
            if name in self.deaf or (self.cut and frozenset((sender.name, name)) in self.cut):
                continue
            if not self.lose or self.random.random() >= self.lose:
                self.queue.append((name, data))

    def deliver(self, index: int = 0) -> None:
        """Deliver one message."""
        self.queue.rotate(-index)
        name, data = self.queue.popleft()
        self.queue.rotate(index)
        node = self.nodes.get(name)
        if node is not None and not node.stalled:
            message = decode_once(data)
            node.received[type(message)] += message.replica != name
            node.perform(node.tracker.receive(message, self.now))

    def settle(self) -> None:
        """Deliver everything, and what follows from it."""
        while self.queue:
            self.deliver()

    def lose_bus(self, name: str, *, noticed: bool) -> None:
        """One hears and says nothing any more, and may not know yet; what is under way to it is lost."""
        self.deaf.add(name)
        self.queue = deque(each for each in self.queue if each[0] != name)
        if noticed:
            self.nodes[name].tracker.bus_changed(False, self.now)

    def find_bus(self, name: str) -> None:
        """The bus of one is back, which was lost whether that was noticed or not."""
        self.deaf.discard(name)
        if name in self.nodes:
            self.nodes[name].tracker.bus_changed(False, self.now)
            self.nodes[name].tracker.bus_changed(True, self.now)

    def run(self, seconds: float, tick: float = TICK) -> None:
        """Let time pass."""
        for _ in range(int(seconds / tick)):
            self.now += tick
            for node in list(self.nodes.values()):
                node.tick()
            self.settle()
