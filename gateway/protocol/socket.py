"""One socket's protocol state: builds every reply, of an accepted or a refused join too, and all effects.

Every method takes one input and returns the effects it has, in order. Sources: ``Phoenix.Socket``
(``handle_in/4``) and ``Phoenix.Channel.Server`` of Phoenix 1.7.24, and a capture of that server; from 1.8 on
what is meant for an earlier join is not heeded.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.protocol.channel import MAX_HELD_BYTES, Channel, ChannelState
from gateway.protocol.effects import (
    Activate,
    Authorize,
    Close,
    Effect,
    Forward,
    Ignore,
    Refresh,
    RefuseJoin,
    Resume,
    Send,
    Subscribe,
    Unsubscribe,
    UpdatePresence,
)
from gateway.protocol.messages import (
    EMPTY_OBJECT,
    HEARTBEAT,
    JOIN,
    LEAVE,
    NULL,
    Json,
    Message,
    Outgoing,
    Undecodable,
    close_message,
    encode_json,
    error_message,
    error_reply,
    ok_reply,
)
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.reserved import (
    ACCESS_TOKEN,
    LIVE,
    PRESENCE_UPDATE,
    RESERVED_TOPIC,
    is_reserved_event,
)

MALFORMED_LIMIT: Final = 10
"""Malformed frames within :data:`MALFORMED_SECONDS` after which a socket is closed with 1008."""
MALFORMED_SECONDS: Final = 60.0

_PHOENIX: Final[Json] = encode_json(RESERVED_TOPIC)


class _Token(msgspec.Struct):
    access_token: str


_decode_token: Final = msgspec.json.Decoder(_Token).decode


class Socket:
    """Protocol state of one connection.

    Args:
        max_channels: Channels a client may have at a time, joins under way included.
    """

    __slots__ = ("_attempts", "_channels", "_held_bytes", "_malformed", "_max_channels")

    def __init__(self, *, max_channels: int) -> None:
        self._channels: dict[str, Channel] = {}
        self._attempts = 0
        self._held_bytes = 0
        self._max_channels = max_channels
        self._malformed: deque[float] | None = (
            None  # when the last ones came; most clients send none
        )

    @property
    def topics(self) -> list[str]:
        """Topics whose join succeeded and that were not left."""
        return [
            topic
            for topic, channel in self._channels.items()
            if channel.state is ChannelState.JOINED
        ]

    def receive(self, message: Message) -> list[Effect]:
        """One decoded frame of the client."""
        topic = message.topic
        if topic == RESERVED_TOPIC:
            return [_answer_phoenix(message)]
        channel = self._channels.get(topic)
        if channel is not None and channel.delays(message):
            return self._hold(message, channel)
        return self._handle(message, channel)

    def _hold(self, message: Message, channel: Channel) -> list[Effect]:
        size = self._held_bytes + message.size
        if self._held_bytes and size > MAX_HELD_BYTES:
            return [_late_refusal(channel, message, Reason.RATE_LIMITED)]
        channel.hold(message)
        self._held_bytes = size
        if message.event == JOIN and channel.leaving:
            # It replaces the channel, whatever the leave before it waits for.
            channel.unanswered = 0
            return [Resume(message.topic, channel.attempt)]
        return []

    def _handle(self, message: Message, channel: Channel | None) -> list[Effect]:
        topic, event = message.topic, message.event
        if event == JOIN:
            return self._join(message, channel)
        if event == LEAVE:
            return self._leave(message, channel)
        if channel is None:
            reply = error_reply(NULL, message.ref, encode_json(topic), Reason.UNMATCHED_TOPIC)
            return [Send(reply)]
        if not channel.is_meant(message):
            return [Ignore()]
        ask = _asked(message, channel)
        if not isinstance(ask, Send):
            channel.unanswered += 1
        return [ask]

    def undecodable(self, problem: Undecodable, *, now: float) -> list[Effect]:
        """A frame the serializer could not decode; ``now`` is in monotonic seconds."""
        effects: list[Effect] = [] if problem.reply is None else [Send(problem.reply)]
        if problem.malformed:
            times = self._malformed = self._malformed or deque(maxlen=MALFORMED_LIMIT)
            times.append(now)
            if len(times) == MALFORMED_LIMIT and now - times[0] < MALFORMED_SECONDS:
                effects.append(Close(CloseCode.PROTOCOL_ABUSE))
        return effects

    def join_decided(
        self,
        topic: str,
        attempt: int,
        *,
        refused: Reason | Json | None = None,
        may_push: bool = False,
        shows_presence: bool = False,
    ) -> list[Effect]:
        """The answer to :class:`Authorize`; one for an attempt that is gone has no effect.

        Args:
            refused: Why not, where it may not; JSON is the response in a backend's own words.
        """
        channel = self._current(topic, attempt, ChannelState.JOINING)
        if channel is None:
            return []
        if refused is not None:
            return self._refuse_join(topic, channel, refused)
        channel.may_push = may_push
        channel.shows_presence = shows_presence
        channel.state = ChannelState.SUBSCRIBING
        return [Subscribe(topic, attempt)]

    def subscribed(self, topic: str, attempt: int, response: Json = EMPTY_OBJECT) -> list[Effect]:
        """The bus confirmed :class:`Subscribe`.

        Args:
            response: JSON object for the ok reply.
        """
        channel = self._current(topic, attempt, ChannelState.SUBSCRIBING)
        if channel is None:
            return []
        channel.state = ChannelState.JOINED
        effects: list[Effect] = [
            Send(ok_reply(channel.join_ref, channel.ref, channel.topic, response)),
            Activate(topic, attempt),
        ]
        if channel.replaced is not None:
            effects.append(Send(close_message(channel.replaced, channel.topic)))
            channel.replaced = None
        if channel.held:
            effects.append(Resume(topic, attempt))
        return effects

    def resume(self, topic: str, attempt: int) -> list[Effect]:
        """The next message that waited for the join."""
        channel = self._current(topic, attempt, ChannelState.JOINED)
        if channel is None or not channel.held or (channel.leaving and channel.unanswered):
            return []
        message = channel.held.popleft()
        self._held_bytes -= message.size
        effects = self._handle(message, channel)
        successor = self._channels.get(topic)
        if successor is channel:
            if channel.held:
                effects.append(Resume(topic, attempt))
        elif successor is not None:
            successor.held = channel.held  # the message was a join; the rest waits for that one
        else:
            effects += self._replay(channel)
        return effects

    def subscribe_failed(self, topic: str, attempt: int, reason: Reason) -> list[Effect]:
        """The bus could not do :class:`Subscribe`."""
        channel = self._current(topic, attempt, ChannelState.SUBSCRIBING)
        if channel is None:
            return []
        return self._refuse_join(topic, channel, reason)

    def push_answered(
        self,
        topic: str,
        attempt: int,
        ref: Json,
        *,
        refused: Reason | Json | None = None,
        response: Json = EMPTY_OBJECT,
    ) -> list[Effect]:
        """The answer to :class:`Forward` or :class:`UpdatePresence`.

        A channel that was joined anew meanwhile hears nothing: in Phoenix the process that would reply is
        gone.

        Args:
            refused: Why not, where it was not taken; JSON is the response in a backend's own words.
            response: JSON object for the ok reply.
        """
        channel = self._current(topic, attempt, ChannelState.JOINED)
        if channel is None:
            return []
        reply = (
            ok_reply(channel.join_ref, ref, channel.topic, response)
            if refused is None
            else error_reply(channel.join_ref, ref, channel.topic, refused)
        )
        channel.unanswered -= 1
        if channel.leaving and not channel.unanswered:
            return [Send(reply), Resume(topic, attempt)]
        return [Send(reply)]

    def refresh_answered(
        self,
        topic: str,
        attempt: int,
        ref: Json,
        *,
        refused: Reason | None = None,
        ended: Iterable[str] = (),
    ) -> list[Effect]:
        """The answer to :class:`Refresh`.

        Args:
            refused: Why the old credentials stay.
            ended: Topics the new ones do not allow; the client is taken off them, after its answer.
        """
        effects = (
            [_answer_refresh(ref, refused)]
            if attempt == 0
            else self.push_answered(topic, attempt, ref, refused=refused)
        )
        for gone in ended:
            effects += self.end(gone)
        return effects

    def push(self, topic: str, attempt: int, event: str, payload: Json) -> list[Effect]:
        """A message of the gateway's own to this client alone, as ``Phoenix.Channel.push/3``."""
        channel = self._current(topic, attempt, ChannelState.JOINED)
        if channel is None:
            return []
        message = Outgoing(channel.join_ref, NULL, channel.topic, encode_json(event), payload)
        return [Send(message)]

    def end(self, topic: str) -> list[Effect]:
        """The gateway takes the client off a topic; nothing happens if it is not on it."""
        channel = self._channels.get(topic)
        if channel is None:
            return []
        effects: list[Effect] = [Unsubscribe(topic, channel.attempt)]
        late = [_late_refusal(channel, m, Reason.UNAUTHORIZED) for m in self._let_go(channel)]
        if channel.state is not ChannelState.JOINED:
            return [*effects, *self._refuse_join(topic, channel, Reason.UNAUTHORIZED), *late]
        del self._channels[topic]
        return [*effects, *late, Send(close_message(channel.join_ref, channel.topic))]

    def crash(self, topic: str, attempt: int) -> list[Effect]:
        """A channel cannot go on; its client joins again, by ``phx_error`` (``Phoenix.Channel.Server``)."""
        channel = self._current(topic, attempt, ChannelState.JOINED)
        if channel is None:
            return []
        self._let_go(channel)  # as a process that crashes loses its mailbox
        del self._channels[topic]
        return [Unsubscribe(topic, attempt), Send(error_message(channel.join_ref, channel.topic))]

    def end_all(self) -> list[Effect]:
        """The gateway takes the client off all topics: phoenix.js then has nothing to rejoin."""
        ends: list[Effect] = []
        for channel in self._channels.values():
            if channel.state is not ChannelState.JOINED:
                # unanswered, phoenix.js would join once more when its timer for the answer ends
                reason = Reason.SESSION_LIMIT
                refusal = error_reply(channel.join_ref, channel.ref, channel.topic, reason)
                ends.append(RefuseJoin(refusal, reason))
            ends.append(Send(close_message(channel.join_ref, channel.topic)))
        return [*self.disconnected(), *ends]

    def disconnected(self) -> list[Effect]:
        """The connection is gone: what must be undone."""
        effects: list[Effect] = [
            Unsubscribe(topic, channel.attempt) for topic, channel in self._channels.items()
        ]
        self._channels.clear()
        return effects

    def _join(self, message: Message, old: Channel | None) -> list[Effect]:
        topic = message.topic
        if old is None and len(self._channels) >= self._max_channels:
            reason = Reason.TOO_MANY_CHANNELS
            reply = error_reply(message.join_ref, message.ref, encode_json(topic), reason)
            return [RefuseJoin(reply, reason)]
        self._attempts += 1
        channel = self._channels[topic] = Channel(self._attempts, message)
        effects: list[Effect] = []
        if old is not None:
            channel.replaced = old.join_ref
            effects.append(Unsubscribe(topic, old.attempt))
        params = None if message.binary else message.payload
        effects.append(Authorize(topic, channel.attempt, params))
        return effects

    def _leave(self, message: Message, channel: Channel | None) -> list[Effect]:
        if channel is None:
            topic = encode_json(message.topic)
            return [Send(ok_reply(message.join_ref, message.ref, topic))]
        if not channel.is_meant(message):
            return [Ignore()]
        del self._channels[message.topic]
        return [
            Unsubscribe(message.topic, channel.attempt),
            Send(ok_reply(channel.join_ref, message.ref, channel.topic)),
            Send(close_message(channel.join_ref, channel.topic)),
        ]

    def _current(self, topic: str, attempt: int, state: ChannelState) -> Channel | None:
        channel = self._channels.get(topic)
        if channel is None or channel.attempt != attempt or channel.state is not state:
            return None
        return channel

    def _refuse_join(self, topic: str, channel: Channel, reason: Reason | Json) -> list[Effect]:
        del self._channels[topic]
        # Phoenix has found no channel module for an unmatched topic, so it has no join_ref either.
        join_ref = NULL if reason is Reason.UNMATCHED_TOPIC else channel.join_ref
        effects: list[Effect] = [
            RefuseJoin(
                error_reply(join_ref, channel.ref, channel.topic, reason),
                reason if isinstance(reason, Reason) else None,
            )
        ]
        if channel.replaced is not None:
            effects.append(Send(close_message(channel.replaced, channel.topic)))
        return effects + self._replay(channel)

    def _replay(self, ended: Channel) -> list[Effect]:
        """What waited for a channel that is gone: a join among it starts a channel, which holds the rest."""
        effects: list[Effect] = []
        for message in self._let_go(ended):
            effects += self.receive(message)
        return effects

    def _let_go(self, channel: Channel) -> Iterable[Message]:
        """What a channel holds, which it then holds no longer."""
        waiting, channel.held = channel.held or (), None
        self._held_bytes -= sum(message.size for message in waiting)
        return waiting


def _asked(message: Message, channel: Channel) -> Forward | UpdatePresence | Refresh | Send:
    """What a message on a joined channel leads to that is neither a join nor a leave."""
    topic, event, payload = message.topic, message.event, message.payload
    if event == ACCESS_TOKEN:
        return _refresh(message, channel.attempt, channel.join_ref)
    is_object = not message.binary and payload[:1] == b"{"
    if event == PRESENCE_UPDATE and channel.shows_presence:
        if not is_object:
            return _refusal(channel, message, Reason.MALFORMED)
        return UpdatePresence(topic, channel.attempt, message.ref, payload)
    if not channel.may_push or event == LIVE or is_reserved_event(event):
        return _refusal(channel, message, Reason.PUSH_NOT_ALLOWED)
    if not is_object and not message.binary:
        # Clients with typed payloads (Swift, Dart) fail on a broadcast that is no object.
        return _refusal(channel, message, Reason.MALFORMED)
    return Forward(topic, channel.attempt, message.ref, event, payload, message.binary)


def _answer_phoenix(message: Message) -> Refresh | Send:
    """The answer to a message on the topic ``phoenix``."""
    if message.event == ACCESS_TOKEN:
        return _refresh(message, 0, NULL)
    if message.event == HEARTBEAT:
        return Send(ok_reply(NULL, message.ref, _PHOENIX))
    return Send(error_reply(NULL, message.ref, _PHOENIX, Reason.UNMATCHED_TOPIC))


def _refresh(message: Message, attempt: int, join_ref: Json) -> Refresh | Send:
    """New credentials in a message, which is an object with the string ``access_token``."""
    topic = encode_json(message.topic)
    if message.binary or message.payload[:1] != b"{":
        return Send(error_reply(join_ref, message.ref, topic, Reason.MALFORMED))
    try:
        token = _decode_token(message.payload).access_token
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return Send(error_reply(join_ref, message.ref, topic, Reason.UNAUTHORIZED))
    return Refresh(message.topic, attempt, message.ref, token)


def _answer_refresh(ref: Json, refused: Reason | None) -> Effect:
    """The answer to new credentials that came on the topic ``phoenix``."""
    if refused is None:
        return Send(ok_reply(NULL, ref, _PHOENIX))
    return Send(error_reply(NULL, ref, _PHOENIX, refused))


def _refusal(channel: Channel, message: Message, reason: Reason) -> Send:
    return Send(error_reply(channel.join_ref, message.ref, channel.topic, reason))


def _late_refusal(channel: Channel, message: Message, reason: Reason) -> Send | RefuseJoin:
    """The refusal of a message that waited, or cannot."""
    if message.event == LEAVE and reason is Reason.UNAUTHORIZED:
        return Send(ok_reply(channel.join_ref, message.ref, channel.topic))  # it is off the topic
    if message.event != JOIN:
        return _refusal(channel, message, reason)
    # with its own join_ref: phoenix.js passes over a reply that has another's
    reply: Outgoing = error_reply(message.join_ref, message.ref, channel.topic, reason)
    return RefuseJoin(reply, reason)
