"""Refreshes the credentials of connected sockets: the event ``access_token``."""

import asyncio
from typing import Protocol

import structlog

from gateway.auth.admission import Admission
from gateway.auth.claims import Claims
from gateway.channels.callbacks import Callbacks
from gateway.errors import TokenError
from gateway.metrics import Metrics
from gateway.protocol.effects import Effect, Refresh
from gateway.protocol.reasons import Reason
from gateway.protocol.socket import Socket

_log = structlog.get_logger(__name__)


class RefreshingSocket(Protocol):
    """A socket as a refresh of its credentials needs it.

    Attributes:
        refreshing: The token being looked at; None while there is none.
    """

    refreshing: asyncio.Task[None] | None

    @property
    def id(self) -> str: ...

    @property
    def claims(self) -> Claims | None: ...

    @property
    def core(self) -> Socket: ...

    def take_claims(self, claims: Claims) -> list[str]: ...

    def perform(self, effects: list[Effect]) -> None: ...


class Credentials:
    """Refreshes the credentials of a replica's sockets."""

    def __init__(self, admission: Admission, callbacks: Callbacks, metrics: Metrics) -> None:
        self._admission = admission
        self._callbacks = callbacks
        self._refreshes = metrics.token_refreshes

    def refresh(self, socket: RefreshingSocket, ask: Refresh) -> list[Effect]:
        """Look at the token in a task of its own, since its key may have to be fetched; one at a time."""
        if socket.refreshing is not None:
            return socket.core.refresh_answered(
                ask.topic, ask.attempt, ask.ref, refused=Reason.RATE_LIMITED
            )
        socket.refreshing = asyncio.create_task(self._refresh(socket, ask))
        return []

    async def _refresh(self, socket: RefreshingSocket, ask: Refresh) -> None:
        refused: Reason | None = None
        ended: list[str] = []
        result = "ok"
        try:
            claims = await self._admission.refresh(ask.token, socket.claims)
        except TokenError as error:
            refused, result = Reason.UNAUTHORIZED, error.reason
        except Exception:  # noqa: BLE001 -- top of this task: logged, and the client keeps what it has
            _log.exception("refresh crashed", throttle="")
            refused, result = Reason.UNAUTHORIZED, "crashed"
        else:
            ended = socket.take_claims(claims)
            for topic in ended:
                self._callbacks.drop_of(socket.id, topic)
        socket.refreshing = None
        self._refreshes.labels(result).inc()
        socket.perform(
            socket.core.refresh_answered(
                ask.topic, ask.attempt, ask.ref, refused=refused, ended=ended
            )
        )
