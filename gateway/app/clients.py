"""Builds and connects the parts that serve clients: admission, revocation, and the three transports."""

import time
from typing import TYPE_CHECKING

from gateway.app import capacity
from gateway.app.fetch import fetch
from gateway.app.users import UserParts
from gateway.auth.admission import Admission
from gateway.auth.jwks import FetchedKeys
from gateway.auth.revocations import Revocations
from gateway.auth.rules import PersonalTopic, Rules
from gateway.auth.tokens import TokenVerifier
from gateway.bus.base import Bus
from gateway.bus.envelope import Control
from gateway.channels.callbacks import Callbacks
from gateway.channels.connections import Connections
from gateway.channels.credentials import Credentials
from gateway.channels.encoding import Encodings
from gateway.channels.pushes import Pushes
from gateway.channels.replay import Replays
from gateway.channels.services import JoinCount, Services
from gateway.cluster import Cluster
from gateway.config import CompressionSettings, Config
from gateway.metrics import Metrics
from gateway.relay import Relay
from gateway.sessions.commands import Leave, ListRevoked, Revoke
from gateway.sessions.kept_revocations import KeptRevocations, bucket
from gateway.sessions.revoker import Revoker
from gateway.transport.compression import Deflater
from gateway.transport.entrance import Entrance
from gateway.transport.handshake import Handshake
from gateway.transport.listener import Descriptors
from gateway.transport.longpoll.requests import LongPollTransport
from gateway.transport.longpoll.router import PollRouter
from gateway.transport.longpoll.sessions import LONGPOLL_ENCODINGS, Poll, PollSessions, Push
from gateway.transport.origin import OriginPolicy
from gateway.transport.peer import PeerAddress
from gateway.transport.sse.requests import EventStreamTransport
from gateway.transport.upgrade import WebSocketTransport
from gateway.transport.websocket import WEBSOCKET_ENCODINGS, compressed_encodings
from gateway.upstream.client import Upstream
from gateway.wheel import TimerWheel

if TYPE_CHECKING:
    from aiohttp import web


class ClientParts:
    """The parts, connected.

    Args:
        descriptors: How many the process may have.

    Attributes:
        routes: Of the public listener.
        sockets: Answers requests for a WebSocket.
        bad_request: Answers there what is no request.
        poll_router: The ways to sessions of clients that poll.
        revoker: Refuses tokens everywhere, and closes the sockets that came with them.
        fetched_keys: The keys of the identity provider; None where none is configured.
        descriptors: The TCP connections of clients.
    """

    def __init__(
        self,
        config: Config,
        *,
        bus: Bus,
        cluster: Cluster,
        relay: Relay,
        rules: Rules,
        personal: PersonalTopic,
        users: UserParts,
        upstream: Upstream,
        descriptors: int,
        metrics: Metrics,
    ) -> None:
        auth = config.auth
        asks_connect = "connect" in config.upstream.events
        self.fetched_keys = _fetched_keys(auth.jwks_url, metrics)
        revocations = Revocations(
            auth.max_token_seconds + auth.leeway_seconds,
            time.time,
            metrics.revocations_dropped.inc,
        )
        dropped = metrics.messages_dropped.labels
        self.callbacks = Callbacks(
            upstream, asks_connect=asks_connect, not_handed_over=dropped("not_member").inc
        )
        admission = Admission(
            TokenVerifier(
                auth,
                rules.claims,
                max_user_bytes=personal.max_user_bytes,
                max_presence_bytes=config.presence.max_meta_bytes,
                fetched=self.fetched_keys,
                revoked=revocations.refuses,
            ),
            rules,
            anonymous=auth.allow_anonymous,
            believed_user=config.dev,
            asked=asks_connect,
            verifies=bool(auth.secrets or auth.public_keys or auth.jwks_url),
        )
        wheel = TimerWheel(time.monotonic())
        most_memory = capacity.memory_bytes(config.limits.memory_bytes)
        self.connections = Connections(
            callbacks=self.callbacks,
            limits=config.limits,
            metrics=metrics,
            wheel=wheel,
            revoked=revocations.refuses,
            memory_full=lambda: 0 < most_memory < capacity.resident_bytes(),
            clock=time.monotonic,
        )
        services = Services(
            admission=admission,
            relay=relay,
            sessions=users.sessions,
            presences=users.presences,
            callbacks=self.callbacks,
            pushes=Pushes(
                relay,
                self.callbacks,
                users.presences,
                revoked=revocations.refuses,
                reserved=dropped("reserved_event").inc,
            ),
            credentials=Credentials(admission, self.callbacks, metrics),
            replays=Replays(relay, metrics.messages_delivered.inc),
            joins=JoinCount(config.limits.joins_in_flight, metrics),
            limits=config.limits,
            metrics=metrics,
            wheel=wheel,
            max_age_seconds=config.drain.max_connection_age_seconds,
            leeway_seconds=auth.leeway_seconds,
            clock=time.monotonic,
            wall_clock=time.time,
        )
        self.revoker = Revoker(
            revocations,
            cluster,
            bus,
            KeptRevocations(
                bus,
                bucket(config.bus.prefix),
                # it may lie a leeway ahead of the time it is made
                keep_seconds=auth.max_token_seconds + 2 * auth.leeway_seconds,
                undecodable=metrics.bus_dropped.inc,
            ),
            close_revoked=self.connections.close_revoked,
        )
        origins = OriginPolicy(config.server.allowed_origins)
        peers = PeerAddress(config.server.trusted_proxies)
        handshake = Handshake(
            admission,
            origins,
            self.callbacks,
            peers,
            websocket=WEBSOCKET_ENCODINGS,
            compressed=_compressed(config.compression, metrics),
            longpoll=LONGPOLL_ENCODINGS,
        )
        entrance = Entrance(self.connections, peers, metrics)
        self.descriptors = Descriptors(capacity.for_clients(descriptors, config), metrics)
        self.sockets = WebSocketTransport(
            services, self.connections, handshake, entrance, self.descriptors
        )
        sessions = PollSessions(services, self.connections)
        self.poll_router = PollRouter(sessions, cluster)
        longpoll = LongPollTransport(sessions, self.poll_router, handshake, entrance)
        self.bad_request = entrance.bad_request
        self.take_turns = entrance.take_turns
        streams = EventStreamTransport(
            services, self.connections, handshake, entrance, self.descriptors
        )
        self.routes: list[web.RouteDef] = [
            *self.sockets.routes(),
            *longpoll.routes(),
            *streams.routes(),
        ]
        cluster.listen(Control.REVOCATION, self.revoker.told)
        cluster.handle(Revoke, self.revoker.revoke_here)
        cluster.handle(ListRevoked, self.revoker.list_here)
        cluster.handle(Leave, self._leave_topic)
        cluster.handle(Poll, sessions.handle)
        cluster.handle(Push, sessions.handle)

    async def _leave_topic(self, command: Leave) -> int:
        return await self.connections.leave_topic(command.user, command.topic)


def _compressed(settings: CompressionSettings, metrics: Metrics) -> Encodings | None:
    if not settings.enabled:
        return None
    before, after = metrics.compression_before.inc, metrics.compression_after.inc
    return compressed_encodings(Deflater(settings.min_bytes, before=before, after=after))


def _fetched_keys(url: str, metrics: Metrics) -> FetchedKeys | None:
    if not url:
        return None

    def counted(ok: bool) -> None:
        metrics.key_fetches.labels("ok" if ok else "failed").inc()

    return FetchedKeys(url, fetch, counted=counted)
