"""What sockets ask the customer's backend: whether one may connect, may join, and what a push means."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from gateway.auth.claims import Claims
from gateway.auth.rules import Rule
from gateway.errors import UpstreamError, UpstreamRefused, UpstreamTimeout
from gateway.protocol.messages import Json, encode_json
from gateway.protocol.reasons import CloseCode, Reason
from gateway.sessions.client import Origin
from gateway.transport.lane import Lane, Work
from gateway.upstream.answers import ConnectAnswer, JoinAnswer, PushAnswer
from gateway.upstream.call import Call
from gateway.upstream.client import Upstream

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

_UNAUTHORIZED: Final[Json] = encode_json({"reason": Reason.UNAUTHORIZED.value})

_log = structlog.get_logger(__name__)


class _Said(msgspec.Struct):
    reason: str = ""


_decode_said: Final = msgspec.json.Decoder(_Said).decode


class Callbacks:
    """The questions, for all sockets of a replica.

    Args:
        asks_connect: Whether the backend is asked about each connect.
    """

    def __init__(self, upstream: Upstream, *, asks_connect: bool) -> None:
        self.asks_connect = asks_connect
        self._upstream = upstream
        self._running: dict[asyncio.Task[None], Connection] = {}

    def queue(
        self, connection: "Connection", work: Work, size: int, topic: str | None = None
    ) -> bool:
        """Do this when what came from the same socket before is done; False when too much waits.

        Args:
            topic: As for :meth:`Lane.add`.
        """
        lane = connection.lane
        if lane is None:
            lane = Lane(partial(_crashed, connection))
        if not lane.add(work, size, topic):
            return False
        if connection.lane is None:
            connection.lane = lane
            task = asyncio.create_task(_work(connection, lane))
            self._running[task] = connection
            task.add_done_callback(self._running.pop)
        return True

    def drop(self, user: str, topic: str) -> int:
        """Do not hand over what waits of a user on a topic, closed sockets included; returns how much."""
        return sum(
            connection.lane.drop(topic)
            for connection in self._running.values()
            if connection.claims is not None
            and connection.claims.user == user
            and connection.lane is not None
        )

    async def finish(self, seconds: float) -> int:
        """Wait until nothing is under way, but not longer than this; returns how many pushes are lost."""
        if not self._running:
            return 0
        await asyncio.wait(self._running, timeout=seconds)
        late = dict(self._running)
        given_up = sum(c.lane.pushes for c in late.values() if c.lane is not None)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return given_up

    async def connect(
        self, session: str, claims: Claims | None, origin: Origin, params: Json
    ) -> ConnectAnswer:
        """Ask about a connect.

        Raises:
            UpstreamError: It is refused, or nobody answers.
        """
        call = Call(
            "gateway.connect",
            session=session,
            user=None if claims is None else claims.user,
            device=origin.device,
            params=params,
            traceparent=origin.traceparent,
        )
        return await self._upstream.connect(call)

    async def join(
        self, connection: "Connection", topic: str, params: Json | None, rule: Rule
    ) -> JoinAnswer | Reason | Json:
        """Ask about a join; returns the refusal if it is one."""
        call = _call(connection, "gateway.join", topic=topic, params=params)
        try:
            answer = await self._upstream.join(call, rule.upstream_url)
        except UpstreamRefused as refused:
            return refused.body if _gives_reason(refused.body) else _UNAUTHORIZED
        except UpstreamError as problem:
            return _reason(problem)
        connection.state = connection.state if answer.state is None else answer.state
        return answer

    async def push(
        self, connection: "Connection", topic: str, event: str, payload: Json, rule: Rule
    ) -> PushAnswer | Reason | Json:
        """Ask what a push means; returns the refusal if it is one."""
        call = _call(connection, "gateway.push", topic=topic, event=event, payload=payload)
        try:
            answer = await self._upstream.push(call, rule.upstream_url)
        except UpstreamRefused as refused:
            return refused.body
        except UpstreamError as problem:
            return _reason(problem)
        connection.state = connection.state if answer.state is None else answer.state
        return answer


async def _work(connection: "Connection", lane: Lane) -> None:
    await lane.run()
    connection.lane = None


def _crashed(connection: "Connection") -> None:
    _log.exception("callback crashed")
    connection.close(CloseCode.INTERNAL_ERROR)


def _call(
    connection: "Connection",
    kind: str,
    *,
    topic: str,
    event: str | None = None,
    payload: Json | None = None,
    params: Json | None = None,
) -> Call:
    origin, claims = connection.origin, connection.claims
    return Call(
        kind,
        session=connection.id,
        user=None if claims is None else claims.user,
        device=origin.device,
        state=connection.state,
        topic=topic,
        event=event,
        payload=payload,
        params=params,
        traceparent=origin.traceparent,
    )


def _reason(problem: UpstreamError) -> Reason:
    if isinstance(problem, UpstreamTimeout):
        return Reason.UPSTREAM_TIMEOUT
    return Reason.UPSTREAM_UNAVAILABLE


def _gives_reason(body: Json) -> bool:
    """Whether a refusal has the one field that clients look for."""
    try:
        return bool(_decode_said(body).reason)
    except ValueError:
        return False
