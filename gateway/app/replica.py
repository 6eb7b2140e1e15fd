"""A replica: all its parts, built, started and stopped."""

import asyncio
import gc
import random
import resource
import signal
import time

import structlog
import uvloop
from aiohttp import web

from gateway import api, demo
from gateway.api.user_types import ReplicaReport
from gateway.app import leaving
from gateway.app.archive import StoredArchive
from gateway.app.clients import ClientParts
from gateway.app.listeners import hide_server, listen, stop_listening, tls_context
from gateway.app.telling import ToldBackend
from gateway.app.users import UserParts
from gateway.auth.rules import PersonalTopic, Rules
from gateway.bus import open_bus
from gateway.bus.base import Bus
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster
from gateway.config import Config
from gateway.config.check import ENVELOPE_ROOM_BYTES
from gateway.errors import BusError
from gateway.history import open_history
from gateway.history.base import History, HistoryLimits
from gateway.hub.fanout import Fanout
from gateway.hub.registry import Registry
from gateway.lifecycle import Drain, Readiness, heartbeat
from gateway.metrics import BusCounters, FanoutCounters, Metrics, RelayCounters, UpstreamCounters
from gateway.relay import Relay
from gateway.sessions import commands
from gateway.tracker.core import Tracker
from gateway.transport.endpoint import Phase
from gateway.transport.longpoll import MAX_BODY_BYTES
from gateway.transport.polling import Poll, Push
from gateway.upstream.client import Upstream
from gateway.upstream.outbox import Outbox

GC_THRESHOLDS = (50_000, 20, 50)
"""
Allocations between collections.

Python's 700 would look at a growing heap of sockets some hundred times a second, though hardly anything
here is in a cycle.
"""

MEETING_SECONDS = 0.1
"""How long a new replica waits for the others to say that they are there, before it answers for all."""

_log = structlog.get_logger(__name__)


def run(config: Config) -> int:
    """Serve until a signal ends it; returns the exit code."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each socket costs a descriptor
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: Config) -> int:
    return await Gateway(config).serve()


class Gateway:
    """One replica, to be made and served within a running event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._joining: asyncio.Task[None] | None = None
        metrics = self._metrics = Metrics()
        self._bus = open_bus(
            config.bus,
            metrics=BusCounters(metrics),
            name=config.server.replica,
            copies=config.history.replicas,
        )
        self._registry = Registry()
        fanout = Fanout(
            self._registry,
            FanoutCounters(metrics),
            outbound_limit=config.limits.outbound_buffer_bytes,
            call_soon=asyncio.get_running_loop().call_soon,
            clock=time.monotonic,
        )
        subjects = Subjects(config.bus.prefix)
        personal = PersonalTopic(config.sessions.personal_topic)
        rules = Rules((*config.channels, personal))
        self._history = _history(config, rules, self._bus, subjects)
        core = Tracker(
            config.server.replica,
            time.time_ns(),
            down_after_seconds=config.sessions.replica_down_after_seconds,
            spread=random.random,
        )
        self._cluster = Cluster(
            config.server.replica,
            self._bus,
            subjects,
            (*commands.ALL, Poll, Push),
            peers=core.peers,
            undecodable=metrics.bus_dropped.inc,
        )
        self._relay = Relay(
            bus=self._bus,
            subjects=subjects,
            registry=self._registry,
            fanout=fanout,
            metrics=RelayCounters(metrics),
            history=self._history,
            policy=rules.history,
            bounded=config.history.max_bytes > 0,
            control=self._cluster.receive,
            clock=time.time,
        )
        self._upstream = Upstream(
            config.upstream,
            replica=config.server.replica,
            max_user_bytes=personal.max_user_bytes,
            metrics=UpstreamCounters(metrics),
        )
        self._outbox = Outbox(
            self._upstream.tell,
            UpstreamCounters(metrics),
            max_in_flight=config.upstream.max_in_flight,
        )
        self._users = UserParts(
            config,
            core=core,
            cluster=self._cluster,
            bus=self._bus,
            relay=self._relay,
            personal=personal,
            metrics=metrics,
            facts=ToldBackend(self._outbox),
            superseded=self._superseded,
        )
        self._clients = ClientParts(
            config,
            bus=self._bus,
            cluster=self._cluster,
            relay=self._relay,
            rules=rules,
            personal=personal,
            users=self._users,
            upstream=self._upstream,
            metrics=metrics,
        )
        self._cluster.check()
        self._endpoint = self._clients.endpoint
        self._revoker = self._clients.revoker
        self._readiness = Readiness(
            self._endpoint, self._bus, self._revoker.doubt, self._history_doubt
        )
        self._drain = Drain(
            self._endpoint,
            metrics,
            delay_seconds=config.drain.delay_seconds,
            window_seconds=config.drain.window_seconds,
        )
        self._public = web.Application(client_max_size=MAX_BODY_BYTES)
        self._public.add_routes(self._clients.routes)
        if config.dev:
            demo.add_to(self._public)
        self._public.on_response_prepare.append(hide_server)
        self._public.on_shutdown.append(self._let_go)
        self._internal = api.build_api(
            config=config,
            relay=self._relay,
            rules=rules,
            personal=personal,
            directory=self._users.directory,
            revoker=self._revoker,
            archive=StoredArchive(self._relay),
            keeps=lambda topic: rules.history(topic) is not None,
            replicas=self._replicas,
            readiness=self._readiness,
            metrics=metrics,
        )

    async def serve(self) -> int:
        """Start, serve until a signal comes, drain, stop; returns the exit code."""
        self._catch_signals()
        self._bus.listen(self._bus_changed)
        await self._bus.start()
        if self._history is not None:
            await self._history.start()
        # The internal listener first: probes see "starting" while the bus is not there yet.
        server = self._config.server
        internal = await listen(self._internal, server.internal, public=False)
        public = await listen(
            self._public,
            server.public,
            public=True,
            reuse_port=server.reuse_port,
            tls=tls_context(server.tls_certificate, server.tls_key),
        )
        tasks = [
            asyncio.create_task(
                heartbeat(self._endpoint, self._readiness, self._metrics, self._observe)
            ),
            asyncio.create_task(self._users.run(lambda: len(self._endpoint.connections))),
            asyncio.create_task(self._revoker.run()),
        ]
        if self._clients.fetched_keys is not None:
            tasks.append(asyncio.create_task(self._clients.fetched_keys.run()))
        if self._history is not None:
            tasks.append(asyncio.create_task(self._relay.follower.run()))
        outbox = asyncio.create_task(self._outbox.run())
        # What was built until now lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await self._stop.wait()
        if server.reuse_port:
            # the kernel would go on sending every so manieth client here, to be refused
            await stop_listening(public)
        if self._exit_code:
            await public.cleanup()  # nobody is moved by a process that must not go on
        else:
            await self._drain.run()
        await leaving.finish(
            sockets=self._end_sockets(public),
            callbacks=self._clients.callbacks,
            hand_over=self._hand_over(),
            outbox=self._outbox,
            pushes_dropped=self._metrics.messages_dropped.labels("closing").inc,
        )
        for task in (*tasks, outbox):
            task.cancel()
        await asyncio.wait((*tasks, outbox))
        if not self._exit_code:
            await self._users.farewell()
        await self._upstream.close()
        if self._history is not None:
            await self._history.close()
        await asyncio.gather(self._bus.close(), internal.cleanup())
        _log.info("stopped")
        return self._exit_code

    async def _end_sockets(self, public: web.AppRunner) -> None:
        await self._drain.let_go()
        await public.cleanup()

    async def _hand_over(self) -> None:
        if not self._exit_code:
            await self._users.hand_over()

    def _bus_changed(self, connected: bool) -> None:
        _log.info("bus changed", connected=connected)
        self._users.tracker.bus_changed(connected)
        if not connected:
            return
        if self._endpoint.phase is not Phase.STARTING:
            self._revoker.learn_again()
            return
        allowed = self._bus.max_envelope_bytes - ENVELOPE_ROOM_BYTES
        if self._config.limits.max_message_bytes > allowed:
            _log.error("limits.max_message_bytes is above what the bus carries", allowed=allowed)
            self._exit_code = 2
            self._stop.set()
            return
        if self._joining is None or self._joining.done():
            self._joining = asyncio.create_task(self._join())
        else:
            self._revoker.learn_again()

    async def _join(self) -> None:
        """Be one of the cluster, then serve."""
        try:
            await self._cluster.join()
        except BusError as problem:
            # if it went down again, its return leads here again
            _log.warning("cannot join the others yet", problem=str(problem))
            return
        self._users.tracker.announce()
        await asyncio.sleep(MEETING_SECONDS)
        await self._revoker.learn()
        if self._endpoint.phase is Phase.STARTING:
            self._endpoint.phase = Phase.SERVING
            _log.info("serving", replica=self._config.server.replica)

    def _history_doubt(self) -> str | None:
        """Why clients cannot resume here now."""
        problem = None if self._history is None else self._history.problem
        return None if problem is None else f"history_{problem}"

    def _superseded(self) -> None:
        if self._stop.is_set():
            return
        _log.error(
            "another process runs under this replica's name; it is the later one",
            replica=self._config.server.replica,
        )
        self._exit_code = 1
        self._stop.set()

    def _replicas(self) -> list[ReplicaReport]:
        sessions, connections = self._users.registry.count, len(self._endpoint.connections)
        own = ReplicaReport(self._config.server.replica, True, sessions, connections)
        peers = self._users.tracker.peers
        return [own] + [
            ReplicaReport(replica, False, peers[replica].sessions, peers[replica].connections)
            for replica in sorted(peers)
        ]

    def _observe(self) -> None:
        self._metrics.sessions.set(self._users.registry.count)
        self._metrics.replicas.labels("live").set(len(self._users.tracker.peers) + 1)
        self._metrics.topics.set(len(self._registry))
        self._metrics.subscriptions.set(self._relay.subscriptions)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    async def _let_go(self, _: web.Application) -> None:
        """Answer the requests that wait for other replicas, before they are cut off."""
        self._clients.poll_router.leave()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._drain.hurry()
        self._stop.set()


def _history(config: Config, rules: Rules, bus: Bus, subjects: Subjects) -> History | None:
    """Where messages are kept; None where no rule keeps any."""
    kept = rules.all_history
    if not kept:
        return None
    highest = HistoryLimits(max(k.messages for k in kept), max(k.seconds for k in kept))

    def limits(topic: str) -> HistoryLimits:
        found = rules.history(topic)
        return highest if found is None else HistoryLimits(found.messages, found.seconds)

    return open_history(bus, subjects, limits=limits, highest=highest, config=config.history)
