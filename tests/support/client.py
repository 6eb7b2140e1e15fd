"""A small Phoenix Channels client for tests: raw where it must be, convenient where it may be."""

import asyncio
import json
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import WITHIN_SECONDS, eventually

Frame = list[Any]
"""``[join_ref, ref, topic, event, payload]``; in version 1 join_ref is always None."""


class PhoenixClient:
    """One socket; every frame goes into :attr:`inbox` as it comes.

    Attributes:
        inbox: All frames so far, decoded; binary ones as bytes.
        close_code: What the connection was closed with; None while it is open.
        unreadable: The frame that was none; after it no other is read.
    """

    def __init__(self, connection: ClientConnection, vsn: str) -> None:
        self.connection = connection
        self.vsn = vsn
        self.inbox: list[Frame | bytes] = []
        self.close_code: int | None = None
        self.unreadable: str | bytes | None = None
        self._refs = count(1)
        self._join_refs: dict[str, str] = {}
        self._news = asyncio.Event()
        self._taken = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls,
        url: str,
        token: str | None = None,
        *,
        vsn: str = "2.0.0",
        params: dict[str, str] | None = None,
        **options: Any,
    ) -> "PhoenixClient":
        """Open a socket; raises ``websockets.InvalidStatus`` when it is refused."""
        query = {"vsn": vsn} | ({"token": token} if token else {}) | (params or {})
        usual = {"ping_interval": None, "compression": None, "max_size": None}
        options = usual | {"open_timeout": WITHIN_SECONDS} | options
        connection = await connect(f"{url}?{urlencode(query)}", proxy=None, **options)
        return cls(connection, vsn)

    async def _read(self) -> None:
        try:
            async for data in self.connection:
                self.unreadable = data
                self.inbox.append(self._decode(data))
                self.unreadable = None
                self._news.set()
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:
            # its test failed; what it leaves open would fail another test, in which it is collected
            self.connection.transport.abort()
            raise
        finally:
            self.close_code = self.connection.close_code
            self._news.set()

    def _decode(self, data: str | bytes) -> Frame | bytes:
        if isinstance(data, bytes):
            return data
        value = json.loads(data)
        if isinstance(value, dict):
            return [None, value["ref"], value["topic"], value["event"], value["payload"]]
        frame: Frame = value
        return frame

    async def send(self, data: str | bytes) -> None:
        """Send a frame as it is."""
        await self.connection.send(data)

    async def send_frame(
        self, join_ref: Any, ref: Any, topic: Any, event: Any, payload: Any
    ) -> None:
        """Send a message in this socket's version."""
        if self.vsn.startswith("2"):
            await self.send(json.dumps([join_ref, ref, topic, event, payload]))
        else:
            fields = {"topic": topic, "event": event, "payload": payload, "ref": ref}
            await self.send(json.dumps(fields | {"join_ref": join_ref}))

    async def join(self, topic: str, params: Any = None) -> Frame:
        """Join and return the reply."""
        ref = str(next(self._refs))
        await self.send_frame(ref, ref, topic, "phx_join", params or {})
        reply = await self.reply(ref)
        if reply[4]["status"] == "ok":
            self._join_refs[topic] = ref
        return reply

    async def enter(self, topic: str) -> Frame:
        """Join as phoenix.js does, again where the bus was too slow, and return the ok reply."""
        busy = {"reason": "bus unavailable"}
        replies: list[Frame] = []

        async def decided() -> bool:
            replies.append(await self.join(topic))
            return bool(replies[-1][4]["response"] != busy)

        await eventually(decided)
        assert replies[-1][4]["status"] == "ok", replies[-1]
        return replies[-1]

    async def push(self, topic: str, event: str, payload: Any = None) -> str:
        """Push without waiting; returns the ref."""
        ref = str(next(self._refs))
        await self.send_frame(self._join_refs.get(topic), ref, topic, event, payload or {})
        return ref

    async def ask(self, topic: str, event: str, payload: Any = None) -> Frame:
        """Push and return the reply."""
        return await self.reply(await self.push(topic, event, payload))

    async def leave(self, topic: str) -> Frame:
        """Leave and return the reply."""
        reply = await self.ask(topic, "phx_leave")
        self._join_refs.pop(topic, None)
        return reply

    async def heartbeat(self) -> Frame:
        """Send a heartbeat and return its reply."""
        ref = str(next(self._refs))
        await self.send_frame(None, ref, "phoenix", "heartbeat", {})
        return await self.reply(ref)

    async def reply(self, ref: Any, within: float = WITHIN_SECONDS) -> Frame:
        """The reply to a ref."""
        return await self.expect(
            lambda frame: frame[3] == "phx_reply" and frame[1] == ref, within, f"a reply to {ref}"
        )

    async def expect(
        self, wanted: Callable[[Frame], bool], within: float = WITHIN_SECONDS, what: str = ""
    ) -> Frame:
        """The first frame of the inbox, old or yet to come, for which ``wanted`` holds."""
        seen = 0
        async with asyncio.timeout(within):
            while True:
                self._news.clear()
                for frame in self.inbox[seen:]:
                    if isinstance(frame, list) and wanted(frame):
                        return frame
                seen = len(self.inbox)
                if self.close_code is not None:
                    raise AssertionError(f"closed with {self.close_code} before {what}")
                await self._news.wait()

    def events(self, topic: str, event: str) -> list[Any]:
        """Payloads of all broadcasts of an event so far."""
        return [
            frame[4]
            for frame in self.inbox
            if isinstance(frame, list) and frame[2] == topic and frame[3] == event
        ]

    async def closed(self, within: float = WITHIN_SECONDS) -> int:
        """The close code, once the server has closed."""
        async with asyncio.timeout(within):
            await self._reader
        assert self.close_code is not None
        return self.close_code

    async def close(self) -> None:
        """Close from this side."""
        await self.connection.close()
        await self._reader
