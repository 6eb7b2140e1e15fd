"""Clients of either transport and version that do what a sequence says, and what each of them saw.

What they saw is normalised: messages are lists of five whatever the version, binary ones have
``{"binary": hex}`` for a payload, and presence is who is there after a step, not how it was said.
"""

import asyncio
import base64
import contextlib
import json
import re
import uuid
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp

from tests.differential.sequences import HERE, TOKEN, Message, Step
from tests.support.tokens import token
from tests.support.waiting import WITHIN_SECONDS

BARRIER = "barrier"
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
Seen = list[Message]


class Client:
    """One client, connected again when a sequence says so.

    Attributes:
        inbox: Messages since the step before.
        shown: How many of them were seen.
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, client: list[str], nonce: str
    ) -> None:
        self.transport, self.vsn, user = client
        self.inbox: Seen = []
        self.shown = 0
        self._rosters: dict[str, dict[str, dict[str, Any]]] = {}  # metas by user and phx_ref
        self._http, self._url, self._nonce = http, url.rstrip("/"), nonce
        self._token = token(user)
        self._news = asyncio.Event()
        self._answered: set[Any] = set()
        self._open = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._ticket = ""
        self._reader: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Open a connection or session, in the place of the one before."""
        await self.close()
        query = {"vsn": self.vsn, "token": self._token}
        self._open = True
        if self.transport == "websocket":
            url = f"{self._url}/websocket?{urlencode(query)}"
            self._socket = await self._http.ws_connect(url, autoclose=True, max_msg_size=0)
            self._reader = asyncio.create_task(self._read(self._socket))
        else:
            self._ticket = ""
            answer = await self._request("GET")
            assert answer["status"] == 410, answer
            self._ticket = answer["token"]
            self._reader = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Cut it off."""
        self._open = False
        self._rosters.clear()
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def do(self, kind: str, value: Any) -> None:
        """One step."""
        if kind == "reconnect":
            await self.connect()
        elif not self._open:
            return
        elif kind == "binary":
            parts = [self._here(str(part)).encode() for part in value[:4]]
            lengths = bytes([0, *map(len, parts)])
            await self._send(lengths + b"".join(parts) + bytes.fromhex(value[4]))
        elif kind == "raw":
            await self._send(value)
        else:
            await self._send(self._here(self._text(value)))

    async def barrier(self, number: int) -> None:
        """Returns when what the server sent before this heartbeat's answer is here."""
        ref = f"{BARRIER} {number}"
        if self._open:
            await self._send(self._text([None, ref, "phoenix", "heartbeat", {}]))
        async with asyncio.timeout(WITHIN_SECONDS):
            while self._open and ref not in self._answered:
                self._news.clear()
                await self._news.wait()

    def _here(self, text: str) -> str:
        return text.replace(HERE, self._nonce).replace(f'"{TOKEN}"', f'"{self._token}"')

    def _text(self, message: Message) -> str:
        if self.vsn.startswith("2"):
            return json.dumps(message)
        names = ("join_ref", "ref", "topic", "event", "payload")
        return json.dumps(dict(zip(names, message, strict=True)))

    async def _send(self, data: str | bytes) -> None:
        if self._socket is not None:
            send = self._socket.send_bytes if isinstance(data, bytes) else self._socket.send_str
            with contextlib.suppress(ConnectionError):
                await send(data)  # type: ignore[arg-type]  # each takes what it was chosen for
            return
        media = "application/json"
        if isinstance(data, bytes):
            media, data = "application/x-ndjson", base64.b64encode(data).decode()
        answer = await self._request("POST", data=data.encode(), headers={"Content-Type": media})
        if answer["status"] != 200:
            self._ended(answer["status"])

    async def _request(self, method: str, **options: Any) -> dict[str, Any]:
        query = {"vsn": self.vsn, "token": self._token}
        if self._ticket:
            query = {"vsn": self.vsn, "token": self._ticket}
        url = f"{self._url}/longpoll?{urlencode(query)}"
        async with self._http.request(method, url, **options) as response:
            text = await response.text()
            answer: dict[str, Any] = {"status": response.status}
            return answer | (json.loads(text) if text.startswith("{") else {})

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            self._take(frame.data)
        self._ended(socket.close_code)

    async def _poll(self) -> None:
        while self._open:
            answer = await self._request("GET")
            if answer["status"] not in (200, 204):
                self._ended(answer["status"])
                return
            self._ticket = answer["token"]
            for text in answer["messages"]:
                self._take(text)

    def _ended(self, code: int | None) -> None:
        if self._open:
            self._open = False
            self.inbox.append([None, None, None, "closed", code])
        self._news.set()

    def _take(self, data: str | bytes) -> None:
        if isinstance(data, str) and data[:1] not in ("[", "{"):
            data = data.encode()  # bytes that a server put into the JSON of a poll
        message = _from_bytes(data) if isinstance(data, bytes) else _from_text(data)
        message = json.loads(JWT.sub(TOKEN, json.dumps(message).replace(self._nonce, HERE)))
        _, ref, topic, event, payload = message
        if event == "presence_state":
            self._rosters[topic] = {}
            self._present(topic, payload, {})
        elif event == "presence_diff":
            self._present(topic, payload["joins"], payload["leaves"])
        elif str(ref).startswith(BARRIER):
            self._answered.add(ref)
        else:
            if event in ("phx_close", "phx_error"):
                self._rosters.pop(topic, None)
            self.inbox.append(message)
        self._news.set()

    def _present(self, topic: str, joins: dict[str, Any], leaves: dict[str, Any]) -> None:
        """As phoenix.js does; what comes before the state is in it."""
        if (roster := self._rosters.get(topic)) is None:
            return
        for user, entry in leaves.items():
            for meta in entry["metas"]:
                roster.get(user, {}).pop(meta["phx_ref"], None)
        for user, entry in joins.items():
            for meta in entry["metas"]:
                roster.setdefault(user, {})[meta["phx_ref"]] = meta

    def seen(self) -> Seen:
        """Messages, and for each topic one of who is present, without refs and times."""
        self.shown = len(self.inbox)
        ignored = ("phx_ref", "phx_ref_prev", "online_at")
        present = []
        for topic, roster in sorted(self._rosters.items()):
            users = {
                user: sorted(
                    (
                        {k: v for k, v in meta.items() if k not in ignored}
                        for meta in metas.values()
                    ),
                    key=json.dumps,
                )
                for user, metas in sorted(roster.items())
                if metas
            }
            present.append([None, None, topic, "presence", users])
        return [*self.inbox, *present]


def _from_text(text: str) -> Message:
    value = json.loads(text)
    if isinstance(value, dict):
        return [None, value["ref"], value["topic"], value["event"], value["payload"]]
    message: Message = value
    return message


def _from_bytes(data: bytes) -> Message:
    """A broadcast; Phoenix.Socket.V2.JSONSerializer."""
    if data[0] != 2:
        return [None, None, None, "bytes", data.hex()]
    middle = 3 + data[1]
    end = middle + data[2]
    topic, event = data[3:middle].decode(), data[middle:end].decode()
    return [None, None, topic, event, {"binary": data[end:].hex()}]


class Live:
    """The clients of one sequence at a server.

    Args:
        url: Of its socket, as ``http://127.0.0.1:4000/socket``.
        clients: Transport, version and user of each.
        settle: Seconds to wait after a step for what no heartbeat waits for: in Phoenix
            channels are processes of their own, and the socket answers before them.
    """

    def __init__(self, url: str, clients: list[list[str]], settle: float = 0.0) -> None:
        self._settle = settle
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        nonce = f"-{uuid.uuid4().hex[:8]}"
        self.clients = [Client(self._http, url, client, nonce) for client in clients]
        self._barriers = 0

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(client.connect() for client in self.clients))
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await client.close()
        await self._http.close()

    async def do(self, step: Step) -> None:
        """Have a client do something, and wait for all to have what comes of it."""
        for client in self.clients:
            del client.inbox[: client.shown]
        who, kind, value = step
        await self.clients[who].do(kind, value)
        await self._all_here()
        if self._settle:
            await asyncio.sleep(self._settle)
            await self._all_here()

    async def _all_here(self) -> None:
        self._barriers += 1
        await asyncio.gather(*(client.barrier(self._barriers) for client in self.clients))

    def seen(self) -> list[Seen]:
        """What each client saw since the step before."""
        return [client.seen() for client in self.clients]
