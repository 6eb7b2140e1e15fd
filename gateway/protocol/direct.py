"""Answers and refusals that follow from a client's message alone, whatever the state of its socket."""

from typing import Final

import msgspec

from gateway.protocol.channel import Channel
from gateway.protocol.effects import Effect, Refresh, RefuseJoin, Send
from gateway.protocol.messages import (
    HEARTBEAT,
    JOIN,
    NULL,
    Json,
    Message,
    Outgoing,
    encode_json,
    error_reply,
    ok_reply,
)
from gateway.protocol.reasons import Reason
from gateway.protocol.reserved import ACCESS_TOKEN, RESERVED_TOPIC

PHOENIX: Final[Json] = encode_json(RESERVED_TOPIC)


class _Token(msgspec.Struct):
    access_token: str


_decode_token: Final = msgspec.json.Decoder(_Token).decode


def answer_phoenix(message: Message) -> Refresh | Send:
    """The answer to a message on the topic ``phoenix``."""
    if message.event == ACCESS_TOKEN:
        return refresh(message, 0, NULL)
    if message.event == HEARTBEAT:
        return Send(ok_reply(NULL, message.ref, PHOENIX))
    return Send(error_reply(NULL, message.ref, PHOENIX, Reason.UNMATCHED_TOPIC))


def refresh(message: Message, attempt: int, join_ref: Json) -> Refresh | Send:
    """New credentials in a message, which is an object with the string ``access_token``."""
    topic = encode_json(message.topic)
    if message.binary or message.payload[:1] != b"{":
        return Send(error_reply(join_ref, message.ref, topic, Reason.MALFORMED))
    try:
        token = _decode_token(message.payload).access_token
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return Send(error_reply(join_ref, message.ref, topic, Reason.UNAUTHORIZED))
    return Refresh(message.topic, attempt, message.ref, token)


def answer_refresh(ref: Json, refused: Reason | None) -> Effect:
    """The answer to new credentials that came on the topic ``phoenix``."""
    if refused is None:
        return Send(ok_reply(NULL, ref, PHOENIX))
    return Send(error_reply(NULL, ref, PHOENIX, refused))


def refusal(channel: Channel, message: Message, reason: Reason) -> Send:
    """The refusal of a message on a channel."""
    return Send(error_reply(channel.join_ref, message.ref, channel.topic, reason))


def late_refusal(channel: Channel, message: Message, reason: Reason) -> Send | RefuseJoin:
    """The refusal of a message that came, or waited, while the channel's join was not decided."""
    if message.event != JOIN:
        return refusal(channel, message, reason)
    # with its own join_ref: phoenix.js passes over a reply that has another's
    reply: Outgoing = error_reply(message.join_ref, message.ref, channel.topic, reason)
    return RefuseJoin(reply, reason)
