"""One replica as far as a client's connection needs it, and the clients that are connected to it.

The parts are the real ones, but for what would take time: the bus and the history wait at gates, the backend
answers when a test says so, and the clock stands still. This module alone knows how a connection is made and
what it keeps, so it alone changes when that does.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, TypeAlias

import jwt

from gateway.auth.claims import Claims
from gateway.auth.rules import PersonalTopic, Rules
from gateway.auth.tokens import TokenVerifier
from gateway.bus.subjects import Subjects
from gateway.channels.callback_queue import MAX_WAITING, MAX_WAITING_BYTES, Work
from gateway.channels.callbacks import Callbacks
from gateway.channels.connection import CLOSE_GRACE_SECONDS, Connection
from gateway.channels.connections import Connections
from gateway.channels.credentials import Credentials
from gateway.channels.pushes import Pushes
from gateway.channels.replay import Replays
from gateway.channels.services import AGE_JITTER, JoinCount, Services
from gateway.config import AuthSettings, LimitsSettings
from gateway.config.sections import ChannelSettings
from gateway.device import Device
from gateway.history.memory import MemoryStore
from gateway.hub.fanout import Fanout
from gateway.hub.registry import Registry
from gateway.metrics import Metrics
from gateway.protocol.reasons import CloseCode
from gateway.relay import JOIN_WAIT_SECONDS, Relay
from gateway.retention import Retention
from gateway.sessions.book import Sessions
from gateway.sessions.client import Origin
from gateway.sessions.displaced import Displaced
from gateway.sessions.limits import Limits as SessionLimits
from gateway.sessions.presence import Presences
from gateway.sessions.registry import SessionRegistry
from gateway.tracker.core import Tracker
from gateway.tracker.service import TrackerService
from gateway.transport.longpoll.sessions import LONGPOLL_ENCODINGS
from gateway.transport.websocket import WEBSOCKET_ENCODINGS
from gateway.wheel import TimerWheel
from tests.support.clock import Clock
from tests.unit.channels.fakes import (
    Alone,
    Backend,
    Frame,
    Gate,
    GatedAdmission,
    GatedBus,
    GatedHistory,
    Unwatched,
    Wire,
)

NOW: Final = 1_700_000_000.0
"""When a scene begins, unix seconds."""

SECRET: Final = "a secret of the scene, long enough for HS256"
LEEWAY: Final = 10
IDLE: Final = 90.0
META_BYTES: Final = 64
GRACE: Final = int(CLOSE_GRACE_SECONDS)
JITTER: Final = AGE_JITTER
JOIN_WAIT: Final = int(JOIN_WAIT_SECONDS)
MOST_WAITING: Final = MAX_WAITING
"""Callbacks of one client."""
MOST_WAITING_BYTES: Final = MAX_WAITING_BYTES
Callback: TypeAlias = Work

ROOM: Final = "room:1"
"""Pushes are broadcast."""
OPEN: Final = "open:1"
"""As a room, for anyone."""
QUIET: Final = "quiet:1"
"""As a room, without echo."""
DENIED: Final = "denied:1"
"""Nobody may push."""
NAMED: Final = "named:1"
"""For those whose token names the topic; pushes go to the backend."""
ASKED: Final = "asked:1"
"""The backend decides on joins."""
ORDERS: Final = "orders:1"
"""Pushes go to the backend."""
KEPT: Final = "kept:1"
"""Messages are kept."""
SHOWN: Final = "shown:1"
"""Members see each other."""
COUNTED: Final = "counted:1"
"""Members see how many they are."""
OWN: Final = "user:42"
"""The topic of user 42 alone."""

CHANNELS: Final = (
    ChannelSettings(pattern="room:*", push="broadcast"),
    ChannelSettings(pattern="open:*", join="anyone", push="broadcast"),
    ChannelSettings(pattern="quiet:*", push="broadcast", echo=False),
    ChannelSettings(pattern="denied:*"),
    ChannelSettings(pattern="named:*", join="token", push="upstream"),
    ChannelSettings(
        pattern="asked:*", join="upstream", push="broadcast", upstream_url="http://joins/"
    ),
    ChannelSettings(pattern="orders:*", push="upstream", upstream_url="http://orders/"),
    ChannelSettings(
        pattern="kept:*", push="broadcast", history=Retention(messages=10, seconds=300), echo=True
    ),
    ChannelSettings(
        pattern="kept-orders:*", push="upstream", history=Retention(messages=10, seconds=300)
    ),
    ChannelSettings(pattern="shown:*", join="upstream", push="broadcast", presence=True),
    ChannelSettings(pattern="counted:*", presence="count"),
)

QUIET_TURNS: Final = 40
"""Turns of the event loop in which all that can be done without the clock, the bus or the backend is done."""

FORGOTTEN_SECONDS: Final = 10
"""After so long nobody remembers a topic without members, or a user without sessions."""


def ok(join_ref: str | None, ref: str, topic: str, response: Any = None) -> Frame:
    """The ok reply."""
    return [join_ref, ref, topic, "phx_reply", {"status": "ok", "response": response or {}}]


def refused(join_ref: str | None, ref: str, topic: Any, reason: Any) -> Frame:
    """The error reply: with a reason of the gateway's, or a response in the backend's words."""
    response = {"reason": reason} if isinstance(reason, str) else reason
    return [join_ref, ref, topic, "phx_reply", {"status": "error", "response": response}]


def ended(join_ref: str, topic: str) -> Frame:
    """The end of a channel."""
    return [join_ref, join_ref, topic, "phx_close", {}]


def said(topic: str, event: str, payload: Any) -> Frame:
    """A broadcast."""
    return [None, None, topic, event, payload]


class Client:
    """A client that is connected, from its own side.

    Attributes:
        wire: What carries its frames.
    """

    def __init__(self, scene: "Scene", claims: Claims | None, *, transport: str) -> None:
        self.wire = Wire()
        self._scene = scene
        self._read = 0
        encodings = {"websocket": WEBSOCKET_ENCODINGS, "longpoll": LONGPOLL_ENCODINGS}[transport]
        device = Device(f"device {next(scene.devices)}", "", "")
        self._connection = Connection(
            scene.services,
            self.wire,
            encodings["2"],
            claims,
            Origin(transport, "2.0.0", "192.0.2.1", "test", device),
            id=scene.connections.new_id(),
            state=b'{"n":0}',
            idle_seconds=IDLE,
        )
        scene.connections.add(self._connection, "websocket")

    async def say(self, frame: Frame) -> None:
        """Send a message, and let all be done that can be done at once."""
        await self.send(json.dumps(frame, separators=(",", ":")))

    async def send(self, data: str | bytes) -> None:
        """Send a frame, whatever it is; what comes behind the gateway's close frame is not read."""
        if self._connection.close_code is None:
            self._connection.heard_at = self._scene.monotonic()
            self._connection.receive(data)
        await self._scene.settled()

    def say_all(self, *frames: Frame) -> None:
        """Send messages in one segment, and let nothing be done but what each leads to at once."""
        for frame in frames:
            self._connection.receive(json.dumps(frame, separators=(",", ":")))

    async def join(self, topic: str, ref: str = "1", params: Any = None) -> None:
        """Join; the ref is the join_ref, too."""
        await self.say([ref, ref, topic, "phx_join", {} if params is None else params])

    def join_at_once(self, topic: str) -> None:
        """Join, without a turn of the event loop."""
        self._connection.receive(f'["1","1","{topic}","phx_join",{{}}]')

    async def join_and_go(self, topic: str) -> None:
        """Join, and go in the same turn of the event loop."""
        frame = json.dumps(["1", "1", topic, "phx_join", {}], separators=(",", ":"))
        self._connection.receive(frame)
        await self.go()

    async def refresh_and_go(self, token: str) -> None:
        """Present a newer token, and go in the same turn of the event loop."""
        frame = [None, "5", "phoenix", "access_token", {"access_token": token}]
        self._connection.receive(json.dumps(frame, separators=(",", ":")))
        await self.go()

    async def leave(self, topic: str, ref: str = "9", join_ref: str = "1") -> None:
        """Leave a topic."""
        await self.say([join_ref, ref, topic, "phx_leave", {}])

    async def push(self, topic: str, event: str, payload: Any = None, ref: str = "2") -> None:
        """Push to a topic that was joined with ref 1."""
        await self.say(["1", ref, topic, event, {} if payload is None else payload])

    async def push_binary(self, topic: str, event: str, data: bytes, ref: str = "2") -> None:
        """Push bytes to a topic that was joined with ref 1."""
        names = [name.encode() for name in ("1", ref, topic, event)]
        await self.send(bytes((0, *map(len, names))) + b"".join(names) + data)

    async def heartbeat(self, ref: str) -> None:
        """Say that one is there."""
        await self.say([None, ref, "phoenix", "heartbeat", {}])

    async def refresh(self, token: str, ref: str = "5", topic: str = "phoenix") -> None:
        """Present a newer token."""
        join_ref = None if topic == "phoenix" else "1"
        await self.say([join_ref, ref, topic, "access_token", {"access_token": token}])

    async def go(self) -> None:
        """End the connection from the client's side. Idempotent."""
        connection, connections = self._connection, self._scene.connections
        if connection in connections.open:
            connection.release()
            connections.remove(connection, "websocket")
            connection.cut_off_later()
        self.wire.closing = True
        await self._scene.settled()

    def take(self) -> list[Any]:
        """What it heard since the last time: messages, close frames, pongs and binary frames."""
        heard = self.wire.heard()
        new, self._read = heard[self._read :], len(heard)
        return new

    @property
    def id(self) -> str:
        """The id of its session."""
        return self._connection.id

    @property
    def topics(self) -> list[str]:
        """What it has joined."""
        return self._connection.topics

    @property
    def user(self) -> str | None:
        """Whom its token names."""
        claims = self._connection.claims
        return None if claims is None else claims.user

    @property
    def expires_at(self) -> float:
        """When its token expires."""
        claims = self._connection.claims
        assert claims is not None
        return claims.expires_at

    @property
    def state(self) -> Any:
        """What the backend keeps with it."""
        return json.loads(self._connection.state)

    @property
    def close_code(self) -> CloseCode | None:
        """What the gateway closed it with."""
        return self._connection.close_code

    @property
    def joins_under_way(self) -> int:
        """Its joins that are admitted and not answered."""
        return len(self._connection.channels._joining)

    def is_cut(self) -> bool:
        """Whether its TCP connection was cut."""
        return self.wire.aborted

    # what others do to it

    def close(self, code: CloseCode) -> None:
        """The gateway closes it."""
        self._connection.close(code)

    def go_away(self) -> bool:
        """The API closes it; False if it is closed."""
        return self._connection.go_away()

    def end_session(self, reason: str) -> None:
        """Another session takes its place."""
        self._connection.end_session(reason)

    def overflowed(self) -> None:
        """It does not read."""
        self._connection.overflowed()

    def leave_topic(self, topic: str) -> bool:
        """It is taken off a topic; False if it is not on it."""
        return self._connection.leave_topic(topic)

    def last_seen(self) -> float:
        """When it was last heard of, unix seconds."""
        return self._connection.last_seen()

    def rejoin(self, topic: str) -> None:
        """It lacks messages of a topic it is a member of."""
        self._connection.rejoin(topic, self._connection.channels.members[topic])

    def release(self) -> None:
        """Its connection is gone."""
        self._connection.release()


class Scene:
    """The replica. To be made by :func:`opened`.

    Attributes:
        bus: Its bus.
        history: What it keeps.
        backend: Its backend.
        looking: Holds up the look at newer tokens.
        revoked: Users whose tokens are called back.
        sessions: Its sessions.
        registry: Which there are.
    """

    def __init__(
        self,
        *,
        limits: LimitsSettings,
        session_limits: SessionLimits,
        max_age_seconds: float,
    ) -> None:
        self._clock = Clock()
        self._clock.now = math.ceil(self._clock.now)  # so that no sum of seconds is ever rounded
        self._began = self._clock.now
        self._tasks = asyncio.all_tasks()
        self.devices = count()
        self.metrics = Metrics()
        self.revoked: set[str] = set()
        self.backend = Backend()
        self.clients: list[Client] = []
        self.bus = GatedBus(self.metrics)
        self._subjects = Subjects("scene")
        self._registry = Registry()
        personal = PersonalTopic("user:{sub}")
        rules = Rules((*CHANNELS, personal))
        store = MemoryStore(lambda _: Retention(10, 300), 0, self.now)
        self.history = GatedHistory(self.bus, self._subjects, store)
        self._relay = Relay(
            bus=self.bus,
            subjects=self._subjects,
            registry=self._registry,
            fanout=Fanout(
                self._registry,
                self.metrics,
                outbound_limit=limits.outbound_buffer_bytes,
                call_soon=asyncio.get_running_loop().call_soon,
                call_later=asyncio.get_running_loop().call_later,
                clock=self.monotonic,
            ),
            metrics=self.metrics,
            history=self.history,
            policy=rules.history,
            control=lambda _kind, _message: None,
            clock=self.now,
        )
        tracker = TrackerService(
            Tracker("a", 1, down_after_seconds=10.0, spread=lambda: 0.5),
            Alone(),
            clock=self.monotonic,
            wall_clock=lambda: 0.0,
            lost=lambda _: None,
            superseded=lambda: None,
        )
        self.registry = SessionRegistry(offline_after_seconds=3.0, clock=self.now)
        self.sessions = Sessions(
            self.registry,
            limits=session_limits,
            personal=personal,
            topics=self._relay,
            tracker=tracker,
            cluster=Alone(),
            offline_after_seconds=3.0,
            clock=self.now,
            seen=lambda *_: None,
            observer=Unwatched(),
            displaced=Displaced(self.monotonic),
            everyone=lambda: {Alone.replica},
        )
        refs = count(1)
        presences = Presences(
            tracker,
            self._relay.send_here,
            new_ref=lambda: f"r{next(refs)}",
            max_meta_bytes=META_BYTES,
            gather_seconds=0.25,
            part_bytes=100_000,
            clock=self.now,
        )
        upstream: Any = self.backend
        dropped = self.metrics.messages_dropped.labels
        self._callbacks = Callbacks(
            upstream, asks_connect=False, not_handed_over=dropped("not_member").inc
        )
        self._presences = presences
        admission = GatedAdmission(
            TokenVerifier(
                AuthSettings(secrets=(SECRET,), leeway_seconds=LEEWAY),
                rules.claims,
                max_user_bytes=personal.max_user_bytes,
                max_presence_bytes=META_BYTES,
                revoked=self._is_revoked,
                clock=self.now,
            ),
            rules,
        )
        self.looking = admission.looking
        wheel = TimerWheel(self.monotonic())
        self._joins = JoinCount(limits.joins_in_flight, self.metrics)
        self.services = Services(
            admission=admission,
            relay=self._relay,
            sessions=self.sessions,
            presences=presences,
            callbacks=self._callbacks,
            pushes=Pushes(
                self._relay,
                self._callbacks,
                presences,
                revoked=self._is_revoked,
                reserved=dropped("reserved_event").inc,
            ),
            credentials=Credentials(admission, self._callbacks, self.metrics),
            replays=Replays(self._relay, self.metrics.messages_delivered.inc),
            joins=self._joins,
            limits=limits,
            metrics=self.metrics,
            wheel=wheel,
            max_age_seconds=max_age_seconds,
            leeway_seconds=LEEWAY,
            clock=self.monotonic,
            wall_clock=self.now,
        )
        self.connections = Connections(
            callbacks=self._callbacks,
            limits=limits,
            metrics=self.metrics,
            wheel=wheel,
            revoked=self._is_revoked,
            memory_full=lambda: self.memory_full,
            clock=self.monotonic,
        )
        self.memory_full = False
        self.connections.started = True

    # clients

    def connect(
        self, user: str | None = "42", *, transport: str = "websocket", **claims: Any
    ) -> Client:
        """A client whose token says this; None for an anonymous one."""
        made = None if user is None else self.claims(user, **claims)
        client = Client(self, made, transport=transport)
        self.clients.append(client)
        return client

    async def joined(self, topic: str, user: str | None = "42", **claims: Any) -> Client:
        """A client that has joined a topic with ref 1 and has read all it was sent."""
        client = self.connect(user, **claims)
        await client.join(topic)
        assert client.topics == [topic]
        client.take()
        return client

    def claims(self, user: str, *, seconds: float = 3600, **claims: Any) -> Claims:
        """What a token says that is good for so long."""
        return Claims(user, self.now() + seconds, issued_at=self.now(), **claims)

    def token(self, user: str = "42", *, seconds: float = 3600, **claims: Any) -> str:
        """A token that is good for so long."""
        now = self.now()
        usual = {"sub": user, "iat": now, "exp": now + seconds}
        return jwt.encode(usual | claims, SECRET, "HS256")

    # time

    def monotonic(self) -> float:
        """Monotonic seconds."""
        return self._clock.now

    def now(self) -> float:
        """Unix seconds."""
        return NOW + self._clock.now - self._began

    async def settled(self) -> None:
        """Return when nothing goes on without the clock, a gate or the backend."""
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: int) -> None:
        """Let time pass, with the look at all timers once a second."""
        for _ in range(seconds):
            await self._clock.run(1.0)
            self.connections.turn()
            await self.settled()

    async def stall(self, seconds: int) -> None:
        """The process stands still, and looks at all timers after that."""
        await self._clock.run(float(seconds))
        self.connections.turn()
        await self.settled()

    # what others do

    def subscribing(self, topic: str) -> Gate:
        """Holds up, or fails, the subscribing of a topic on the bus."""
        return self.bus.subscribing[self._subjects.topic(topic)]

    async def publish(self, topic: str, event: str, payload: Any) -> None:
        """A service of the customer's publishes."""
        await self._relay.publish(topic, event, json.dumps(payload).encode())
        await self.settled()

    async def publish_and(self, topic: str, event: str, then: Callable[[], object]) -> None:
        """Publish, and do something when the message has come and nobody has been written to."""
        await self._relay.publish(topic, event, b"{}")
        self.bus.exchange.deliver()
        then()
        await self.settled()

    async def answered(self) -> None:
        """All that is waited for comes: the bus, the history, and a yes to each question of the backend."""
        for gate in (*self.bus.subscribing.values(), self.history.reading, self.looking):
            gate.open()
        await self.settled()
        while self.backend.open:
            for asked in self.backend.asked:
                if not asked.answer.done():
                    asked.let_in()
            await self.settled()

    async def take_off(self, user: str, topic: str) -> int:
        """A user is taken off a topic on all her sockets; returns how many it were."""
        return await self.connections.leave_topic(user, topic)

    def drop_waiting(self, user: str, topic: str) -> int:
        """Have what waits of a user on a topic not handed to the backend; returns how many it were."""
        return self._callbacks.drop(user, topic)

    async def finish_callbacks(self, seconds: float) -> "asyncio.Task[int]":
        """Begin to wait for what is under way to the backend, for so long.

        Returns:
            What goes on until then; its result is how many pushes are given up.
        """
        finishing = asyncio.create_task(self._callbacks.finish(seconds))
        await self.settled()
        return finishing

    def queue(
        self, client: Client, work: Callback, size: int = 0, topic: str | None = None
    ) -> bool:
        """Put work among the callbacks of a client; False if too much waits."""
        return self._callbacks.queue(client._connection, work, size, topic)

    def break_resume(self, problem: Exception) -> None:
        """The next resumes meet a bug."""
        _break(self._relay.resumer, "resume", problem)

    def break_sessions(self, problem: Exception) -> None:
        """Whoever becomes a session meets a bug."""
        _break(self.sessions, "enter", problem)

    # what there is

    def counted(self, metric: str, **labels: str) -> float:
        """The value of a counter."""
        return self.metrics.registry.get_sample_value(f"gateway_{metric}_total", labels) or 0.0

    def members(self, topic: str) -> int:
        """Members of a topic."""
        found = self._registry.get(topic)
        return 0 if found is None else len(found.members)

    def holders(self, topic: str) -> int:
        """How often a topic is held; what lingers is held by nobody."""
        known = self._relay._interest._leases._resources.get(topic)
        return 0 if known is None else known.holders

    def resuming(self, topic: str) -> int:
        """Members of a topic who want to know where they stand."""
        return self._relay.follower[topic].resuming

    def is_session(self, client: Client) -> bool:
        """Whether a client is a session."""
        return self.sessions.has(client._connection)

    def moving(self, client: Client) -> tuple[bool, bool]:
        """Whether a client is expected on another replica, as a session and as present in :data:`SHOWN`."""
        views = (self._view(f"s:user:{client.user}"), self._view(f"p:{SHOWN}"))
        session, presence = (client.id in view for view in views)
        return session, presence

    def _view(self, key: str) -> set[str]:
        view = self._presences._tracker._core.view(key)
        if view is None:
            return set()
        return {session for session, entry in view.own.items() if entry.moving}

    @property
    def subscriptions(self) -> int:
        """Subjects subscribed on the bus."""
        return self._relay.subscriptions

    @property
    def joins_in_flight(self) -> int:
        """Joins that wait, of all clients."""
        return self._joins.waiting

    @property
    def tasks(self) -> int:
        """Tasks that go on."""
        return len(asyncio.all_tasks() - self._tasks - {asyncio.current_task()})

    def _is_revoked(self, claims: Claims) -> bool:
        return claims.user in self.revoked

    async def end(self) -> None:
        """All clients go: nothing of them is left, however they were."""
        for client in self.clients:
            await client.go()
        await self._callbacks.finish(0)
        assert self.joins_in_flight == 0
        assert self.registry.count == 0
        assert len(self._registry) == 0
        assert [client for client in self.clients if client.joins_under_way] == []
        held = self._relay._interest._leases._resources.values()
        assert {topic.name: topic.holders for topic in held if topic.holders} == {
            user.topic: 1 for user in self.registry.users.values()
        }
        await self.pass_time(FORGOTTEN_SECONDS)
        assert self.subscriptions == 0
        assert self._relay._interest._leases._resources == {}
        assert self.tasks == 0


def _break(part: object, method: str, problem: Exception) -> None:
    async def broken(*_: object) -> None:
        raise problem

    setattr(part, method, broken)


@asynccontextmanager
async def opened(
    *,
    sessions_per_user: int = 0,
    max_age_seconds: float = 0,
    **limits: Any,
) -> AsyncIterator[Scene]:
    """A scene; at its end everything must have been given back.

    Args:
        sessions_per_user: How many a user may have; 0 for any number.
        max_age_seconds: After which a connection is moved; 0 for never.
        limits: Other limits than the usual.
    """
    scene = Scene(
        limits=LimitsSettings(**limits),
        session_limits=SessionLimits(sessions_per_user, "refuse", "keep"),
        max_age_seconds=max_age_seconds,
    )
    await scene.bus.start()
    yield scene
    await scene.end()
