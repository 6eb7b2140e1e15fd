"""Presence of this replica's members, topic by topic."""

from collections.abc import Callable
from functools import partial
from typing import Final, Literal, TypeAlias

import msgspec

from gateway.log import teardown
from gateway.protocol.messages import EMPTY_OBJECT, Json
from gateway.sessions.client import Client
from gateway.tracker.entry import Entry
from gateway.tracker.presence import Greet, TopicPresence
from gateway.tracker.service import TrackerService

Mode: TypeAlias = Literal[True, "count"]

OWN_FIELDS: Final = frozenset({"phx_ref", "phx_ref_prev", "online_at", "device_type"})
"""What the gateway writes into a meta; nobody else's word for it is taken."""

_decode_meta: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode_meta: Final = msgspec.json.Encoder().encode


class MetaTooLarge(ValueError):
    """A meta above its bound."""


class Presences:
    """All topics of this replica whose rule has presence.

    Args:
        send: Sends an event and its payload to a topic's members on this replica, but for some, by id.
        new_ref: Makes a ref nobody else has.
        max_meta_bytes: Longest meta, without the gateway's own fields.
        gather_seconds: See :class:`gateway.tracker.presence.TopicPresence`.
        part_bytes: As there.
        clock: Unix seconds.
    """

    def __init__(
        self,
        tracker: TrackerService,
        send: Callable[[str, str, Json, frozenset[str]], None],
        *,
        new_ref: Callable[[], str],
        max_meta_bytes: int,
        gather_seconds: float,
        part_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._tracker = tracker
        self._send = send
        self._new_ref = new_ref
        self._max_meta_bytes = max_meta_bytes
        self._gather_seconds = gather_seconds
        self._part_bytes = part_bytes
        self._clock = clock
        self._topics: dict[str, TopicPresence] = {}

    def check(self, client: Client, extra: Json) -> None:
        """Whether a socket can be shown with more than its token says.

        Raises:
            MetaTooLarge: It is above the bound.
        """
        if len(merge(_said(client), extra)) > self._max_meta_bytes:
            raise MetaTooLarge

    def enter(
        self, topic: str, client: Client, mode: Mode, greet: Greet, extra: Json = EMPTY_OBJECT
    ) -> None:
        """A socket joined a topic.

        Anonymous sockets are told who is there, and nobody is told of them.

        Args:
            greet: Tells the socket who is there already.
            extra: What the backend wants shown beside what the token says.
        """
        presence = self._topics.get(topic)
        if presence is None:
            presence = self._topics[topic] = TopicPresence(
                topic,
                self._tracker,
                partial(self._send, topic),
                gather_seconds=self._gather_seconds,
                counts=mode == "count",
                part_bytes=self._part_bytes,
            )
        presence.members += 1
        if client.claims is not None:
            now = self._clock()
            presence.put(
                Entry(
                    id=client.id,
                    user=client.claims.user,
                    ref=self._new_ref(),
                    connected_at=now,
                    online_at=now,
                    device=client.origin.device,
                    meta=merge(_said(client), extra),
                )
            )
        presence.greet(client.id, greet)

    def leave(self, topic: str, client: Client) -> None:
        """A socket left a topic it had entered."""
        presence = self._topics.get(topic)
        if presence is None:
            return  # it could not be entered
        presence.members -= 1
        steps: list[Callable[[], None]] = [partial(presence.remove, client.id)]
        if not presence.members:
            del self._topics[topic]
            steps.append(presence.close)
        teardown("channel", *steps)

    def update(self, topic: str, client: Client, meta: Json, extra: Json = EMPTY_OBJECT) -> None:
        """A socket changed what others see of it on a topic it is on.

        Args:
            extra: As it entered with.

        Raises:
            MetaTooLarge: It is above the bound; nothing changed.
            ValueError: It is no JSON object.
        """
        merged = merge(_said(client), extra, meta)
        if len(merged) > self._max_meta_bytes:
            raise MetaTooLarge
        self._topics[topic].update(client.id, self._new_ref(), merged)

    def move(self, topic: str, client: Client) -> None:
        """A socket is about to be closed by a drain; its client is expected on another replica."""
        presence = self._topics.get(topic)
        if presence is not None:
            presence.move(client.id)


def merge(*layers: Json) -> Json:
    """A meta of what the token says, what the backend adds and what the client sets; the later win.

    Raises:
        ValueError: One of them is no JSON object.
    """
    said = [layer for layer in layers if layer != EMPTY_OBJECT]
    if not said:
        return EMPTY_OBJECT
    fields: dict[str, msgspec.Raw] = {}
    try:
        for layer in said:
            fields |= _decode_meta(layer)
    except RecursionError as problem:
        raise ValueError("nested too deep") from problem
    return _encode_meta({name: value for name, value in fields.items() if name not in OWN_FIELDS})


def _said(client: Client) -> Json:
    return EMPTY_OBJECT if client.claims is None else client.claims.presence
