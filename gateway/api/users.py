"""Answers what is known of users, their sessions and the replicas, and closes sessions."""

import re
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from aiohttp import web

from gateway.api import body
from gateway.api.problem import FieldError
from gateway.api.query import name_in
from gateway.api.user_types import (
    Disconnected,
    Removed,
    ReplicaList,
    ReplicaReport,
    SessionList,
    SessionReport,
    StatusReport,
    StatusRequest,
    UserReport,
    UserStatus,
    rfc3339,
)
from gateway.cluster import Cover
from gateway.sessions.commands import Presence, Session

MAX_EXCEPTIONS: Final = 100
"""Sessions one request can spare."""

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_status_decoder = msgspec.json.Decoder(StatusRequest)


class UserDirectory(Protocol):
    """The users of the whole cluster."""

    async def presences(self, users: list[str], /) -> tuple[dict[str, Presence], Cover]:
        """How many sessions users have, and when they were last seen."""

    async def last_seen(self, user: str, /) -> float:
        """When a user who was found nowhere was last seen, unix seconds; 0 for never."""

    async def sessions(self, user: str, /) -> tuple[list[Session], Cover]:
        """A user's sessions."""

    async def close(
        self, user: str, /, *, only: tuple[str, ...] = (), keep: tuple[str, ...] = ()
    ) -> tuple[int, Cover]:
        """Close a user's sessions; returns how many."""

    async def leave_topic(self, user: str, topic: str, /) -> tuple[int, Cover]:
        """Take a user off a topic; returns how many channels ended."""


class UserCalls:
    """The calls.

    Args:
        replicas: All replicas that are alive.
    """

    def __init__(
        self, directory: UserDirectory, replicas: Callable[[], list[ReplicaReport]]
    ) -> None:
        self._directory = directory
        self._replicas = replicas

    async def user(self, request: web.Request) -> web.Response:
        """``GET /v1/users/{user}``."""
        user = name_in(request, "user")
        found, cover = await self._directory.presences([user])
        seen = found[user].last_seen_at or await self._directory.last_seen(user)
        return body.answer(
            UserReport(
                user=user,
                online=found[user].online,
                sessions=found[user].sessions,
                last_seen_at=rfc3339(seen) if seen else None,
                complete=cover.complete,
                missing_replicas=cover.missing,
            )
        )

    async def status(self, request: web.Request) -> web.Response:
        """``POST /v1/users/status``."""
        asked = body.decode(_status_decoder, await body.read(request))
        users = list(dict.fromkeys(asked.users))
        found, cover = await self._directory.presences(users)
        states = {user: UserStatus(each.online, each.sessions) for user, each in found.items()}
        return body.answer(
            StatusReport(users=states, complete=cover.complete, missing_replicas=cover.missing)
        )

    async def sessions(self, request: web.Request) -> web.Response:
        """``GET /v1/users/{user}/sessions``."""
        items, cover = await self._directory.sessions(name_in(request, "user"))
        return body.answer(
            SessionList(
                items=[SessionReport.of(item) for item in items],
                complete=cover.complete,
                missing_replicas=cover.missing,
            )
        )

    async def close_all(self, request: web.Request) -> web.Response:
        """``DELETE /v1/users/{user}/sessions``, all but those in ``except``."""
        unknown = [name for name in request.query if name != "except"]
        if unknown:
            raise body.invalid(*(FieldError(name, "is not known here") for name in unknown))
        texts = request.query.getall("except", [])
        keep = tuple(part.strip() for text in texts for part in text.split(","))
        if any(not _SESSION_ID.fullmatch(each) for each in keep) or len(keep) > MAX_EXCEPTIONS:
            wrong = f"must be at most {MAX_EXCEPTIONS} ids of sessions, separated by commas"
            raise body.invalid(FieldError("except", wrong))
        return await self._close(name_in(request, "user"), (), keep)

    async def close_one(self, request: web.Request) -> web.Response:
        """``DELETE /v1/users/{user}/sessions/{id}``."""
        session = request.match_info["id"]
        if not _SESSION_ID.fullmatch(session):
            raise body.invalid(FieldError("id", "is no id of a session"))
        return await self._close(name_in(request, "user"), (session,), ())

    async def leave_topic(self, request: web.Request) -> web.Response:
        """``DELETE /v1/topics/{topic}/users/{user}``."""
        topic, user = name_in(request, "topic"), name_in(request, "user")
        removed, cover = await self._directory.leave_topic(user, topic)
        return body.answer(
            Removed(removed=removed, complete=cover.complete, missing_replicas=cover.missing)
        )

    async def replicas(self, _: web.Request) -> web.Response:
        """``GET /v1/replicas``."""
        return body.answer(ReplicaList(self._replicas()))

    async def _close(self, user: str, only: tuple[str, ...], keep: tuple[str, ...]) -> web.Response:
        closed, cover = await self._directory.close(user, only=only, keep=keep)
        return body.answer(
            Disconnected(
                disconnected=closed, complete=cover.complete, missing_replicas=cover.missing
            )
        )
