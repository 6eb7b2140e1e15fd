"""Answers what is known of topics and of who is on them."""

import asyncio
from typing import Protocol

import msgspec
from aiohttp import web

from gateway.api import body
from gateway.api.history import Archive
from gateway.api.problem import NOT_FOUND, refusal
from gateway.api.query import name_in, page_in, part_of_name
from gateway.api.topic_types import (
    HistoryEnds,
    PresentList,
    PresentReport,
    RuleReport,
    TopicEntry,
    TopicFigures,
    TopicList,
    TopicReport,
)
from gateway.auth.rules import Rules
from gateway.cluster import Cover
from gateway.errors import BusError
from gateway.topics.commands import Figures, PresentUser
from gateway.topics.directory import ANSWER_SECONDS
from gateway.tracker.presence import encode_meta


class TopicQueries(Protocol):
    """The topics of the whole cluster; see :class:`gateway.topics.directory.TopicDirectory`."""

    async def topics(
        self, prefix: str, after: str | None, limit: int, /
    ) -> tuple[dict[str, int], str | None, Cover]:
        """A page of the topics that have members."""

    async def figures(self, topic: str, /) -> tuple[Figures, Figures, Cover]:
        """How many are on a topic: here, and on all replicas."""

    async def present(
        self, topic: str, after: str | None, limit: int, /
    ) -> tuple[dict[str, PresentUser], str | None, Cover]:
        """A page of the users who are present on a topic."""


class TopicCalls:
    """The calls."""

    def __init__(self, topics: TopicQueries, archive: Archive, rules: Rules) -> None:
        self._topics = topics
        self._archive = archive
        self._rules = rules

    async def list(self, request: web.Request) -> web.Response:
        """``GET /v1/topics``."""
        _, limit = page_in(request, "prefix")
        prefix, after = part_of_name(request, "prefix") or "", part_of_name(request, "cursor")
        found, following, cover = await self._topics.topics(prefix, after, limit)
        return body.answer(
            TopicList(
                items=[TopicEntry(topic, channels) for topic, channels in found.items()],
                next=following,
                complete=cover.complete,
                missing_replicas=cover.missing,
            )
        )

    async def show(self, request: web.Request) -> web.Response:
        """``GET /v1/topics/{topic}``."""
        topic = name_in(request, "topic")
        rule = self._rules.match(topic)
        kept = rule is not None and rule.history is not None
        (here, total, cover), history = await asyncio.gather(
            self._topics.figures(topic), self._ends(topic) if kept else asyncio.sleep(0)
        )
        return body.answer(
            TopicReport(
                topic=topic,
                here=_figures(here),
                all=_figures(total),
                history=history,
                rule=None
                if rule is None
                else msgspec.convert(rule, RuleReport, from_attributes=True),
                complete=cover.complete and (history is not None or not kept),
                missing_replicas=cover.missing,
            )
        )

    async def presence(self, request: web.Request) -> web.Response:
        """``GET /v1/topics/{topic}/presence``."""
        topic = name_in(request, "topic")
        _, limit = page_in(request)
        rule = self._rules.match(topic)
        if rule is None or not rule.presence:
            raise refusal(
                NOT_FOUND, "Nobody is told who is on this topic: its rule has no presence."
            )
        found, following, cover = await self._topics.present(
            topic, part_of_name(request, "cursor"), limit
        )
        return body.answer(
            PresentList(
                items=[
                    PresentReport(
                        user,
                        each.sessions,
                        [msgspec.Raw(encode_meta(entry)) for entry in each.entries],
                    )
                    for user, each in found.items()
                ],
                next=following,
                complete=cover.complete,
                missing_replicas=cover.missing,
            )
        )

    async def _ends(self, topic: str) -> HistoryEnds | None:
        """Where the history begins and ends; None when the store does not say so in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return HistoryEnds(*await self._archive.ends(topic))
        except (BusError, TimeoutError):
            return None


def _figures(found: Figures) -> TopicFigures:
    return TopicFigures(found.channels, found.sessions, found.users)
