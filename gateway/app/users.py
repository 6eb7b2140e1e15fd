"""Builds what belongs to users and connects it: tracker, sessions, presence, directory."""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from itertools import count

import structlog

from gateway.app.supervisor import Supervisor
from gateway.auth.rules import PersonalTopic
from gateway.bus.base import Bus
from gateway.bus.envelope import Control
from gateway.cluster import Cluster
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.relay import Relay
from gateway.sessions.book import Sessions
from gateway.sessions.commands import (
    CloseSessions,
    Count,
    Displace,
    Inherit,
    List,
    Missed,
    Return,
    Vouchers,
)
from gateway.sessions.directory import Directory
from gateway.sessions.displaced import Displaced
from gateway.sessions.facts import Tell
from gateway.sessions.last_seen import LastSeen
from gateway.sessions.limits import Limits
from gateway.sessions.presence import Presences
from gateway.sessions.registry import SessionRegistry
from gateway.sessions.reporter import Reporter
from gateway.sessions.transitions import Transitions
from gateway.tracker.core import Tracker
from gateway.tracker.effects import Lost
from gateway.tracker.service import TrackerService

STATE_PARTS = 4
"""Of what may wait for one socket, this share is one part of a long presence_state."""

LAST_WRITE_SECONDS = 1.0
"""What a replica that leaves spends on writing when its users were last seen."""

_log = structlog.get_logger(__name__)


class UserParts:
    """The parts, connected.

    Args:
        core: The tracker's state.
        tell: Where the backend is told what becomes of sessions, users and replicas.
        superseded: Called when a later process runs under this replica's id.

    Attributes:
        registry: This replica's sessions.
    """

    def __init__(
        self,
        config: Config,
        *,
        core: Tracker,
        cluster: Cluster,
        bus: Bus,
        relay: Relay,
        personal: PersonalTopic,
        metrics: Metrics,
        tell: Tell,
        superseded: Callable[[], None],
    ) -> None:
        self.registry = SessionRegistry(
            offline_after_seconds=config.sessions.offline_after_seconds, clock=time.time
        )
        reporter = self._reporter = Reporter(
            tell,
            self.registry,
            cluster,
            Transitions(
                self.registry.present,
                offline_after_seconds=config.sessions.offline_after_seconds,
                spread=random.random,
            ),
            events=config.upstream.events,
            peers=core.peers,
            clock=time.monotonic,
        )

        def lost(lost: Lost) -> None:
            _log.warning("replica lost", replica=lost.replica, sessions=lost.sessions)
            metrics.replicas_lost.inc()
            reporter.lost(lost)

        self.tracker = TrackerService(
            core,
            cluster,
            clock=time.monotonic,
            wall_clock=time.time,
            lost=lost,
            superseded=superseded,
        )
        self._last_seen = LastSeen(bus, f"{config.bus.prefix}_last_seen", time.time)
        displaced = Displaced(time.monotonic)

        def displace(command: Displace) -> bool:
            displaced.add(command.user, command.device)
            return True

        self.sessions = Sessions(
            self.registry,
            limits=Limits(
                config.sessions.max_per_user,
                config.sessions.when_full,
                config.sessions.same_device,
            ),
            personal=personal,
            topics=relay,
            tracker=self.tracker,
            cluster=cluster,
            offline_after_seconds=config.sessions.offline_after_seconds,
            clock=time.time,
            seen=self._last_seen.seen,
            observer=reporter,
            displaced=displaced,
            everyone=lambda: cluster.everyone,
        )
        directory = self.directory = Directory(
            self.registry, cluster, self.tracker, self._last_seen, personal.of
        )
        cluster.listen(Control.TRACKER, self.tracker.receive)
        cluster.handle(Count, directory.count_here, others=directory.others)
        cluster.handle(List, directory.list_here, others=directory.others)
        cluster.handle(CloseSessions, directory.close_here, others=directory.others)
        cluster.handle(Displace, displace)
        cluster.handle(Vouchers, reporter.standing)
        cluster.handle(Inherit, reporter.inherit)
        cluster.handle(Missed, reporter.knows)
        cluster.handle(Return, reporter.begin_anew)
        prefix, numbers = secrets.token_urlsafe(9), count()
        self.presences = Presences(
            self.tracker,
            relay.send_here,
            new_ref=lambda: f"{prefix}{next(numbers):x}",
            max_meta_bytes=config.presence.max_meta_bytes,
            gather_seconds=config.presence.gather_milliseconds / 1000,
            part_bytes=config.limits.outbound_buffer_bytes // STATE_PARTS,
            clock=time.time,
        )

    def start(self, supervisor: Supervisor, connections: Callable[[], int]) -> None:
        """Begin everything that goes on by itself.

        Args:
            connections: How many this replica has.
        """
        supervisor.repeat(
            "tracker",
            partial(self.tracker.next_tick, lambda: (self.registry.count, connections())),
        )
        supervisor.repeat("last_seen", partial(self._last_seen.next_turn, self.registry.names))
        if self._reporter.events:
            supervisor.repeat("facts", self._reporter.next_turn)

    async def hand_over(self, supervisor: Supervisor) -> None:
        """This replica has no sessions any more: pass on what is undecided, write what is not written.

        All else goes on: this replica is one of the cluster until :meth:`farewell`.
        """
        await supervisor.stop("facts")  # it would decide on those who are being passed on
        await asyncio.gather(self._reporter.farewell(), self._write_last_seen())

    def farewell(self) -> None:
        """Tell the others that this replica leaves; what :meth:`start` began has ended."""
        self.tracker.farewell()

    async def _write_last_seen(self) -> None:
        for user, when in self.registry.left():
            self._last_seen.seen(user, when)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._last_seen.finish(), LAST_WRITE_SECONDS)
