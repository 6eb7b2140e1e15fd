"""The channels of one socket: has its joins decided, makes it a member, and undoes that in the end."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.auth.claims import Claims
from gateway.auth.rules import Rule
from gateway.channels.encoding import SocketEncoding
from gateway.channels.membership import Joining, Membership, Recall
from gateway.channels.pushes import PushingSocket
from gateway.channels.replay import ReplaySocket
from gateway.channels.services import Services
from gateway.errors import BusError
from gateway.history.position import Position
from gateway.history.position import decode as decode_position
from gateway.history.resume import InvalidResume, parse, without_history
from gateway.history.resume import response as resumed
from gateway.leases import Lease
from gateway.log import teardown
from gateway.protocol.effects import Activate, Authorize, Effect, Subscribe, Unsubscribe
from gateway.protocol.messages import EMPTY_OBJECT, Json, encode_json, overlay
from gateway.protocol.reasons import Reason
from gateway.sessions.presence import MetaTooLarge
from gateway.tracker.presence import Event
from gateway.upstream.answers import JoinAnswer

_log = structlog.get_logger(__name__)

_NONE_JOINING: Final[dict[int, Joining]] = {}
"""What a socket has while it joins nothing, which is nearly always: a dict of its own has 64 bytes."""


class ChannelSocket(PushingSocket, ReplaySocket, Protocol):
    """A socket as its channels need it."""

    @property
    def encoding(self) -> SocketEncoding: ...


class Channels:
    """The joins under way and the memberships of one socket.

    The socket knows it and not the other way round: a cycle would stay until the garbage collector comes.

    Attributes:
        members: Its memberships, by topic.
        departed: The topic of the channel that ended last, and the position it was sent; a join that
            follows at once replaces it.
    """

    __slots__ = ("_joined_once", "_joining", "_services", "departed", "members")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._joined_once = False
        self._joining = _NONE_JOINING  # between admission and reply, by attempt
        self.members: dict[str, Membership] = {}
        self.departed: tuple[str, Position] | None = None

    def authorize(self, socket: ChannelSocket, ask: Authorize) -> list[Effect]:
        """Decide on a join by the rules, or have the backend asked."""
        services, core = self._services, socket.core
        departed, self.departed = self.departed, None
        decision = services.admission.join(ask.topic, socket.claims)
        rule = decision.rule
        if rule is None:
            return core.join_decided(ask.topic, ask.attempt, refused=decision.refused)
        joining = Joining(rule)
        try:
            joining.request = parse(ask.params, rule.history)
        except InvalidResume:
            return core.join_decided(ask.topic, ask.attempt, refused=Reason.INVALID_RESUME)
        if departed is not None and departed[0] == ask.topic:
            joining.sent = departed[1]
        if rule.join == "upstream":
            size = len(ask.params or b"")
            if services.joins.full or not services.callbacks.queue(
                socket, partial(self._ask_backend, socket, ask, rule), size
            ):
                return core.join_decided(ask.topic, ask.attempt, refused=Reason.RATE_LIMITED)
            services.joins.began()
        if self._joining is _NONE_JOINING:
            self._joining = {}
        self._joining[ask.attempt] = joining
        return [] if rule.join == "upstream" else self._admitted(socket, ask, rule)

    def subscribe(self, socket: ChannelSocket, ask: Subscribe) -> list[Effect]:
        """Have the topic's messages come here; at once if nobody has to be waited for, else in a task."""
        services = self._services
        joining = self._joining[ask.attempt]
        resumes = joining.request is not None and joining.rule.history is not None
        known = socket.claims is None or services.sessions.has(socket)
        if not resumes and (known or services.sessions.enter_now(socket)):  # that first, as below
            joining.lease = services.relay.try_subscribe(ask.topic)
            if joining.lease is not None:
                return self._joined(socket, ask, joining, joining.lease)
        if services.joins.full:
            self._settled(ask.attempt)
            self._leave_sessions(socket)
            return socket.core.subscribe_failed(ask.topic, ask.attempt, Reason.RATE_LIMITED)
        joining.task = asyncio.create_task(self._wait_for_bus(socket, ask, joining))
        # Counted here and not in the task: a task that is cancelled before its first step never runs.
        services.joins.began()
        joining.task.add_done_callback(services.joins.ended)
        return []

    def activate(self, socket: ChannelSocket, ask: Activate) -> None:
        """The join is answered: the socket is a member."""
        services = self._services
        joining = self._joining[ask.attempt]
        self._settled(ask.attempt)
        assert joining.lease is not None  # noqa: S101 -- nothing is answered ok without one
        recall, encoding = joining.recall, socket.encoding
        if recall is not None:
            encoding = encoding.with_positions
        member = Membership(socket, encoding, joining, joining.lease, ask.attempt)
        self.members[ask.topic] = member
        self._joined_once = True
        if recall is None:
            services.relay.add(ask.topic, member)
        else:
            services.relay.follower.resuming(ask.topic, 1)
            services.replays.begin(socket, ask.topic, member, recall)
        services.joins.succeeded()
        mode = member.rule.presence
        if mode is not False:
            greet = partial(self._greet, socket, ask.topic, ask.attempt)
            services.presences.enter(ask.topic, socket, mode, greet, member.presence)

    def unsubscribe(self, socket: ChannelSocket, ask: Unsubscribe) -> None:
        """Undo what was done for a join, at whichever stage it ended."""
        joining = self._joining.get(ask.attempt)
        if joining is not None:
            self._settled(ask.attempt)
            if joining.task is not None:
                joining.task.cancel()  # what it acquired until then, it gives back itself
            return
        services = self._services
        member = self.members.pop(ask.topic)
        steps: list[Callable[[], object]] = []
        if member.encoding.positions:
            steps.append(partial(services.relay.follower.resuming, ask.topic, -1))
        if member.position:
            # perhaps of use to the join that comes next: it replaces this one then
            steps.append(partial(self._departs, ask.topic, member))
        if member.replaying is not None:
            steps.append(member.replaying.cancel)
        else:
            steps.append(partial(services.relay.remove, ask.topic, member))
        steps.append(member.lease.close)
        if member.rule.presence:
            steps.append(partial(services.presences.leave, ask.topic, socket))
        teardown("channel", *steps)

    def crash(self, socket: ChannelSocket, topic: str, member: object) -> list[Effect]:
        """A member cannot go on, so its client joins again; unless that is another member by now."""
        known = self.members.get(topic)
        if known is None or known is not member:
            return []
        return socket.core.crash(topic, known.attempt)

    def not_admitted(self, claims: Claims) -> list[str]:
        """Joined topics that some claims do not allow."""
        return [t for t, member in self.members.items() if not member.rule.admits(t, claims)]

    def shown(self) -> Iterator[str]:
        """Joined topics where others may see the client."""
        return (topic for topic, member in self.members.items() if member.rule.presence)

    def _departs(self, topic: str, member: Membership) -> None:
        if member.encoding.positions:
            self.departed = (topic, decode_position(member.position[1:-1].decode()))

    def _admitted(self, socket: ChannelSocket, ask: Authorize, rule: Rule) -> list[Effect]:
        return socket.core.join_decided(
            ask.topic,
            ask.attempt,
            may_push=rule.push != "deny",
            shows_presence=bool(rule.presence) and socket.claims is not None,
        )

    def _joined(
        self, socket: ChannelSocket, ask: Subscribe, joining: Joining, lease: Lease
    ) -> list[Effect]:
        claims, sessions = socket.claims, self._services.sessions
        if not joining.rule.admits(ask.topic, claims):
            # what it was admitted with has been refreshed since, and allows less
            lease.close()
            self._settled(ask.attempt)
            self._leave_sessions(socket)
            return socket.core.subscribe_failed(ask.topic, ask.attempt, Reason.UNAUTHORIZED)
        own = EMPTY_OBJECT
        if claims is not None and ask.topic == sessions.topic(claims.user):
            own = encode_json({"session": socket.id})
        if joining.recall is not None:
            own = overlay(own, resumed(joining.recall.outcome))
        elif joining.request is not None:
            own = overlay(own, resumed(without_history(joining.request)))
        response = overlay(joining.response, own)
        return socket.core.subscribed(ask.topic, ask.attempt, response)

    async def _ask_backend(self, socket: ChannelSocket, ask: Authorize, rule: Rule) -> None:
        """Ask the backend whether a join is allowed, unless it has ended by the time its turn comes."""
        services = self._services
        try:
            if ask.attempt not in self._joining:
                return
            answer: JoinAnswer | Reason | Json
            try:
                answer = await services.callbacks.join(socket, ask.topic, ask.params, rule)
            except Exception:  # noqa: BLE001 -- nobody else would answer the client
                _log.exception("join crashed", throttle="")
                answer = Reason.JOIN_CRASHED
        finally:
            services.joins.ended()
        joining = self._joining.get(ask.attempt)
        if joining is None:
            return
        if isinstance(answer, JoinAnswer):
            try:
                services.presences.check(socket, answer.presence)
            except MetaTooLarge:
                answer = Reason.PAYLOAD_TOO_LARGE
        if isinstance(answer, JoinAnswer):
            joining.response, joining.presence = answer.response, answer.presence
            effects = self._admitted(socket, ask, rule)
        else:
            self._settled(ask.attempt)
            effects = socket.core.join_decided(ask.topic, ask.attempt, refused=answer)
        socket.perform(effects)

    async def _wait_for_bus(self, socket: ChannelSocket, ask: Subscribe, joining: Joining) -> None:
        try:
            failed = await self._prepare(socket, ask.topic, joining)
        except BusError:
            failed = Reason.BUS_UNAVAILABLE
        except Exception:  # noqa: BLE001 -- top of this task: logged, and the client is told
            _log.exception("join crashed", throttle="")
            failed = Reason.JOIN_CRASHED
        except asyncio.CancelledError:
            self._give_back(socket, joining)
            raise
        if failed is None and joining.lease is not None:
            socket.perform(self._joined(socket, ask, joining, joining.lease))
            return
        self._settled(ask.attempt)
        self._give_back(socket, joining)
        refused = failed or Reason.JOIN_CRASHED
        socket.perform(socket.core.subscribe_failed(ask.topic, ask.attempt, refused))

    async def _prepare(self, socket: ChannelSocket, topic: str, joining: Joining) -> Reason | None:
        """Make the joiner a session, have the topic subscribed, find out what the client missed.

        Returns:
            Why not, if it is refused. What was acquired until then is with the join.

        Raises:
            BusError: The bus is down, or the history does not answer.
        """
        services = self._services
        if socket.claims is not None:
            # The session first: its limit is asked for at the subject of a topic that may be this very one,
            # which has a responder as soon as this replica is subscribed itself.
            refused = await services.sessions.enter(socket)
            if refused is not None:
                return refused
            joining.entered = True
        joining.lease = await services.relay.subscribe(topic)
        if joining.request is not None and joining.rule.history is not None:
            outcome, tail = await services.relay.resumer.resume(
                topic, joining.request, joining.sent
            )
            joining.recall = Recall(outcome, [*outcome.replay, *tail])
        return None

    def _give_back(self, socket: ChannelSocket, joining: Joining) -> None:
        """A join came to nothing: let go of what it acquired."""
        joining.entered = False
        close = [] if joining.lease is None else [joining.lease.close]
        teardown("channel", *close, partial(self._leave_sessions, socket))

    def _leave_sessions(self, socket: ChannelSocket) -> None:
        """A socket is a session from its first successful join on, so not if all its joins failed."""
        joins = self._joining.values()
        relied_on = self._joined_once or any(joining.entered for joining in joins)
        if socket.claims is not None and not relied_on:
            self._services.sessions.leave(socket)

    def _settled(self, attempt: int) -> None:
        """A join is under way no longer."""
        self._joining.pop(attempt, None)
        if not self._joining:
            self._joining = _NONE_JOINING

    def _greet(self, socket: ChannelSocket, topic: str, attempt: int, events: list[Event]) -> None:
        for event, payload in events:
            socket.perform(socket.core.push(topic, attempt, event, payload))
