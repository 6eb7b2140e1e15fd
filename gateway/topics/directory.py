"""The topics of the whole cluster: asks the replicas about them, and answers for this one.

Who has members of a topic is subscribed to it, so there it is asked, as
:class:`gateway.sessions.directory.Directory` does about users; all are asked which topics there are. Nothing
is kept for it, and nothing is done before somebody asks.
"""

from collections.abc import Sequence
from typing import Final

from gateway.cluster import Cluster, Cover, Others
from gateway.hub.registry import Registry
from gateway.topics import distinct
from gateway.topics.commands import (
    CountTopic,
    Figures,
    ListPresent,
    ListTopics,
    PresencePage,
    PresentUser,
    TopicPage,
)
from gateway.topics.pages import first_names, in_turns, joined
from gateway.tracker.entry import PRESENCE, Entry
from gateway.tracker.service import TrackerService

ANSWER_SECONDS: Final = 0.4
"""How long others have: so whoever asked the API has an answer within half a second."""

MAX_ENTRIES: Final = 100
"""Of one user on one replica so many are told: all browsers of a shared account may be on one topic."""

MAX_PAGE_BYTES: Final = 256 * 1024
"""Metas that a replica answers with, about; its page ends with the user who takes it above."""


class TopicDirectory:
    """The topics.

    Args:
        here: Those of this replica, and their members.
    """

    def __init__(self, here: Registry, cluster: Cluster, tracker: TrackerService) -> None:
        self._here = here
        self._cluster = cluster
        self._tracker = tracker

    async def topics(
        self, prefix: str, after: str | None, limit: int
    ) -> tuple[dict[str, int], str | None, Cover]:
        """A page of the topics that have members.

        Returns:
            How many channels each has, in order of their names; where the next page begins; who answered.
        """
        asked = await self._cluster.call(
            ListTopics(prefix, after, limit), self._cluster.everyone, seconds=ANSWER_SECONDS
        )
        pages = [page.topics for page in asked.values]
        names, more = joined([(page.topics, page.more) for page in asked.values], limit)
        totals = {name: sum(page.get(name, 0) for page in pages) for name in names}
        return (
            {name: channels for name, channels in totals.items() if channels},
            names[-1] if more else None,
            asked.cover,
        )

    async def figures(self, topic: str) -> tuple[Figures, Figures, Cover]:
        """How many are on a topic: here, and on all replicas that answered."""
        here = self._here.get(topic) is not None
        # with members here it is probably one of many replicas' topics, and nobody knows whose
        to = self._cluster.everyone if here else self._cluster.holders(topic)
        asked = await self._cluster.call(CountTopic(topic), to, seconds=ANSWER_SECONDS)
        found = asked.values
        total = Figures(
            sum(each.channels for each in found),
            sum(each.sessions for each in found),
            distinct.count([each.sketch for each in found]),
        )
        return asked.by_replica[self._cluster.replica], total, asked.cover

    async def present(
        self, topic: str, after: str | None, limit: int
    ) -> tuple[dict[str, PresentUser], str | None, Cover]:
        """A page of the users who are present on a topic.

        Where this replica has members of the topic, the others only say that it knows their entries
        already; and what it knows of one that does not answer is shown, too.

        Returns:
            The users, in order of their names; where the next page begins; who answered.
        """
        known = self._tracker.others(PRESENCE + topic)
        versions = {replica: (each.incarnation, each.version) for replica, each in known.items()}
        kept = {replica: list(each.entries.values()) for replica, each in known.items()}
        moving = self._tracker.moving(PRESENCE + topic)
        # who moves is known to replicas, too, that have let go of the topic
        to = self._cluster.everyone if moving else self._cluster.holders(topic)
        asked = await self._cluster.call(
            ListPresent(topic, after, limit, versions),
            to,
            seconds=ANSWER_SECONDS,
        )
        pages: list[PresencePage] = []
        for replica in {**asked.by_replica, **dict.fromkeys(asked.cover.missing)}:
            page = asked.by_replica.get(replica)
            if page is None:
                page = await _page(kept.get(replica, ()), after, limit)
            pages.append(page)
        names, more = joined([(page.users, page.more) for page in pages], limit)
        users: dict[str, PresentUser] = {}
        async for some in in_turns(names):
            for name in some:
                user = _together([page.users[name] for page in pages if name in page.users])
                if user.sessions:
                    users[name] = user
        return users, names[-1] if more else None, asked.cover

    async def list_here(self, command: ListTopics) -> TopicPage:
        """The topics of this replica."""
        names, more = await first_names(
            self._here.names(), str, command.after, command.limit, command.prefix
        )
        return TopicPage({name: self._channels(name) for name in names}, more)

    async def count_here(self, command: CountTopic) -> Figures:
        """Who is on a topic on this replica."""
        topic = self._here.get(command.topic)
        members = [] if topic is None else list(topic.members)
        sessions, users = 0, set[str]()
        async for some in in_turns(members):
            named = [user for member in some if (user := member.outlet.user)]
            sessions += len(named)
            users.update(named)
        return Figures(len(members), sessions, len(users), await distinct.sketch(users))

    async def present_here(self, command: ListPresent) -> PresencePage | None:
        """Who is present on a topic on this replica, if that is not known to who asks."""
        state = self._tracker.own(PRESENCE + command.topic)
        if command.known.get(state.replica) == (state.incarnation, state.version):
            return None
        return await _page((*state.entries, *state.orphans), command.after, command.limit)

    def others(self, command: CountTopic | ListPresent) -> Others:
        """Replicas that have an answer too, and those that may have.

        Those with users who are present are known, those with members in general are not.
        """
        if isinstance(command, CountTopic):
            return (), self._cluster.others
        return self._tracker.holders(PRESENCE + command.topic)

    def _channels(self, name: str) -> int:
        topic = self._here.get(name)
        return 0 if topic is None else len(topic.members)


async def _page(entries: Sequence[Entry], after: str | None, limit: int) -> PresencePage:
    """The first users behind one, with their entries."""
    names, more = await first_names(entries, lambda entry: entry.user, after, limit)
    of: dict[str, list[Entry]] = {name: [] for name in names}
    async for some in in_turns(entries):
        for entry in some:
            if entry.user in of:
                of[entry.user].append(entry)
    users: dict[str, PresentUser] = {}
    size = 0
    for name, found in of.items():
        if size > MAX_PAGE_BYTES:
            return PresencePage(users, True)
        told = tuple(found[:MAX_ENTRIES])
        users[name] = PresentUser(len(found), told)
        size += sum(len(entry.meta) for entry in told)
    return PresencePage(users, more)


def _together(parts: Sequence[PresentUser]) -> PresentUser:
    """A user as replicas know her: one that left may be told of by several, and its place be taken."""
    told = sorted((e for part in parts for e in part.entries), key=lambda e: not e.moving)
    entries = {entry.id: entry for entry in told}
    taken = {r for e in told if not e.moving for r in (e.ref, e.previous_ref)}
    shown = tuple(e for e in entries.values() if not (e.moving and e.ref in taken))
    untold = sum(part.sessions - len(part.entries) for part in parts)
    return PresentUser(len(shown) + untold, shown)
