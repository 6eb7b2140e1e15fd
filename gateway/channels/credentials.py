"""New credentials for a socket that is connected: the event ``access_token``."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from gateway.auth.claims import Claims
from gateway.errors import TokenError
from gateway.protocol.effects import Effect, Refresh
from gateway.protocol.reasons import Reason

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

_log = structlog.get_logger(__name__)


def refresh(connection: "Connection", ask: Refresh) -> list[Effect]:
    """Look at the token in a task of its own, since its key may have to be fetched; one at a time."""
    if connection.refreshing is not None:
        return connection.core.refresh_answered(
            ask.topic, ask.attempt, ask.ref, refused=Reason.RATE_LIMITED
        )
    connection.refreshing = asyncio.create_task(_refresh(connection, ask))
    return []


async def _refresh(connection: "Connection", ask: Refresh) -> None:
    refused: Reason | None = None
    ended: list[str] = []
    result = "ok"
    try:
        claims = await connection.endpoint.admission.refresh(ask.token, connection.claims)
    except TokenError as error:
        refused, result = Reason.UNAUTHORIZED, error.reason
    except Exception:  # noqa: BLE001 -- top of this task: logged, and the client keeps what it has
        _log.exception("refresh crashed")
        refused, result = Reason.UNAUTHORIZED, "crashed"
    else:
        ended = _take(connection, claims)
    connection.refreshing = None
    connection.endpoint.metrics.token_refreshes.labels(result).inc()
    await connection.perform(
        connection.core.refresh_answered(
            ask.topic, ask.attempt, ask.ref, refused=refused, ended=ended
        )
    )


def _take(connection: "Connection", claims: Claims) -> list[str]:
    """Use the new claims from now on; returns the topics they do not allow."""
    connection.take_claims(claims)
    ended = [
        topic
        for topic, member in connection.members.items()
        if not member.rule.admits(topic, claims)
    ]
    if connection.lane is not None:
        for topic in ended:
            connection.endpoint.pushes_dropped(connection.lane.drop(topic))
    return ended
