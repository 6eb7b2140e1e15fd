"""What a page says of a user, of names that begin alike, and of a topic, by what this replica knows."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import msgspec

from gateway.console.sources import Sources
from gateway.sessions.commands import Session
from gateway.topics.commands import Figures
from gateway.tracker.entry import Entry

SHOWN: Final = 50
"""Names that are listed of those that are found."""

SHOWN_PRESENT: Final = 100
"""Users of a topic's presence that are listed."""

SHOWN_SESSIONS: Final = 100
"""Of a user's sessions here, and of those elsewhere, that are listed: a shared account may have thousands."""


class UserView(msgspec.Struct, frozen=True):
    """A user's sessions.

    Attributes:
        sessions: At most :data:`SHOWN_SESSIONS` of them, as of those elsewhere.
        more: How many there are beside these.
        elsewhere: What other replicas told this one of theirs, by replica.
        more_elsewhere: How many there are beside these.
        asked: Whether all replicas were asked, so that ``sessions`` are those of all.
        missing: Replicas that were asked and did not answer.
    """

    name: str
    sessions: list[Session]
    more: int
    elsewhere: list[tuple[str, Entry]] = []
    more_elsewhere: int = 0
    asked: bool = False
    missing: tuple[str, ...] = ()


class TopicView(msgspec.Struct, frozen=True):
    """A topic, as this replica knows it.

    Attributes:
        members: Its members here.
        rule: The pattern it hits; empty where nobody can join it.
        presence: Users who are present with how many sessions each, at most :data:`SHOWN_PRESENT` of them.
        users: How many there are.
        everywhere: How many are on it on all replicas, where these were asked; the presence is theirs, too.
        missing: Replicas that were asked and did not answer.
    """

    name: str
    members: int
    rule: str
    shows_presence: bool
    history: str
    presence: list[tuple[str, int]]
    users: int
    everywhere: Figures | None = None
    missing: tuple[str, ...] = ()


def user_view(sources: Sources, name: str) -> UserView:
    """What this replica knows of a user."""
    known = sources.sessions.find(name)
    remotes = {} if known is None else known.view.remotes
    here = sources.sessions_here(name)
    elsewhere = [
        (replica, entry)
        for replica in sorted(remotes)
        for entry in remotes[replica].entries.values()
    ]
    return UserView(
        name,
        here[:SHOWN_SESSIONS],
        max(0, len(here) - SHOWN_SESSIONS),
        elsewhere[:SHOWN_SESSIONS],
        max(0, len(elsewhere) - SHOWN_SESSIONS),
    )


async def ask_for_user(sources: Sources, name: str) -> UserView:
    """What all replicas know of a user."""
    sessions, cover = await sources.directory.sessions(name)
    return UserView(
        name,
        sessions[:SHOWN_SESSIONS],
        max(0, len(sessions) - SHOWN_SESSIONS),
        asked=True,
        missing=cover.missing,
    )


def topic_view(sources: Sources, name: str) -> TopicView:
    """What this replica knows of a topic."""
    topic, rule = sources.registry.get(name), sources.rules.match(name)
    sessions: dict[str, int] = {}
    for entry in sources.present(name):
        sessions[entry.user] = sessions.get(entry.user, 0) + 1
    kept = None if rule is None else rule.history
    return TopicView(
        name,
        members=0 if topic is None else len(topic.members),
        rule="" if rule is None else rule.pattern,
        shows_presence=rule is not None and bool(rule.presence),
        history="" if kept is None else f"{kept.messages} messages of {kept.seconds} seconds",
        presence=sorted(islice(sessions.items(), SHOWN_PRESENT)),
        users=len(sessions),
    )


async def ask_for_topic(sources: Sources, name: str) -> TopicView:
    """What all replicas know of a topic."""
    here = topic_view(sources, name)
    _, total, cover = await sources.topics.figures(name)
    presence, users = here.presence, here.users
    if here.shows_presence:
        found, following, who = await sources.topics.present(name, None, SHOWN_PRESENT)
        presence = [(user, each.sessions) for user, each in found.items()]
        users = total.users if following else len(found)
        cover = cover if who.complete else who
    return msgspec.structs.replace(
        here, presence=presence, users=users, everywhere=total, missing=cover.missing
    )


def names_like(names: Iterable[str], beginning: str) -> tuple[list[str], bool]:
    """The first names that begin so, and whether there are more."""
    found = list(islice((name for name in names if name.startswith(beginning)), SHOWN + 1))
    return sorted(found[:SHOWN]), len(found) > SHOWN
