"""Builds, starts and stops a replica: all parts of one gateway process."""

import asyncio
import gc
import os
import random
import signal
import time
from functools import partial

import structlog
import uvloop
from aiohttp import web

from gateway import api, demo, live
from gateway.api.user_types import ReplicaReport
from gateway.api.whole import Whole
from gateway.app import capacity, shutdown
from gateway.app.archive import StoredArchive
from gateway.app.clients import ClientParts
from gateway.app.listeners import HttpListener, hide_server, listen, open_address, tls_context
from gateway.app.orders import Orders
from gateway.app.supervisor import Supervisor
from gateway.app.users import UserParts
from gateway.auth.rules import PersonalTopic, Rules
from gateway.bus import open_bus
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster, ClusterClock
from gateway.config import Config
from gateway.config.check import ENVELOPE_ROOM_BYTES
from gateway.console import Console, Sources
from gateway.errors import BusError, SubscriptionRefused
from gateway.history import open_history
from gateway.hub.fanout import Fanout
from gateway.hub.registry import Registry
from gateway.lifecycle import Drain, Readiness, heartbeat
from gateway.log import recent
from gateway.metrics import Metrics
from gateway.relay import Relay
from gateway.sessions import commands
from gateway.sessions.commands import List
from gateway.sessions.facts import callback
from gateway.tail import Tails
from gateway.topics import commands as topic_commands
from gateway.topics.directory import TopicDirectory
from gateway.tracker.core import Tracker
from gateway.tracker.entry import PRESENCE
from gateway.transport.longpoll.requests import MAX_BODY_BYTES
from gateway.transport.longpoll.sessions import Poll, Push
from gateway.upstream.client import Upstream
from gateway.upstream.outbox import Outbox

GC_THRESHOLDS = (5_000, 4, 2_500)
"""
Allocations between collections, and how many of one generation lead to one of the next.

Python's 700 and 10 would look at a growing heap of sockets some hundred times a second, though hardly any of
it is in a cycle. With ten times as many, what is in one (connections to NATS that were lost, requests that
failed) would wait for twenty minutes and take megabytes meanwhile. And a second generation of 20 young ones
takes 20 ms to go through where all requests fail, whose exceptions are in cycles; four take 5.
"""

MEETING_SECONDS = 0.1
"""How long a new replica waits for the others to say that they are there, before it answers for all."""

JOIN_AGAIN_SECONDS = 5.0
"""When it asks again to hear the others, if the bus server denied it."""

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""
A terminal that hangs up ends a replica as any other signal does.

Nothing is read anew on SIGHUP: a changed configuration is rolled out, one replica after the other. To a
worker it says, besides, that another process has taken over its port.
"""

LAST_RESORT_SECONDS = 15.0
"""When a replica that lost one of its tasks ends at the latest, whatever becomes of the clean-up."""

_log = structlog.get_logger(__name__)


def run(config: Config, orders: Orders | None = None) -> int:
    """Serve until a signal ends it; returns the exit code.

    Args:
        orders: Of the supervisor, if it is one's worker.
    """
    descriptors = capacity.raise_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, descriptors, orders))


async def _serve(config: Config, descriptors: int, orders: Orders | None) -> int:
    return await Gateway(config, descriptors=descriptors, orders=orders).serve()


class Gateway:
    """One replica, to be made and served within a running event loop.

    Args:
        descriptors: How many the process may have.
        orders: Of the supervisor; None where it is on its own.
    """

    def __init__(self, config: Config, *, descriptors: int, orders: Orders | None = None) -> None:
        self._config = config
        self._orders = orders
        self._whole = None if orders is None else Whole(orders.whole_path)
        self._stop = asyncio.Event()
        self._settled = asyncio.Event()  # it serves clients, or will never
        self._port_taken_over = False
        self._exit_code = 0
        self._joining: asyncio.Task[None] | None = None
        metrics = self._metrics = Metrics()
        self._supervisor = Supervisor(
            lambda task: metrics.background_errors.labels(task).inc(), self._task_died
        )
        self._bus = open_bus(
            config.bus,
            metrics=metrics,
            name=config.server.replica,
            copies=config.history.replicas,
        )
        self._registry = Registry()
        fanout = Fanout(
            self._registry,
            metrics,
            outbound_limit=config.limits.outbound_buffer_bytes,
            call_soon=asyncio.get_running_loop().call_soon,
            call_later=asyncio.get_running_loop().call_later,
            clock=time.monotonic,
        )
        subjects = Subjects(config.bus.prefix)
        personal = PersonalTopic(config.sessions.personal_topic)
        rules = Rules((*config.channels, personal))
        self._history = open_history(
            self._bus,
            subjects,
            rules=rules.all_history,
            retention=rules.history,
            config=config.history,
        )
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
            (*commands.ALL, *topic_commands.ALL, Poll, Push),
            peers=core.peers,
            quiet=core.peers.quiet,
            undecodable=metrics.bus_dropped.inc,
        )
        self._clock = ClusterClock(
            self._bus, core.peers.clocks, wall_clock=time.time, clock=time.monotonic
        )
        self._relay = Relay(
            bus=self._bus,
            subjects=subjects,
            registry=self._registry,
            fanout=fanout,
            metrics=metrics,
            history=self._history,
            policy=rules.history,
            control=self._cluster.receive,
            clock=time.time,
        )
        self._tails = Tails(
            self._relay,
            clock=time.time,
            dropped=metrics.messages_dropped.labels("slow_tail").inc,
        )
        self._upstream = Upstream(
            config.upstream,
            replica=config.server.replica,
            max_user_bytes=personal.max_user_bytes,
            metrics=metrics,
        )
        self._outbox = Outbox(
            self._upstream.tell,
            metrics,
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
            tell=lambda fact: self._outbox.tell(callback(fact)),
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
            descriptors=descriptors,
            metrics=metrics,
        )
        topics = TopicDirectory(self._registry, self._cluster, self._users.tracker)
        self._cluster.handle(topic_commands.ListTopics, topics.list_here)
        self._cluster.handle(topic_commands.CountTopic, topics.count_here, others=topics.others)
        self._cluster.handle(topic_commands.ListPresent, topics.present_here, others=topics.others)
        self._cluster.check()
        self._connections = self._clients.connections
        self._revoker = self._clients.revoker
        self._readiness = Readiness(
            self._connections,
            lambda: self._bus.doubt,
            self._clients.descriptors.doubt,
            self._supervisor.doubt,
            self._revoker.doubt,
            self._history_doubt,
        )
        self._drain = Drain(
            self._connections,
            metrics,
            delay_seconds=config.drain.delay_seconds,
            window_seconds=config.drain.window_seconds,
            announced=self._bus.flush,
            then=self._tails.end,
        )
        self._public = web.Application(
            client_max_size=MAX_BODY_BYTES, middlewares=[self._clients.take_turns]
        )
        self._public.add_routes([*self._clients.routes, *live.routes()])
        if config.dev:
            demo.add_to(self._public)
        self._public.on_response_prepare.append(hide_server)
        self._public.on_shutdown.append(self._let_go)
        self._internal = api.build_api(
            config=config,
            publisher=self._relay,
            rules=rules,
            personal=personal,
            directory=self._users.directory,
            topics=topics,
            revoker=self._revoker,
            archive=StoredArchive(self._relay),
            replicas=self._replicas,
            drain=self._drain,
            tails=self._tails,
            clock=self._clock.now,
            readiness=self._readiness,
            metrics=metrics,
            whole=self._whole,
        )
        users = self._users
        self._console = Console(
            Sources(
                config=config,
                metrics=metrics,
                registry=self._registry,
                sessions=users.registry,
                directory=users.directory,
                topics=topics,
                publisher=self._relay,
                tails=self._tails,
                rules=rules,
                personal=personal,
                drain=self._drain,
                readiness=self._readiness,
                connections=lambda: len(self._connections.open),
                replicas=self._replicas,
                sessions_here=lambda user: users.directory.list_here(List(user)),
                present=lambda topic: users.tracker.shown(PRESENCE + topic),
                history_problem=lambda: self._history.problem,
                lines=recent,
                clock=time.time,
            )
        )
        self._internal.add_subapp("/console", self._console.app)

    async def serve(self) -> int:
        """Start, serve until a signal comes, drain, stop; returns the exit code.

        Raises:
            OSError: An address cannot be listened on, or the certificate is none.
        """
        server = self._config.server
        # before the internal port is answered, on which a worker would take what it then leaves undone
        tls = tls_context(server.tls_certificate, server.tls_key)
        asyncio.get_running_loop().set_exception_handler(self._supervisor.unhandled)
        self._catch_signals()
        self._bus.listen(self._bus_changed)
        self._supervisor.watch(await self._bus.start())
        self._supervisor.watch(await self._history.start())
        # The internal listener first: probes see "starting" while the bus is not there yet.
        max_header_bytes = self._config.limits.max_header_bytes
        if self._orders is None:
            internal_sockets = [open_address(server.internal, public=False)]
            public_socket = open_address(server.public, public=True, reuse_port=server.reuse_port)
        else:
            public_socket, *internal_sockets = self._orders.sockets()
        internal = await listen(
            self._internal,
            *internal_sockets,
            descriptors=None,
            max_header_bytes=max_header_bytes,
            bad_request=api.bad_request,
        )
        public = await listen(
            self._public,
            public_socket,
            descriptors=self._clients.descriptors,
            max_header_bytes=max_header_bytes,
            bad_request=self._clients.bad_request,
            sockets=self._clients.sockets,
            tls=tls,
            at_once=self._orders is None or not self._orders.relieves,
        )
        self._start_tasks()
        # What was built until now lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await self._settled.wait()
        if self._connections.started:
            await public.start()
        await self._stop.wait()
        if server.reuse_port or self._port_taken_over:
            # the kernel would go on sending every so manieth client here, to be refused
            public.stop()
        await self._drain.end()
        await shutdown.finish(
            sockets=self._end_sockets(public),
            finish_callbacks=self._clients.callbacks.finish,
            hand_over=self._hand_over(),
            close_outbox=self._outbox.close,
            pushes_dropped=self._metrics.messages_dropped.labels("closing").inc,
        )
        await self._supervisor.stop()
        if not self._exit_code:
            self._users.farewell()
        await self._upstream.close()
        await self._history.close()
        await asyncio.gather(self._bus.close(), internal.close())
        if self._whole is not None:
            await self._whole.close()
        _log.info("stopped")
        return self._exit_code

    async def _end_sockets(self, public: HttpListener) -> None:
        await self._drain.let_go()
        await public.close()

    async def _hand_over(self) -> None:
        if not self._exit_code:
            await self._users.hand_over(self._supervisor)

    def _start_tasks(self) -> None:
        start, repeat = self._supervisor.start, self._supervisor.repeat
        repeat(
            "heartbeat",
            partial(heartbeat, self._connections, self._readiness, self._metrics, self._observe),
        )
        self._users.start(self._supervisor, lambda: len(self._connections.open))
        repeat("console", self._console.next_tick)
        repeat("clock", self._clock.next_look)
        repeat("drain", self._drain.next_run)
        repeat("revocations", self._revoker.next_look)
        if self._clients.fetched_keys is not None:
            start("keys", self._clients.fetched_keys.run())
        start("follower", self._relay.follower.run())
        start("outbox", self._outbox.run())

    def _task_died(self) -> None:
        """Send the clients elsewhere and end, without a farewell: the others shall report a loss."""
        asyncio.get_running_loop().call_later(LAST_RESORT_SECONDS, os._exit, 1)
        self._fail(1)

    def _fail(self, code: int) -> None:
        """End: what clients there are go elsewhere at once."""
        self._exit_code = code
        self._drain.hurry()
        self._end()

    def _end(self) -> None:
        self._stop.set()
        self._settled.set()

    def _bus_changed(self, connected: bool) -> None:
        _log.info("bus changed", connected=connected)
        self._users.tracker.bus_changed(connected)
        self._tails.bus_changed(connected)
        if not connected:
            return
        if self._connections.started:
            self._revoker.learn_again()
            return
        allowed = self._bus.max_envelope_bytes - ENVELOPE_ROOM_BYTES
        if self._config.limits.max_message_bytes > allowed:
            _log.error("limits.max_message_bytes is above what the bus carries", allowed=allowed)
            self._fail(2)
            return
        if self._joining is None or self._joining.done():
            self._joining = self._supervisor.start("join", self._join())
        else:
            self._revoker.learn_again()

    async def _join(self) -> None:
        """Be one of the cluster, then serve."""
        while True:
            try:
                await self._cluster.join()
            except (
                SubscriptionRefused
            ):  # which the bus has logged; permissions may change at any time
                await asyncio.sleep(JOIN_AGAIN_SECONDS)
            except BusError as problem:
                # if it went down again, its return leads here again
                _log.warning("cannot join the others yet", problem=str(problem))
                return
            else:
                break
        self._users.tracker.announce()
        await asyncio.sleep(MEETING_SECONDS)
        await self._clock.look()
        await self._revoker.learn()
        if not self._connections.started:
            self._connections.started = True
            self._settled.set()
            _log.info("serving", replica=self._config.server.replica)

    def _history_doubt(self) -> str | None:
        """Why clients cannot resume here now."""
        problem = self._history.problem
        return None if problem is None else f"history_{problem}"

    def _superseded(self) -> None:
        if self._stop.is_set():
            return
        _log.error(
            "another process runs under this replica's name; it is the later one",
            replica=self._config.server.replica,
        )
        self._fail(1)

    def _replicas(self) -> list[ReplicaReport]:
        sessions, connections = self._users.registry.count, len(self._connections.open)
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
        self._metrics.tails.set(len(self._tails))
        self._metrics.clock_skew.set(self._clock.skew())
        self._clients.descriptors.look()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it
                loop.add_signal_handler(number, self._signalled, number)

    async def _let_go(self, _: web.Application) -> None:
        """Answer the requests that wait for other replicas, and cut off the clients that are left.

        The server knows no WebSockets: once open, they are no connections of its own.
        """
        self._clients.poll_router.leave()
        for connection in list(self._connections.open):
            connection.abort()

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            self._drain.hurry()
        self._port_taken_over |= self._orders is not None and number == signal.SIGHUP
        self._end()
