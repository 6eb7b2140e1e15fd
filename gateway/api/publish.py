"""Publishes over HTTP: one message (``/v1/publish``), or a batch of them (``/v1/publish/batch``)."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

import msgspec
from aiohttp import web
from msgspec import UNSET

from gateway.api import body
from gateway.api.problem import (
    BUS_UNAVAILABLE,
    OUTCOME_UNKNOWN,
    RESERVED,
    TOO_LARGE,
    UNMATCHED,
    FieldError,
    Problem,
    Refusal,
    problem,
    refusal,
)
from gateway.api.types import (
    BatchItem,
    BatchRequest,
    PublishRequest,
    PublishResponse,
    TargetResult,
    id_faults,
)
from gateway.audience import Audience
from gateway.auth.rules import PersonalTopic, Rules
from gateway.errors import BusUnavailable, EnvelopeTooLarge, OutcomeUnknown
from gateway.listener_check import ListenerCheck
from gateway.pacer import Pacer
from gateway.protocol.reserved import RESERVED_TOPIC, is_reserved_event, name_fits
from gateway.relay import Published

IDEMPOTENCY_KEY: Final = "Idempotency-Key"

TURN: Final = 32
"""
Targets sent to in a row, before other requests and other work get their turn.

On the memory bus a publish never waits, so a batch of 1,000 messages for 1,000 topics each would keep
heartbeats waiting for seconds.
"""

_message_decoder = msgspec.json.Decoder(PublishRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)
_encode = msgspec.json.Encoder().encode


class BatchAnswer(msgspec.Struct):
    """A :class:`~gateway.api.types.BatchResponse` whose items are encoded."""

    results: list[msgspec.Raw]


class Publisher(Protocol):
    """Sends messages to all members of a topic, on every replica."""

    async def publish(
        self,
        topic: str,
        event: str,
        payload: bytes,
        /,
        *,
        audience: Audience | None,
        message_id: str | None,
        check: ListenerCheck | None,
    ) -> Published:
        """Send one message.

        Args:
            check: To find out whether anybody listens.

        Raises:
            BusUnavailable: Certainly nobody gets it.
            OutcomeUnknown: It may have been stored.
            EnvelopeTooLarge: The bus cannot carry it; nobody gets it.
        """

    def listener_check(self) -> ListenerCheck:
        """For the topics of some messages."""


class PublishCalls:
    """The two publish calls.

    Args:
        personal: The topics of users.
        max_payload_bytes: Largest payload; the same bound that a client's frame has.
    """

    def __init__(
        self, publisher: Publisher, rules: Rules, personal: PersonalTopic, *, max_payload_bytes: int
    ) -> None:
        self._publisher = publisher
        self._rules = rules
        self._personal = personal
        self._max_payload_bytes = max_payload_bytes
        self._turns = Pacer(per_turn=1)

    async def publish(self, request: web.Request) -> web.Response:
        """``POST /v1/publish``."""
        message = body.decode(_message_decoder, await body.read(request))
        key = request.headers.get(IDEMPOTENCY_KEY)
        with self._publisher.listener_check() as check:
            sent = await self._send(message, key, check)
            if message.to_users:
                _say_who_listens(sent.results, await check.answers())
        return body.answer(sent, 202)

    async def send(self, text: bytes) -> PublishResponse:
        """Send one message, given as the body of ``POST /v1/publish``.

        Raises:
            Refusal: Nobody got it.
        """
        message = body.decode(_message_decoder, text)
        with self._publisher.listener_check() as check:
            return await self._send(message, None, check)

    async def batch(self, request: web.Request) -> web.Response:
        """``POST /v1/publish/batch``: in order."""
        if IDEMPOTENCY_KEY in request.headers:
            # Heeding it is impossible, and passing over it would lead to messages sent twice.
            fault = FieldError(IDEMPOTENCY_KEY, "belongs into each message of a batch, as id")
            raise body.invalid(fault)
        messages = body.decode(_batch_decoder, await body.read(request)).messages
        results: list[msgspec.Raw] = []
        together: list[PublishRequest | Refusal] = []
        targets = 0
        for text in messages:
            try:
                message: PublishRequest | Refusal = body.decode(_message_decoder, bytes(text))
            except Refusal as error:
                message = error
            size = 1 if isinstance(message, Refusal) else message.size
            if together and targets + size > TURN:
                results += await self._hand_over(together)
                together, targets = [], 0
            together.append(message)
            targets += size
        results += await self._hand_over(together)
        return body.answer(BatchAnswer(results), 202)

    async def _hand_over(self, messages: list[PublishRequest | Refusal]) -> list[msgspec.Raw]:
        """Send some messages of a batch; returns the outcomes, encoded, as they may be a million targets.

        Each is handed over before the next begins; only for what has to be stored is there anything to
        wait for, and the store answers many in the time of one.
        """
        await self._turns.wait()
        with self._publisher.listener_check() as check:
            items = await asyncio.gather(*(self._item(message, check) for message in messages))
            known = await check.answers()
        for message, item in zip(messages, items, strict=True):
            if item.results and not isinstance(message, Refusal) and message.to_users:
                _say_who_listens(item.results, known)
        return [msgspec.Raw(_encode(item)) for item in items]

    async def _item(self, message: PublishRequest | Refusal, check: ListenerCheck) -> BatchItem:
        try:
            if isinstance(message, Refusal):
                raise message
            sent = await self._send(message, None, check)
        except Refusal as error:
            return BatchItem(problem=error.problem)
        return BatchItem(id=sent.id, results=sent.results)

    async def _send(
        self, message: PublishRequest, key: str | None, check: ListenerCheck
    ) -> PublishResponse:
        """Send one message to its targets.

        Args:
            key: The request's ``Idempotency-Key``.
            check: To find out whether the users listen that it is for.

        Raises:
            Refusal: Nobody got it.
        """
        _check(message, key)
        payload = bytes(message.payload)
        if len(payload) > self._max_payload_bytes:
            text = f"The payload has {len(payload)} bytes, {self._max_payload_bytes} are allowed."
            raise refusal(TOO_LARGE, text, FieldError("payload", "is too large"))
        message_id = message.id or key or secrets.token_hex(16)
        targets = self._targets(message)
        audience = _audience(message)
        results: dict[str, TargetResult] = {}
        for index, (topic, field) in enumerate(targets, 1):
            if topic not in results:
                send = partial(
                    self._publisher.publish,
                    topic,
                    message.event,
                    payload,
                    audience=audience,
                    message_id=message_id,
                    check=check if message.to_users else None,
                )
                results[topic] = await self._to(topic, field, message_id, send)
            if index % TURN == 0:
                await self._turns.wait()
        problems = [result.problem for result in results.values() if result.problem]
        if len(problems) == len(results):
            raise _refused(*problems)
        return PublishResponse(message_id, [results[topic] for topic, _ in targets])

    def _targets(self, message: PublishRequest) -> list[tuple[str, str]]:
        """The topics of a message, each with the field that names it.

        Raises:
            Refusal: A user whose personal topic would be too long, so that nobody can be that user.
        """
        if message.topic:
            return [(message.topic, "topic")]
        if message.topics:
            return [(topic, f"topics[{index}]") for index, topic in enumerate(message.topics)]
        if message.user:
            users = [(message.user, "user")]
        else:
            users = [(user, f"users[{index}]") for index, user in enumerate(message.users or ())]
        targets = [(self._personal.of(user), field) for user, field in users]
        faults = [
            FieldError(field, "is too long") for topic, field in targets if not name_fits(topic)
        ]
        if faults:
            raise body.invalid(*faults)
        return targets

    async def _to(
        self, topic: str, field: str, message_id: str, send: Callable[[], Awaitable[Published]]
    ) -> TargetResult:
        """Send to one topic; ``field`` is where the request names it."""
        if topic == RESERVED_TOPIC:
            fault = FieldError(field, "is the protocol's own topic")
            return _failed(topic, problem(RESERVED, "Nobody can join this topic.", fault))
        if self._rules.match(topic) is None:
            fault = FieldError(field, "matches no channel rule")
            return _failed(topic, problem(UNMATCHED, "Nobody can join this topic.", fault))
        try:
            sent = await send()
        except BusUnavailable as error:
            text = f"The message was not sent: {error}"
            return _failed(topic, problem(BUS_UNAVAILABLE, text))
        except OutcomeUnknown:
            text = f"It may have been stored. Repeat it with the id {message_id}."
            return _failed(topic, problem(OUTCOME_UNKNOWN, text))
        except EnvelopeTooLarge as error:
            text = f"With its envelope it has {error.size} bytes, the bus carries {error.limit}."
            fault = FieldError("payload", "is too large")
            return _failed(topic, problem(TOO_LARGE, text, fault))
        return TargetResult(
            topic, position=sent.position, duplicate=True if sent.duplicate else UNSET
        )


def _say_who_listens(results: list[TargetResult], known: Mapping[str, bool]) -> None:
    for result in results:
        if not result.problem:
            result.listening = known.get(result.topic, UNSET)


def _audience(message: PublishRequest) -> Audience | None:
    sessions, devices = message.exclude_sessions, message.exclude_devices
    if not (sessions or devices or message.device_types):
        return None
    return Audience(
        frozenset(sessions or ()),
        frozenset(devices or ()),
        frozenset(message.device_types or ()),
    )


def _check(message: PublishRequest, key: str | None) -> None:
    faults = message.faults()
    if key is not None:
        faults += id_faults(IDEMPOTENCY_KEY, key)
        if message.id and message.id != key:
            faults.append(FieldError("id", f"differs from the header {IDEMPOTENCY_KEY}"))
    if faults:
        raise body.invalid(*faults)
    if is_reserved_event(message.event):
        text = "Clients act on this event whoever sent it."
        raise refusal(RESERVED, text, FieldError("event", "is the protocol's own event"))


def _failed(topic: str, reason: Problem) -> TargetResult:
    return TargetResult(topic, problem=reason)


def _refused(*reasons: Problem) -> Refusal:
    """One answer when no target surely got the message.

    That it may have been stored comes before all else, then "try again" where that may help, then the first.
    """
    statuses = [each.status for each in reasons]
    worst = (s for s in (OUTCOME_UNKNOWN.status, BUS_UNAVAILABLE.status) if s in statuses)
    first = reasons[statuses.index(next(worst, statuses[0]))]
    headers = BUS_UNAVAILABLE.headers if first.status == BUS_UNAVAILABLE.status else {}
    errors = tuple(error for each in reasons for error in each.errors)
    return Refusal(msgspec.structs.replace(first, errors=errors), headers)
