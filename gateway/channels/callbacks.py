"""Callbacks: asks the customer's backend whether a client may connect, may join, and what a push means."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from gateway.auth.claims import Claims
from gateway.auth.rules import Rule
from gateway.channels.callback_queue import CallbackQueue, Work
from gateway.errors import UpstreamError, UpstreamRefused, UpstreamTimeout
from gateway.protocol.messages import Json, encode_json
from gateway.protocol.reasons import CloseCode, Reason
from gateway.sessions.client import Origin
from gateway.upstream.answers import ConnectAnswer, JoinAnswer, PushAnswer
from gateway.upstream.call import Call
from gateway.upstream.client import Upstream

_UNAUTHORIZED: Final[Json] = encode_json({"reason": Reason.UNAUTHORIZED.value})

_log = structlog.get_logger(__name__)


class CallingSocket(Protocol):
    """A socket as its callbacks need it.

    Attributes:
        state: What the backend keeps with the session; its answers replace it.
    """

    state: Json

    @property
    def id(self) -> str: ...

    @property
    def claims(self) -> Claims | None: ...

    @property
    def origin(self) -> Origin: ...

    def close(self, code: CloseCode) -> None: ...


class _Refusal(msgspec.Struct):
    reason: str = ""


_decode_refusal: Final = msgspec.json.Decoder(_Refusal).decode


class Callbacks:
    """The callbacks of a replica's sockets, and the queues they wait in.

    Args:
        asks_connect: Whether the backend is asked about each connect.
        not_handed_over: Counts pushes that were dropped, as their clients were taken off the topic meanwhile.
    """

    def __init__(
        self, upstream: Upstream, *, asks_connect: bool, not_handed_over: Callable[[int], None]
    ) -> None:
        self.asks_connect = asks_connect
        self.not_handed_over = not_handed_over
        self._upstream = upstream
        self._queues: dict[str, CallbackQueue] = {}  # by the id of the socket
        self._tasks: dict[asyncio.Task[None], CallbackQueue] = {}

    def queue(self, socket: CallingSocket, work: Work, size: int, topic: str | None = None) -> bool:
        """Do this when what came from the same socket before is done: see :meth:`CallbackQueue.add`."""
        queue = self._queues.get(socket.id)
        if queue is not None:
            return queue.add(work, size, topic)
        user = None if socket.claims is None else socket.claims.user
        queue = self._queues[socket.id] = CallbackQueue(user, partial(_crashed, socket))
        queue.add(work, size, topic)
        task = asyncio.create_task(self._run(socket.id, queue))
        self._tasks[task] = queue
        task.add_done_callback(self._tasks.pop)
        return True

    def drop(self, user: str, topic: str) -> int:
        """Drop the waiting pushes of a user on a topic, those of closed sockets too; returns how many."""
        theirs = [queue for queue in self._queues.values() if queue.user == user]
        dropped = sum(queue.drop(topic) for queue in theirs)
        self.not_handed_over(dropped)
        return dropped

    def drop_of(self, session: str, topic: str) -> None:
        """The same of one socket."""
        queue = self._queues.get(session)
        if queue is not None:
            self.not_handed_over(queue.drop(topic))

    async def finish(self, seconds: float) -> int:
        """Wait until nothing is under way, but not longer than this; returns how many pushes are lost."""
        if not self._tasks:
            return 0
        await asyncio.wait(self._tasks, timeout=seconds)
        late = dict(self._tasks)
        given_up = sum(queue.pushes for queue in late.values())
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
            ip=origin.ip,
        )
        return await self._upstream.connect(call)

    async def join(
        self, socket: CallingSocket, topic: str, params: Json | None, rule: Rule
    ) -> JoinAnswer | Reason | Json:
        """Ask about a join; returns the refusal if it is one."""
        call = _call(socket, "gateway.join", topic=topic, params=params)
        try:
            answer = await self._upstream.join(call, rule.upstream_url)
        except UpstreamRefused as refused:
            return refused.body if _gives_reason(refused.body) else _UNAUTHORIZED
        except UpstreamError as problem:
            return _reason(problem)
        socket.state = socket.state if answer.state is None else answer.state
        return answer

    async def push(
        self, socket: CallingSocket, topic: str, event: str, payload: Json, rule: Rule
    ) -> PushAnswer | Reason | Json:
        """Ask what a push means; returns the refusal if it is one."""
        call = _call(socket, "gateway.push", topic=topic, event=event, payload=payload)
        try:
            answer = await self._upstream.push(call, rule.upstream_url)
        except UpstreamRefused as refused:
            return refused.body
        except UpstreamError as problem:
            return _reason(problem)
        socket.state = socket.state if answer.state is None else answer.state
        return answer

    async def _run(self, session: str, queue: CallbackQueue) -> None:
        try:
            await queue.run()
        finally:
            del self._queues[session]


def _crashed(socket: CallingSocket) -> None:
    _log.exception("callback crashed")
    socket.close(CloseCode.INTERNAL_ERROR)


def _call(
    socket: CallingSocket,
    kind: str,
    *,
    topic: str,
    event: str | None = None,
    payload: Json | None = None,
    params: Json | None = None,
) -> Call:
    origin, claims = socket.origin, socket.claims
    return Call(
        kind,
        session=socket.id,
        user=None if claims is None else claims.user,
        device=origin.device,
        state=socket.state,
        topic=topic,
        event=event,
        payload=payload,
        params=params,
        traceparent=origin.traceparent,
        ip=origin.ip,
    )


def _reason(problem: UpstreamError) -> Reason:
    if isinstance(problem, UpstreamTimeout):
        return Reason.UPSTREAM_TIMEOUT
    return Reason.UPSTREAM_UNAVAILABLE


def _gives_reason(body: Json) -> bool:
    """Whether a refusal has the one field that clients look for."""
    try:
        return bool(_decode_refusal(body).reason)
    except ValueError:
        return False
