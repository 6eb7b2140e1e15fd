"""Joins of one socket, from the question whether it may to its membership, and their end."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.auth.rules import Rule
from gateway.errors import BusError
from gateway.history.position import decode as decode_position
from gateway.history.resume import InvalidResume, parse, without_history
from gateway.history.resume import response as resumed
from gateway.leases import Lease
from gateway.protocol.effects import Activate, Authorize, Effect, Subscribe, Unsubscribe
from gateway.protocol.messages import EMPTY_OBJECT, Json, encode_json, overlay
from gateway.protocol.reasons import Reason
from gateway.sessions.presence import MetaTooLarge
from gateway.tracker.presence import Event
from gateway.transport.membership import Joining, Membership, prepare
from gateway.transport.replay import Recall
from gateway.transport.replay import begin as begin_replay
from gateway.upstream.answers import JoinAnswer

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

_log = structlog.get_logger(__name__)


def authorize(connection: "Connection", ask: Authorize) -> list[Effect]:
    """Decide on a join by the rules, or have the backend asked."""
    decision = connection.endpoint.admission.join(ask.topic, connection.claims)
    rule = decision.rule
    if rule is None:
        return connection.core.join_decided(ask.topic, ask.attempt, refused=decision.refused)
    joining = connection.joining[ask.attempt] = Joining(rule)
    departed, connection.departed = connection.departed, None
    try:
        joining.request = parse(ask.params, rule.history)
    except InvalidResume:
        del connection.joining[ask.attempt]
        return connection.core.join_decided(ask.topic, ask.attempt, refused=Reason.INVALID_RESUME)
    if departed is not None and departed[0] == ask.topic:
        joining.sent = departed[1]
    if rule.join != "upstream":
        return _admitted(connection, ask, rule)
    endpoint = connection.endpoint
    size = len(ask.params or b"")
    if endpoint.joins_full or not endpoint.callbacks.queue(
        connection, partial(_ask_backend, connection, ask, rule), size
    ):
        del connection.joining[ask.attempt]
        return connection.core.join_decided(ask.topic, ask.attempt, refused=Reason.RATE_LIMITED)
    endpoint.joins_in_flight += 1
    return []


def subscribe(connection: "Connection", ask: Subscribe) -> list[Effect]:
    """Have the topic's messages come here; at once if they do already, else in a task."""
    endpoint = connection.endpoint
    known = connection.claims is None or endpoint.sessions.has(connection)
    joining = connection.joining[ask.attempt]
    resumes = joining.request is not None and joining.rule.history is not None
    if known and not resumes:
        joining.lease = endpoint.relay.try_subscribe(ask.topic)
    if joining.lease is not None:
        return _joined(connection, ask)
    if endpoint.joins_full:
        del connection.joining[ask.attempt]
        return connection.core.subscribe_failed(ask.topic, ask.attempt, Reason.RATE_LIMITED)
    task = asyncio.create_task(_wait_for_bus(connection, ask))
    # Counted here and not in the task: a task that is cancelled before its first step never runs.
    endpoint.joins_in_flight += 1
    task.add_done_callback(endpoint.join_waited)
    joining.task = task
    return []


def activate(connection: "Connection", ask: Activate) -> None:
    """The join is answered: the socket is a member."""
    joining = connection.joining.pop(ask.attempt)
    if not connection.joining:
        connection.joining = {}  # an emptied dict keeps its table, 168 bytes a socket
    recall, encoding = joining.recall, connection.encoding
    if recall is not None:
        encoding = encoding.with_positions
    member = Membership(connection, encoding, joining, ask.attempt)
    connection.members[ask.topic] = member
    endpoint = connection.endpoint
    if recall is None:
        endpoint.relay.add(ask.topic, member)
    else:
        endpoint.relay.follower.resuming(ask.topic, 1)
        begin_replay(connection, ask.topic, member, recall)
    endpoint.joined()
    rule = member.rule
    if rule.presence is not False:
        greet = partial(_greet, connection, ask.topic, ask.attempt)
        endpoint.presences.enter(ask.topic, connection, rule.presence, greet, member.presence)


def unsubscribe(connection: "Connection", ask: Unsubscribe) -> None:
    """Undo what was done for a join, at whichever stage it ended."""
    joining = connection.joining.pop(ask.attempt, None)
    if joining is not None and joining.task is not None:
        joining.task.cancel()
    endpoint = connection.endpoint
    member = connection.members.pop(ask.topic, None)
    if member is not None:
        if member.encoding.positions:
            endpoint.relay.follower.resuming(ask.topic, -1)
            if member.position:
                # perhaps of use to the join that comes next: it replaces this one then
                connection.departed = (ask.topic, decode_position(member.position[1:-1].decode()))
        if member.replaying is not None:
            member.replaying.cancel()
        else:
            endpoint.relay.remove(ask.topic, member)
        if member.rule.presence:
            endpoint.presences.leave(ask.topic, connection)
    for held in (joining, member):
        if held is not None and held.lease is not None:
            held.lease.close()


async def _ask_backend(connection: "Connection", ask: Authorize, rule: Rule) -> None:
    """Ask the backend whether a join is allowed, unless it has ended by the time its turn comes."""
    endpoint = connection.endpoint
    try:
        if ask.attempt not in connection.joining:
            return
        answer: JoinAnswer | Reason | Json
        try:
            answer = await endpoint.callbacks.join(connection, ask.topic, ask.params, rule)
        except Exception:  # noqa: BLE001 -- nobody else would answer the client
            _log.exception("join crashed")
            answer = Reason.JOIN_CRASHED
    finally:
        endpoint.joins_in_flight -= 1
    joining = connection.joining.get(ask.attempt)
    if joining is None:
        return
    if isinstance(answer, JoinAnswer):
        try:
            endpoint.presences.check(connection, answer.presence)
        except MetaTooLarge:
            answer = Reason.PAYLOAD_TOO_LARGE
        else:
            joining.response, joining.presence = answer.response, answer.presence
            effects = _admitted(connection, ask, rule)
    if not isinstance(answer, JoinAnswer):
        effects = connection.core.join_decided(ask.topic, ask.attempt, refused=answer)
        connection.joining.pop(ask.attempt, None)
    if not effects:
        connection.joining.pop(ask.attempt, None)  # it was taken off the topic meanwhile
    await connection.perform(effects)


def _admitted(connection: "Connection", ask: Authorize, rule: Rule) -> list[Effect]:
    return connection.core.join_decided(
        ask.topic,
        ask.attempt,
        may_push=rule.push != "deny",
        shows_presence=bool(rule.presence) and connection.claims is not None,
    )


async def _wait_for_bus(connection: "Connection", ask: Subscribe) -> None:
    joining = connection.joining[ask.attempt]
    failed: Reason | None
    try:
        prepared = await prepare(connection.endpoint, connection, ask.topic)
        if isinstance(prepared, Lease):
            joining.lease = prepared
            failed = await _recall(connection, ask)
        else:
            failed = prepared
    except BusError:
        failed = Reason.BUS_UNAVAILABLE
    except Exception:  # noqa: BLE001 -- top of this task: logged, and the client is told
        _log.exception("join crashed")
        failed = Reason.JOIN_CRASHED
    if failed is None:
        await connection.perform(_joined(connection, ask))
        return
    connection.joining.pop(ask.attempt, None)
    if joining.lease is not None:
        joining.lease.close()
    await connection.perform(connection.core.subscribe_failed(ask.topic, ask.attempt, failed))


async def _recall(connection: "Connection", ask: Subscribe) -> Reason | None:
    """Find out what a client that resumes has missed; returns why that cannot be."""
    joining, relay = connection.joining[ask.attempt], connection.endpoint.relay
    if joining.request is None or joining.rule.history is None:
        return None
    try:
        outcome, tail = await relay.resumer.resume(ask.topic, joining.request, joining.sent)
    except BusError:
        return Reason.BUS_UNAVAILABLE
    joining.recall = Recall(outcome, tail)
    return None


def _joined(connection: "Connection", ask: Subscribe) -> list[Effect]:
    joining, claims, endpoint = (
        connection.joining[ask.attempt],
        connection.claims,
        connection.endpoint,
    )
    if not joining.rule.admits(ask.topic, claims):
        # what it was admitted with has been refreshed since, and allows less
        del connection.joining[ask.attempt]
        if joining.lease is not None:
            joining.lease.close()
        if not connection.topics:
            endpoint.sessions.leave(connection)  # this join has just made it one
        return connection.core.subscribe_failed(ask.topic, ask.attempt, Reason.UNAUTHORIZED)
    own = EMPTY_OBJECT
    if claims is not None and ask.topic == endpoint.sessions.topic(claims.user):
        own = encode_json({"session": connection.id})
    if joining.recall is not None:
        own = overlay(own, resumed(joining.recall.outcome))
    elif joining.request is not None:
        own = overlay(own, resumed(without_history(joining.request)))
    response = overlay(joining.response, own)
    return connection.core.subscribed(ask.topic, ask.attempt, response)


def _greet(connection: "Connection", topic: str, attempt: int, events: list[Event]) -> None:
    for event, payload in events:
        connection.carry_out(connection.core.push(topic, attempt, event, payload))
