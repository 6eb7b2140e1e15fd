"""Runs the tracker on the bus: gives its core the time and the messages, and carries out its effects."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol, assert_never

from gateway.errors import BusError
from gateway.log import background_error
from gateway.tracker.core import Tracker
from gateway.tracker.effects import Announce, Direct, Lost, Publish, Superseded, TrackerEffect
from gateway.tracker.entry import Entry, topic_of
from gateway.tracker.messages import State, decode, encode
from gateway.tracker.peers import Peers
from gateway.tracker.view import Change, Remote, View

TICK_SECONDS: Final = 0.25
"""
Time between two ticks, which fall on whole quarters of a second by the wall clock.

So those of all replicas fall together, and what they send comes together: to wake up for each message would
cost more than to read it.
"""

Watcher = Callable[[Change], None]


class TrackerCarrier(Protocol):
    """Sends to all replicas that are subscribed to a topic, to one replica, or to all."""

    def to_topic(self, topic: str, message: bytes) -> None: ...

    def to_replica(self, replica: str, message: bytes) -> None: ...

    def to_all(self, message: bytes) -> None: ...


class TrackerService:
    """One replica's tracker.

    Args:
        clock: Monotonic seconds.
        wall_clock: Unix seconds, which the others are told.
        lost: Called when another replica fell silent, or began anew without a farewell.
        superseded: Called when a later process runs under this replica's id.
    """

    def __init__(
        self,
        core: Tracker,
        carrier: TrackerCarrier,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        lost: Callable[[Lost], None],
        superseded: Callable[[], None],
    ) -> None:
        self._core = core
        self._carrier = carrier
        self._clock = clock
        self._wall_clock = wall_clock
        self._lost = lost
        self._superseded = superseded
        self._watchers: dict[str, Watcher] = {}
        # how each message of this run goes on behind its length and tag
        self._own = encode((core.replica, core.incarnation))[1:]

    def hold(self, key: str, watcher: Watcher) -> View:
        """Know a key from now on; its subject is subscribed already.

        Args:
            watcher: Told of every change of what is shown, until :meth:`release`.
        """
        self._watchers[key] = watcher
        self._perform(self._core.hold(key, self._clock()))
        view = self._core.view(key)
        assert view is not None  # noqa: S101 -- it was held just now
        return view

    def shown(self, key: str) -> list[Entry]:
        """Who is there, as far as this replica has a reason to know."""
        view = self._core.view(key)
        return [] if view is None else list(view.shown.values())

    def own(self, key: str) -> State:
        """This replica's entries on a key, held or not."""
        return self._core.own_state(key)

    def others(self, key: str) -> Mapping[str, Remote]:
        """What is known of other replicas' entries, by replica; nothing unless the key is held."""
        view = self._core.view(key)
        return {} if view is None else view.remotes

    def holders(self, key: str) -> tuple[list[str], list[str]]:
        """Other replicas that have entries on a key, and those that may have, as far as this one can say."""
        named = [replica for replica, remote in self.others(key).items() if remote.entries]
        doubted = self._core.doubted(key)
        self._perform(self._core.greet_again(key, self._clock()))  # so that the next asks fewer
        return named, doubted

    def moving(self, key: str) -> bool:
        """See :meth:`gateway.tracker.core.Tracker.moving`."""
        return self._core.moving(key)

    def release(self, key: str) -> None:
        """Undo :meth:`hold`; entries put on the key were removed before, or move."""
        del self._watchers[key]
        self._core.drop(key)

    def put(self, key: str, entry: Entry) -> None:
        """Add an entry to a key that is held, or change it."""
        self._perform(self._core.put(key, entry, self._clock()))

    def remove(self, key: str, session: str) -> None:
        """Take an entry away. Idempotent."""
        self._perform(self._core.remove(key, session, self._clock()))

    def move(self, key: str, session: str) -> None:
        self._perform(self._core.move(key, session, self._clock()))

    @property
    def peers(self) -> Peers:
        return self._core.peers

    def receive(self, data: bytes) -> None:
        """A message of a tracker, from whatever subject.

        Raises:
            ValueError: This release cannot read it.
        """
        if not data.startswith(self._own, 2):  # which comes back from every subject
            self._perform(self._core.receive(decode(data), self._clock()))

    def bus_changed(self, connected: bool) -> None:
        self._core.bus_changed(connected, self._clock())

    def announce(self) -> None:
        """Say at once that this replica is here; the others answer, so that it knows them."""
        self._core.time = self._wall_clock()
        self._perform([self._core.announce(self._clock())])

    async def next_tick(self, counts: Callable[[], tuple[int, int]]) -> None:
        """Wait for the next tick, and do what is due. To be called over and over.

        Args:
            counts: How many sessions and connections this replica has.
        """
        await asyncio.sleep(TICK_SECONDS - self._wall_clock() % TICK_SECONDS)
        self._core.sessions, self._core.connections = counts()
        self._core.time = self._wall_clock()
        self._perform(self._core.tick(self._clock()))

    def farewell(self) -> None:
        """Tell the others that this replica leaves."""
        self._send_one(self._core.farewell())

    def _send_one(self, item: Publish | Announce | Direct) -> None:
        try:
            match item:
                case Publish():
                    self._carrier.to_topic(topic_of(item.key), encode(item.message))
                case Direct():
                    self._carrier.to_replica(item.replica, encode(item.message))
                case Announce():
                    self._carrier.to_all(encode(item.message))
        except BusError:
            return  # the bus is down; when it is back, what was said meanwhile is compared
        except Exception as problem:  # noqa: BLE001 -- a bug with one message must not keep back all others
            background_error("tracker_send", problem)

    def _perform(self, effects: list[TrackerEffect]) -> None:
        for effect in effects:
            match effect:
                case Publish() if not self._core.peers:
                    pass  # who is heard of later compares
                case Publish() | Announce() | Direct():
                    self._send_one(effect)
                case Change():
                    watcher = self._watchers.get(effect.key)
                    if watcher is not None:
                        watcher(effect)
                case Lost():
                    self._lost(effect)
                case Superseded():
                    self._superseded()
                case _:
                    assert_never(effect)
