"""Starts, shows and aborts the drain of the replica that is asked: ``/v1/drain``."""

from typing import Annotated, Literal, Protocol, TypeAlias

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import body
from gateway.api.problem import ENDING, refusal

DrainState: TypeAlias = Literal["serving", "draining", "drained"]


class DrainReport(msgspec.Struct):
    """How far a replica's drain is."""

    state: Annotated[
        DrainState,
        Meta(
            description="`serving`: there is none. `draining`: new clients are refused, and those there "
            "are closed a few at a time once `drain.delay_seconds` are over. `drained`: all are closed."
        ),
    ]
    connections: Annotated[int, Meta(description="Clients that are still connected.")]
    ending: Annotated[bool, Meta(description="Whether the process ends after it, as on SIGTERM.")]


class ReplicaDrain(Protocol):
    """The drain of this replica."""

    @property
    def state(self) -> DrainState:
        """How far it is."""

    @property
    def connections(self) -> int:
        """How many clients are still connected."""

    @property
    def ending(self) -> bool:
        """Whether the process ends after it."""

    def start(self) -> None:
        """Begin. Idempotent."""

    def abort(self) -> bool:
        """Let clients in again; False when the process is ending. Idempotent."""


class DrainCalls:
    """The calls."""

    def __init__(self, drain: ReplicaDrain) -> None:
        self._drain = drain

    async def start(self, request: web.Request) -> web.Response:
        """``POST /v1/drain``."""
        self._drain.start()
        return await self.show(request)

    async def abort(self, request: web.Request) -> web.Response:
        """``DELETE /v1/drain``."""
        if not self._drain.abort():
            raise refusal(ENDING, "The process is ending; the drain cannot be aborted.")
        return await self.show(request)

    async def show(self, _: web.Request) -> web.Response:
        """``GET /v1/drain``."""
        drain = self._drain
        return body.answer(DrainReport(drain.state, drain.connections, drain.ending))
