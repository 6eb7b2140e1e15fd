"""Clients that come back with their last position, as the recipe for phoenix.js does, and a publisher."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, cycle
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
AGAIN_SECONDS = 0.05
WITHIN_SECONDS = 60.0

Answer = dict[str, Any]


class Reader:
    """One client on one topic, joining again as often as it must.

    Args:
        heard: Told each number as it comes.

    Attributes:
        numbers: What it got, in order.
        last: The last position it knows, for ``resume``.
        joined: Whether it is on its topic now, as far as it knows.
        answers: Responses of its ok replies.
        refusals: Reasons of its other replies.
        errors: How often its channel was ended by ``phx_error``.
        closes: Codes it was closed with.
    """

    def __init__(
        self,
        user: str = "42",
        topic: str = ROOM,
        heard: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.numbers: list[int] = []
        self.last: Any = None
        self.joined = False
        self.answers: list[Answer] = []
        self.refusals: list[str] = []
        self.errors = 0
        self.closes: list[int | None] = []
        self._user = user
        self._topic = topic
        self._heard = heard
        self._urls: Callable[[], str] = str
        self._refs = count(1)
        self._join_ref = ""
        self._task: asyncio.Task[None] | None = None

    async def go(self, *replicas: GatewayProcess | str, wait: bool = True) -> Answer:
        """Leave whatever replica it is on, and join on these, the first first; returns the answer."""
        await self.stop()
        urls = cycle(r if isinstance(r, str) else r.socket_url for r in replicas)
        self._urls = lambda: next(urls)
        before = len(self.answers)
        self._task = asyncio.create_task(self._run())
        if wait:
            await eventually(lambda: len(self.answers) > before, WITHIN_SECONDS, "an ok reply")
            return self.answers[before]
        return {}

    async def stop(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def until(self, numbers: Sequence[int], within: float = WITHIN_SECONDS) -> None:
        """Wait for the last of these; it and those before it must be all that came."""
        await eventually(
            lambda: self.numbers[-1:] == [numbers[-1]] or len(self.numbers) > len(numbers),
            within,
            f"number {numbers[-1]}",
        )
        assert self.numbers == list(numbers)

    async def _run(self) -> None:
        while True:
            query = urlencode({"vsn": "2.0.0", "token": token(self._user)})
            try:
                async with connect(
                    f"{self._urls()}?{query}", proxy=None, ping_interval=None, close_timeout=0.1
                ) as socket:
                    await self._join(socket)
                    async for data in socket:
                        await self._take(socket, json.loads(data))
                self.closes.append(socket.close_code)
            except ConnectionClosed as closed:
                self.closes.append(closed.rcvd.code if closed.rcvd else None)
            except (OSError, InvalidHandshake, EOFError):
                pass
            self.joined = False
            await asyncio.sleep(AGAIN_SECONDS)

    async def _join(self, socket: Any) -> None:
        self.joined = False
        self._join_ref = ref = str(next(self._refs))
        join = [ref, ref, self._topic, "phx_join", {"resume": self.last}]
        await socket.send(json.dumps(join))

    async def _take(self, socket: Any, frame: list[Any]) -> None:
        _, ref, topic, event, payload = frame
        if topic != self._topic:
            return
        if event == "phx_reply" and ref == self._join_ref:
            if payload["status"] == "ok":
                self.last = payload["response"]["position"]
                self.joined = True
                self.answers.append(payload["response"])
            else:
                self.refusals.append(payload["response"]["reason"])
                await asyncio.sleep(AGAIN_SECONDS)
                await self._join(socket)
        elif event == "phx_error":
            self.errors += 1
            await self._join(socket)
        elif isinstance(ref, str) and ref.startswith("@"):
            self.last = ref
            if event == "n":
                self.numbers.append(payload["n"])
                self._heard(payload["n"])


class Pouring:
    """Publishes 1, 2, 3 and so on, each until it is taken, to replicas in turn.

    What is taken is stored in this order: no number is sent before the one before it was taken.

    Attributes:
        number: The last that was taken.
        statuses: Of all answers that were no 202.
    """

    def __init__(self, *replicas: GatewayProcess, pause: float = 0.005) -> None:
        self._replicas: tuple[GatewayProcess, ...] = replicas
        self._pause = pause
        self._task: asyncio.Task[None] | None = None
        self.number = 0
        self.statuses: list[int] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def more(self, numbers: int) -> None:
        """Wait until so many more were taken."""
        wanted = self.number + numbers
        await eventually(lambda: self.number >= wanted, WITHIN_SECONDS, f"{numbers} more taken")

    async def stop(self) -> list[int]:
        """Publish no more; returns all that were taken."""
        assert self._task is not None
        self._replicas = ()
        await self._task
        return list(range(1, self.number + 1))

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            backends = [await stack.enter_async_context(Backend(r)) for r in self._replicas]
            turns = cycle(backends)
            settled = True
            while self._replicas or not settled:
                settled = await self._publish(next(turns), self.number + 1) == 202
                self.number += settled
                await asyncio.sleep(self._pause if settled else AGAIN_SECONDS)

    async def _publish(self, backend: Backend, number: int) -> int:
        body = {"topic": ROOM, "event": "n", "payload": {"n": number}, "id": f"n{number}"}
        try:
            async with asyncio.timeout(10):
                status, _ = await backend.post("/v1/publish", body)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            status = 0
        if status != 202:
            self.statuses.append(status)
        return status


def recovered(position: str) -> Answer:
    """The answer to a position from which on nothing is missing."""
    return {"recovered": True, "reason": None, "position": position}


def lost(reason: str, position: str) -> Answer:
    """The answer to a position that nothing is replayed from."""
    return {"recovered": False, "reason": reason, "position": position}


async def publish(replica: GatewayProcess, *numbers: int, topic: str = ROOM) -> list[str]:
    """Publish numbers that must be taken; returns their positions."""
    positions = []
    async with Backend(replica) as backend:
        for number in numbers:
            body = {"topic": topic, "event": "n", "payload": {"n": number}}
            status, answer = await backend.post("/v1/publish", body)
            assert status == 202, answer
            positions.append(answer["results"][0]["position"])
    return positions


async def have_taken(replica: GatewayProcess, *numbers: int) -> None:
    """Publish numbers, each until it is taken: the servers may be about to elect a leader."""
    async with Backend(replica) as backend:

        async def taken(number: int) -> bool:
            body = {"topic": ROOM, "event": "n", "payload": {"n": number}, "id": f"n{number}"}
            status, answer = await backend.post("/v1/publish", body)
            assert status in (202, 503, 504), answer
            return status == 202

        for number in numbers:
            await eventually(partial(taken, number), WITHIN_SECONDS, f"{number} is taken")


async def kept(replica: GatewayProcess, topic: str = ROOM) -> list[int]:
    """All numbers that are stored, as the API reads them."""
    async with Backend(replica) as backend:
        status, page = await backend.get(f"/v1/topics/{topic}/history?limit=1000")
        assert status == 200, page
        assert page["next"] is None
        return [item["payload"]["n"] for item in page["items"]]


class SlowReader:
    """A client that reads no more than it is told to, so that a replay waits for it.

    Attributes:
        numbers: What it got, in order.
        last: The last position it knows.
        answer: Of its last join.
        errors: How often its channel was ended by ``phx_error``.
    """

    BUFFER_BYTES = 16_384

    def __init__(self, connection: ClientConnection) -> None:
        self._socket = connection
        self._refs = count(1)
        self._join_ref = ""
        self.numbers: list[int] = []
        self.last: Any = None
        self.answer: Answer = {}
        self.errors = 0

    @classmethod
    async def connect(cls, replica: GatewayProcess) -> Self:
        """Open a socket whose kernel takes little beyond what is read."""
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, cls.BUFFER_BYTES)
        tcp.connect(("127.0.0.1", replica.public_port))
        tcp.setblocking(False)
        query = urlencode({"vsn": "2.0.0", "token": token("slow")})
        url = f"{replica.socket_url}?{query}"
        return cls(
            await connect(url, sock=tcp, proxy=None, ping_interval=None, max_queue=1, max_size=None)
        )

    async def join(self, resume: Any) -> Answer:
        """Join; returns the answer, and reads nothing after it."""
        self._join_ref = ref = str(next(self._refs))
        await self._socket.send(json.dumps([ref, ref, ROOM, "phx_join", {"resume": resume}]))
        self.answer = {}
        await self._read(lambda: bool(self.answer))
        return self.answer

    async def read(self, count: int) -> None:
        """Read until it has so many numbers."""
        await self._read(lambda: len(self.numbers) == count)

    async def until(self, number: int) -> None:
        """Read until a number comes."""
        await self._read(lambda: self.numbers[-1:] == [number])

    async def until_error(self) -> None:
        """Read until the channel is ended by ``phx_error``."""
        await self._read(lambda: self.errors == 1)

    async def _read(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not enough():
                _, ref, topic, event, payload = json.loads(await self._socket.recv())
                if event == "phx_reply" and ref == self._join_ref:
                    assert payload["status"] == "ok", payload
                    self.answer = payload["response"]
                    self.last = self.answer["position"]
                elif event == "phx_error":
                    self.errors += 1
                elif topic == ROOM and isinstance(ref, str) and ref.startswith("@"):
                    self.last = ref
                    if event == "n":
                        self.numbers.append(payload["n"])

    def cut(self) -> None:
        """Lose the connection, with all that was not read yet."""
        self._socket.transport.abort()


async def publish_many(replica: GatewayProcess, numbers: range, size: int) -> None:
    """Publish numbers with so many bytes each."""
    filler = "x" * size
    async with Backend(replica) as backend:
        for start in range(numbers.start, numbers.stop, 100):
            messages = [
                {"topic": ROOM, "event": "n", "payload": {"n": n, "filler": filler}, "id": f"m{n}"}
                for n in numbers[start - numbers.start : start - numbers.start + 100]
            ]
            status, answer = await backend.post("/v1/publish/batch", {"messages": messages})
            assert status == 202, answer
            # its messages are stored side by side, so each must say that it is
            assert all(item.get("results") for item in answer["results"]), answer
