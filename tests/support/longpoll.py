"""A long-poll client for tests: each request when the test wants it, on whichever replica."""

import asyncio
import io
import json
from itertools import count
from typing import Any, Protocol, Self

import aiohttp

NDJSON = "application/x-ndjson"

Frame = list[Any]
"""``[join_ref, ref, topic, event, payload]``."""


class Listener(Protocol):
    """A gateway, or a proxy in front of some."""

    @property
    def public_url(self) -> str:
        """Where clients connect."""


class PollClient:
    """One session of version 2; every message goes into :attr:`inbox` as it comes.

    Args:
        gateway: Where requests go that say nothing else.
        token: Of its user.
        params: More of its query.

    Attributes:
        ticket: The token of the last answer; empty before there is one.
        statuses: Of all polls so far.
    """

    def __init__(
        self,
        gateway: Listener,
        token: str | None = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.gateway = gateway
        self.ticket = ""
        self.inbox: list[Frame] = []
        self.statuses: list[int] = []
        self._params = [*({"vsn": "2.0.0"} | (params or {})).items()]
        if token is not None:
            self._params.append(("token", token))
        self._http = aiohttp.ClientSession(headers=headers)
        self._refs = count(1)
        self._join_refs: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def request(
        self, method: str, gateway: Listener | None = None, **options: Any
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """HTTP status, body and headers."""
        params = [*self._params, *([("token", self.ticket)] if self.ticket else [])]
        url = f"{(gateway or self.gateway).public_url}/socket/longpoll"
        async with self._http.request(method, url, params=params, **options) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else {}, dict(response.headers)

    async def poll(self, gateway: Listener | None = None) -> int:
        """One poll; returns its status."""
        _, answer, _ = await self.request("GET", gateway)
        if "token" in answer:
            self.ticket = answer["token"]
        self.inbox += [json.loads(text) for text in answer.get("messages", [])]
        self.statuses.append(answer["status"])
        return self.statuses[-1]

    async def post(
        self,
        body: str | bytes | io.BytesIO,
        gateway: Listener | None = None,
        media: str = NDJSON,
    ) -> int:
        """One POST; returns its status."""
        _, answer, _ = await self.request(
            "POST", gateway, data=body, headers={"Content-Type": media}
        )
        status: int = answer["status"]
        return status

    async def push(
        self, topic: str, event: str, payload: Any = None, gateway: Listener | None = None
    ) -> str:
        """Say something; returns its ref."""
        ref = str(next(self._refs))
        if event == "phx_join":
            self._join_refs[topic] = ref
        frame = [self._join_refs.get(topic), ref, topic, event, payload or {}]
        assert await self.post(json.dumps(frame), gateway) == 200
        return ref

    async def until(
        self, event: str, ref: str | None = None, gateway: Listener | None = None
    ) -> Frame:
        """Poll until a message is there, old or new."""
        seen = 0
        async with asyncio.timeout(30):
            while True:
                for frame in self.inbox[seen:]:
                    if frame[3] == event and ref in (None, frame[1]):
                        return frame
                seen = len(self.inbox)
                assert await self.poll(gateway) in (200, 204)

    async def join(self, topic: str, params: Any = None) -> dict[str, Any]:
        """Open a session, if there is none, join, and return the reply's payload."""
        if not self.ticket:
            assert await self.poll() == 410
        ref = await self.push(topic, "phx_join", params)
        reply: dict[str, Any] = (await self.until("phx_reply", ref))[4]
        return reply

    def heard(self, event: str) -> list[Any]:
        """Payloads of all messages of an event so far."""
        return [frame[4] for frame in self.inbox if frame[3] == event]
