"""Reads and erases the history of a topic: ``/v1/topics/{topic}/history``."""

from typing import Annotated, Protocol

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import body
from gateway.api.problem import (
    BUS_UNAVAILABLE,
    NOT_FOUND,
    OUTCOME_UNKNOWN,
    FieldError,
    refusal,
)
from gateway.api.query import name_in, page_in
from gateway.api.user_types import rfc3339
from gateway.audience import Audience
from gateway.auth.rules import Rules
from gateway.errors import BusUnavailable, OutcomeUnknown


class HistoryItem(msgspec.Struct):
    """One message that is kept."""

    position: Annotated[str, Meta(description="Where it stands; works in a client's `resume`.")]
    time: Annotated[str, Meta(description="When it was stored, RFC 3339 in UTC.")]
    event: Annotated[str, Meta(description="Its event.")]
    payload: Annotated[
        msgspec.Raw,
        Meta(description="As it was published.", extra_json_schema={"type": "object"}),
    ]
    exclude_sessions: Annotated[tuple[str, ...], Meta(description="Sessions that do not get it.")]
    exclude_devices: Annotated[tuple[str, ...], Meta(description="Devices that do not get it.")]
    device_types: Annotated[
        tuple[str, ...], Meta(description="Types of device that get it; empty for all.")
    ]


class HistoryPage(msgspec.Struct):
    """Messages of a topic, the oldest first."""

    items: Annotated[list[HistoryItem], Meta(description="What is kept, as the rule limits it.")]
    position: Annotated[
        str, Meta(description="Where one stands who has read this page, if `next` is null.")
    ]
    next: Annotated[
        str | None, Meta(description="The `cursor` of the next page; null when this is the last.")
    ]


class Erased(msgspec.Struct):
    """What was forgotten."""

    erased: Annotated[int, Meta(description="How many messages it was.")]


class Archive(Protocol):
    """What is kept of topics."""

    async def page(
        self, topic: str, cursor: str | None, limit: int, /
    ) -> tuple[list[HistoryItem], str, str | None]:
        """Messages, where one stands after them, and the cursor of those that follow, if there are any.

        Raises:
            ValueError: The cursor is none.
            BusUnavailable: The history does not answer.
        """

    async def ends(self, topic: str, /) -> tuple[str | None, str | None]:
        """Positions of the first and the last message that are stored; None where there is none.

        Raises:
            BusUnavailable: The history does not answer.
        """

    async def erase(self, topic: str, /) -> int:
        """Forget all messages of a topic; returns how many.

        Raises:
            BusUnavailable: Nothing was forgotten.
            OutcomeUnknown: Nobody knows.
        """


class HistoryCalls:
    """The calls."""

    def __init__(self, archive: Archive, rules: Rules) -> None:
        self._archive = archive
        self._rules = rules

    async def read(self, request: web.Request) -> web.Response:
        """``GET /v1/topics/{topic}/history``."""
        topic = self._topic(request)
        cursor, limit = page_in(request)
        try:
            page = await self._archive.page(topic, cursor, limit)
        except ValueError:
            raise body.invalid(FieldError("cursor", "is no position of this history")) from None
        except BusUnavailable as error:
            raise refusal(BUS_UNAVAILABLE, f"The history cannot be read now: {error}") from None
        return body.answer(HistoryPage(*page))

    async def erase(self, request: web.Request) -> web.Response:
        """``DELETE /v1/topics/{topic}/history``."""
        topic = self._topic(request)
        try:
            return body.answer(Erased(await self._archive.erase(topic)))
        except BusUnavailable as error:
            raise refusal(BUS_UNAVAILABLE, f"Nothing was erased: {error}") from None
        except OutcomeUnknown:
            raise refusal(OUTCOME_UNKNOWN, "It may have been erased. Repeat it.") from None

    def _topic(self, request: web.Request) -> str:
        topic = name_in(request, "topic")
        if self._rules.history(topic) is None:
            raise refusal(NOT_FOUND, "Nothing is kept of this topic.")
        return topic


def item(
    position: str, time: float, event: str, payload: bytes, audience: Audience | None
) -> HistoryItem:
    """One message as the API shows it."""
    to = audience or Audience()
    filters = (to.excluded_sessions, to.excluded_devices, to.device_types)
    shown = (tuple(sorted(each)) for each in filters)
    return HistoryItem(position, rfc3339(time), event, msgspec.Raw(payload), *shown)
