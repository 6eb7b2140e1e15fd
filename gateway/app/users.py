"""Builds what belongs to users and connects it: tracker, cluster, sessions, presence, directory, revoker."""

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
from gateway.auth.revocations import Revocations
from gateway.auth.rules import PersonalTopic
from gateway.bus.base import Bus
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.relay import Relay
from gateway.sessions.book import Sessions
from gateway.sessions.directory import Directory
from gateway.sessions.facts import Facts
from gateway.sessions.kept_revocations import KeptRevocations
from gateway.sessions.last_seen import LastSeen
from gateway.sessions.limits import Limits
from gateway.sessions.presence import Presences
from gateway.sessions.reporter import Reporter
from gateway.sessions.revoker import Revoker
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
        facts: Where the backend is told what becomes of sessions, users and replicas.
        counts: How many sessions and connections this replica has.
        superseded: Called when a later process runs under this replica's id.
        close_revoked: Closes the sockets whose tokens are revoked; returns how many.
    """

    def __init__(
        self,
        config: Config,
        *,
        bus: Bus,
        subjects: Subjects,
        relay: Relay,
        personal: PersonalTopic,
        metrics: Metrics,
        facts: Facts,
        counts: Callable[[], tuple[int, int]],
        superseded: Callable[[], None],
        close_revoked: Callable[[], int],
    ) -> None:
        core = Tracker(
            config.server.replica,
            time.time_ns(),
            down_after_seconds=config.sessions.replica_down_after_seconds,
            spread=random.random,
        )
        self.cluster = Cluster(
            config.server.replica,
            bus,
            subjects,
            relay,
            live=lambda: core.peers,
            undecodable=metrics.bus_dropped.inc,
        )

        def lost(lost: Lost) -> None:
            _log.warning("replica lost", replica=lost.replica, sessions=lost.sessions)
            metrics.replicas_lost.inc()
            self._reporter.lost(lost)

        self.tracker = TrackerService(
            core,
            self.cluster,
            clock=time.monotonic,
            counts=counts,
            lost=lost,
            superseded=superseded,
        )
        self.cluster.on_tracker = self.tracker.receive
        self._last_seen = LastSeen(bus, f"{config.bus.prefix}_last_seen", time.time)
        self.sessions = Sessions(
            limits=Limits(
                config.sessions.max_per_user,
                config.sessions.when_full,
                config.sessions.same_device,
            ),
            personal=personal,
            topics=relay,
            tracker=self.tracker,
            offline_after_seconds=config.sessions.offline_after_seconds,
            clock=time.time,
            seen=self._last_seen.seen,
        )
        self._reporter = Reporter(
            facts,
            self.sessions,
            self.cluster,
            Transitions(
                self.sessions.present,
                offline_after_seconds=config.sessions.offline_after_seconds,
                spread=random.random,
            ),
            events=config.upstream.events,
            peers=core.peers,
            clock=time.monotonic,
        )
        if self._reporter.events:
            self.sessions.observer = self._reporter
        self.directory = Directory(
            self.sessions,
            self.cluster,
            self._last_seen,
            report=self._reporter.answer,
            live=lambda: list(core.peers),
        )
        self.revoker = Revoker(
            Revocations(
                config.auth.max_token_seconds + config.auth.leeway_seconds,
                time.time,
                metrics.revocations_dropped.inc,
            ),
            self.directory,
            self.cluster,
            bus,
            KeptRevocations(
                bus,
                f"{config.bus.prefix}_revocations",
                # it may lie a leeway ahead of the time it is made
                keep_seconds=config.auth.max_token_seconds + 2 * config.auth.leeway_seconds,
                undecodable=metrics.bus_dropped.inc,
            ),
            live=lambda: list(core.peers),
            close_revoked=close_revoked,
        )
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

    def start(self, supervisor: Supervisor) -> None:
        """Begin everything that goes on by itself."""
        supervisor.repeat("tracker", self.tracker.next_tick)
        supervisor.start("tracker_send", self.tracker.send())
        supervisor.repeat("revocations", self.revoker.next_look)
        supervisor.repeat("last_seen", partial(self._last_seen.next_turn, self.sessions.users))
        if self._reporter.events:
            supervisor.repeat("facts", self._reporter.next_turn)

    async def hand_over(self, supervisor: Supervisor) -> None:
        """This replica has no sessions any more: pass on what is undecided, write what is not written.

        All else goes on: this replica is one of the cluster until :meth:`farewell`.
        """
        await supervisor.stop("facts")  # it would decide on those who are being passed on
        await asyncio.gather(self._reporter.farewell(), self._write_last_seen())

    async def farewell(self) -> None:
        """Tell the others that this replica leaves; what :meth:`start` began has ended."""
        await self.tracker.farewell()

    async def _write_last_seen(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._last_seen.finish(), LAST_WRITE_SECONDS)
