"""What is fuzzed, and how input reaches it; an input is bytes, so that one can be kept as a file."""

import asyncio
import contextlib
import json
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import jwt

from gateway.api.openapi import document
from gateway.auth.tokens import TokenVerifier
from gateway.bus.stream_position import stream_position_in
from gateway.config import AuthSettings, load_config
from gateway.errors import ConfigError, TokenError
from tests.fuzz.inputs import TEXT, Inputs, wrapped
from tests.fuzz.replica import KEY, Broken, Neighbour, Replica, replica
from tests.support.client import PhoenixClient
from tests.support.tokens import SECRET, token

ANSWER_SECONDS = 30.0
CONFIG = Path(__file__).parents[2] / "config/gateway.toml"

Feed = Callable[[Sequence[bytes]], Awaitable[None]]
"""Takes some inputs; raises :class:`Broken` when something did not hold."""


class Target(ABC):
    """Something that takes input from others.

    Attributes:
        name: Of the folder of its vectors, too.
        size: Inputs of a full run.
        short: Inputs of the run in ``make test``.
        each: Inputs that are fed before anybody looks whether all is well.
    """

    name: str
    size: int
    short: int
    each: int = 50

    @abstractmethod
    def make(self, inputs: Inputs) -> bytes:
        """One input."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Feed]:
        """What takes input."""


class Frames(Target):
    """Bytes of WebSocket clients, whose messages are of one version of the protocol.

    The first byte of an input is where it begins: 0 on a socket that has joined nothing.
    """

    each = 200

    def __init__(self, version: int, size: int, short: int) -> None:
        self.name = f"frames-v{version}"
        self.size, self.short = size, short
        self._version = version

    def make(self, inputs: Inputs) -> bytes:
        joined = inputs.chance.random() < 0.8
        return bytes((joined,)) + inputs.frame(self._version)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Feed]:
        async with replica() as found, Neighbour(found, "room:1", "kept:1", "shown:1") as neighbour:

            async def feed(inputs: Sequence[bytes]) -> None:
                for joined in (0, 1):
                    data = [each[1:] for each in inputs if each[:1] == bytes((joined,))]
                    await self._speak(found, data, joined=bool(joined))
                await neighbour.check()
                found.check()

            yield feed

    async def _speak(self, found: Replica, data: Sequence[bytes], *, joined: bool) -> None:
        """Send it all, on one socket after another, as each is closed for what it says."""
        waiting = list(data)
        while waiting:
            client = await _Client.connect(found, self._version)
            if joined:
                for topic in ("room:1", "kept:1", "shown:1"):
                    client.write(wrapped(TEXT, _join(topic, self._version)))
            while waiting and not client.ended:
                # some at a time: what is sent behind the close of a socket is not looked at
                part, waiting = waiting[:8], waiting[8:]
                client.write(b"".join(part))
                await asyncio.sleep(0)
            await client.end()


class _Client(asyncio.Protocol):
    """A WebSocket that throws away what it gets."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._over = asyncio.get_running_loop().create_future()
        self._upgraded = asyncio.get_running_loop().create_future()
        self._head = b""

    @classmethod
    async def connect(cls, found: Replica, version: int) -> "_Client":
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(cls, "127.0.0.1", found.public)
        client._transport = transport
        query = urlencode({"vsn": f"{version}.0.0", "token": token("fuzz")})
        client.write(
            f"GET /socket/websocket?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        async with asyncio.timeout(ANSWER_SECONDS):
            await client._upgraded
        return client

    @property
    def ended(self) -> bool:
        return self._over.done()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def end(self) -> None:
        """Have all of it read, and go."""
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # it may have been reset just now
                self._transport.write_eof()
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._over

    def data_received(self, data: bytes) -> None:
        if self._upgraded.done():
            if (
                data[:1] == b"\x88" and not self.ended
            ):  # a close frame at the beginning of what came
                self._over.set_result(None)
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            assert self._head.startswith(b"HTTP/1.1 101"), self._head
            self._upgraded.set_result(None)

    def connection_lost(self, problem: Exception | None) -> None:
        if not self.ended:
            self._over.set_result(None)
        if not self._upgraded.done():
            self._upgraded.set_exception(problem or EOFError())


def _join(topic: str, version: int) -> bytes:
    if version == 1:
        return json.dumps({"topic": topic, "event": "phx_join", "payload": {}, "ref": "1"}).encode()
    return json.dumps(["1", "1", topic, "phx_join", {}]).encode()


class Batches(Target):
    """Bodies of clients that poll: the first byte says whether it is a batch or one message."""

    name, size, short = "batches", 20_000, 300

    def make(self, inputs: Inputs) -> bytes:
        return bytes((inputs.chance.random() < 0.9,)) + inputs.batch()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Feed]:
        async with replica() as found, Neighbour(found, "room:1", "kept:1") as neighbour:

            async def feed(inputs: Sequence[bytes]) -> None:
                async with _Http(found.public) as http:
                    path = await self._session(http)
                    for each in inputs:
                        kind = "application/x-ndjson" if each[:1] == b"\x01" else "application/json"
                        status, _, _ = await http.ask(
                            "POST", path, each[1:], {"Content-Type": kind}
                        )
                        if status >= 500:
                            raise Broken(f"{status} for a batch")
                        if status == 410:
                            path = await self._session(http)
                await neighbour.check()
                found.check()

            yield feed

    async def _session(self, http: "_Http") -> str:
        """The path of a new one, which has joined a topic."""
        query = urlencode({"vsn": "2.0.0", "token": token("fuzz")})
        _, _, body = await http.ask("GET", f"/socket/longpoll?{query}")
        ticket = json.loads(body)["token"]
        path = f"/socket/longpoll?{query}&{urlencode({'token': ticket})}"
        await http.ask("POST", path, _join("room:1", 2), {"Content-Type": "application/x-ndjson"})
        return path


class _Http:
    """A connection that asks one thing after another, and is made anew when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer.

        Raises:
            Broken: There is none.
        """
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._writer is None:
                    self._reader, self._writer = await asyncio.open_connection(
                        "127.0.0.1", self._port
                    )
                self._writer.write(request)
                return await self._answer()
        except (OSError, asyncio.IncompleteReadError) as problem:
            raise Broken(f"no answer to {method} {path}: {problem!r}") from problem

    async def _answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self._close()
        return int(start.split()[1]), headers, body

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


class Envelopes(Target):
    """What comes from the bus: a line with the subject's number and a position's, then the body."""

    name, size, short = "envelopes", 100_000, 2_000

    def __init__(self) -> None:
        filters = b'{"exclude":["s"],"exclude_devices":["d"],"device_types":["phone"]}'
        self._corpus = [
            _envelope(b"say", b'{"x":1}'),
            _envelope(b"say", b'{"x":1}', meta=filters),
            _envelope(b"say", b"\x00\x01", kind=2),
            _envelope(b"phx_close", b"{}"),
            _envelope(b"e" * 300, b"{}"),
            _envelope(b"e" * 300, b"x", kind=2),
            _envelope(b"say", b"[]"),
            _envelope(b"say", b'{"x":"\xff"}'),
            _envelope(b"say", b"{"),
            *(bytes((1, kind)) for kind in range(12)),
        ]

    def make(self, inputs: Inputs) -> bytes:
        chance = inputs.chance
        head = [chance.randrange(8), chance.choice((0, 0, 1, 2, chance.randrange(10)))]
        return b"%d %d\n" % (*head,) + inputs.near(self._corpus)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Feed]:
        async with replica() as found, Neighbour(found, "room:1", "kept:1", "shown:1") as neighbour:
            self._learn(found)
            client = await PhoenixClient.connect(found.url, token("fuzz"))
            for topic in ("shown:1", "kept:1", "user:fuzz"):
                await client.join(topic)
            await client.ask("kept:1", "say", {})

            async def feed(inputs: Sequence[bytes]) -> None:
                for each in inputs:
                    self._send(found, each)
                await asyncio.sleep(0)
                await neighbour.check()
                client.inbox.clear()
                found.check()

            yield feed
            await client.close()

    def _subjects(self, found: Replica) -> list[str]:
        subjects = found.gateway._relay._subjects
        topics = [
            subjects.topic(t) for t in ("room:1", "kept:1", "shown:1", "user:fuzz", "user:quiet")
        ]
        return [*topics, subjects.replicas, subjects.replica("fuzzed"), "gateway.unheard.1"]

    def _learn(self, found: Replica) -> None:
        """Take what replicas say to each other for models, too."""
        send = found.bus.exchange.send

        def learn(subject: str, body: bytes, **more: Any) -> None:
            # under its own name a later process would speak, and it would end as it should
            model = body.replace(b"fuzzed", b"others")
            if len(self._corpus) < 200 and model not in self._corpus:
                self._corpus.append(model)
            send(subject, body, **more)

        setattr(found.bus.exchange, "send", learn)  # noqa: B010 -- it listens, and passes on

    def _send(self, found: Replica, data: bytes) -> None:
        head, _, body = data.partition(b"\n")
        number, offset = map(int, head.split())
        subjects = self._subjects(found)
        subject = subjects[number % len(subjects)]
        headers = (
            f"NATS/1.0\r\nNats-Subject: {subject.replace('.topic.', '.store.')}\r\n"
            f"Nats-Sequence: {offset}\r\n"
            f"Nats-Time-Stamp: 2026-08-06T00:29:27Z\r\nNats-Last-Sequence: {offset - 1}\r\n\r\n"
        )
        position = stream_position_in(headers.encode()) if offset else None
        type(found.bus.exchange).send(found.bus.exchange, subject, body, position=position)


def _envelope(event: bytes, payload: bytes, *, meta: bytes = b"", kind: int = 1) -> bytes:
    """Its bytes, whatever is in it; see :mod:`gateway.bus.envelope`."""
    return struct.pack(">BBdHI", 1, kind, 1.0, len(event), len(meta)) + event + meta + payload


class Tokens(Target):
    """Tokens: mutated, or with any claims and well signed; the first byte says which."""

    name, size, short, each = "tokens", 200_000, 4_000, 500

    def make(self, inputs: Inputs) -> bytes:
        chance = inputs.chance
        if chance.random() < 0.5:
            return b"\x00" + inputs.mutated(token("fuzz").encode())
        claims = {
            "sub": "fuzz",
            "iat": 0,
            "exp": 2**32,
            "topics": ["room:*"],
            "device": {"id": "d"},
        }
        for _ in range(chance.randrange(3)):
            name = chance.choice((*claims, "nbf", "aud", "iss", "jti", "max_sessions", "presence"))
            claims[name] = inputs.value()
        body = json.dumps(claims).encode()
        return b"\x01" + (body if chance.random() < 0.8 else inputs.mutated(body))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Feed]:
        settings = AuthSettings(secrets=(SECRET,), max_token_seconds=2**33)
        verifier = TokenVerifier(settings, ("team",), max_user_bytes=200, max_presence_bytes=1000)

        async def feed(inputs: Sequence[bytes]) -> None:
            for each in inputs:
                text = each[1:].decode("latin-1")
                if each[:1] == b"\x01":
                    text = jwt.api_jws.encode(each[1:], SECRET, "HS256")
                try:
                    await verifier.verify(text)
                except TokenError:
                    continue
                except Exception as problem:
                    raise Broken(f"a token raised {problem!r}") from problem
                self._genuine(text)

        yield feed

    def _genuine(self, text: str) -> None:
        """What is taken, another implementation takes as well."""
        try:
            jwt.api_jws.decode(text, SECRET, ["HS256"])
        except jwt.PyJWTError as problem:
            raise Broken(f"a token was taken that nobody signed: {problem}") from problem


class Configurations(Target):
    """Files of the configuration."""

    name, size, short = "configurations", 5_000, 100

    def __init__(self) -> None:
        self._corpus = [
            CONFIG.read_bytes(),
            b'[[channels]]\npattern = "room:*"\nhistory = { messages = 1, seconds = 1 }\n',
            b'[auth]\nsecrets = ["x"]\n[[api.keys]]\nname = "a"\nkey = "b"\nscopes = ["read"]\n',
            b'[bus]\nurl = "nats://u:p@h:1,tls://h"\n[server]\npublic = "[::1]:4000"\n',
        ]

    def make(self, inputs: Inputs) -> bytes:
        return inputs.near(self._corpus)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Feed]:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "gateway.toml"

            async def feed(inputs: Sequence[bytes]) -> None:
                for each in inputs:
                    file.write_bytes(each)
                    try:
                        load_config(file, environ={})
                    except ConfigError:
                        continue
                    except Exception as problem:
                        raise Broken(f"a configuration raised {problem!r}") from problem

            yield feed


class Calls(Target):
    """Calls of the HTTP API: one line of method, path and media type, then the body.

    They are made of the OpenAPI document: its paths, parameters and schemas, with values that fit and values
    that do not.
    """

    name, size, short, each = "calls", 100_000, 1_500, 50

    LEFT_OUT = ("drain", "tail")
    """Paths with these in them would end the replica, or are answered without an end."""

    def __init__(self) -> None:
        self._document: Any = document()
        self._operations = [
            (method.upper(), path, operation)
            for path, operations in self._document["paths"].items()
            for method, operation in operations.items()
            if not any(word in path for word in self.LEFT_OUT)
        ]

    def make(self, inputs: Inputs) -> bytes:
        chance = inputs.chance
        method, path, operation = chance.choice(self._operations)
        query = []
        for parameter in operation.get("parameters", ()):
            value = self._text(inputs)
            if parameter["in"] == "path":
                path = path.replace(
                    f"{{{parameter['name']}}}", quote(value, safe="", errors="surrogatepass")
                )
            elif parameter["in"] == "query" and chance.random() < 0.5:
                query.append((parameter["name"], value))
        if query:
            path += "?" + urlencode(query, errors="surrogatepass")
        body, media = b"", "application/json"
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"][media]["schema"]
            body = json.dumps(self._fitting(inputs, schema)).encode()
            if chance.random() < 0.3:
                body = inputs.mutated(body)
            media = chance.choice(
                (media, media, media, media, "text/plain", "", "application/json; charset=x")
            )
        if chance.random() < 0.02:
            path = inputs.mutated(path.encode()).decode("latin-1")
            path = "".join(c for c in path if c.isprintable() and c != " ") or "/"
            path = quote(path, safe="/%?&=")
        if not path.startswith("/"):
            path = "/" + path
        return f"{method} {path} {media}\n".encode() + body

    def _text(self, inputs: Inputs) -> str:
        chance = inputs.chance
        odd = ("1", "0", "-1", "1000", "@a.1.1", "{guid}", "a/b", "..")
        known = ("room:1", "kept:1", "fuzz", *odd)
        return chance.choice(known) if chance.random() < 0.7 else inputs.word() or "x"

    def _fitting(self, inputs: Inputs, schema: Any) -> Any:
        """A value that a schema takes, but for one part in ten."""
        chance = inputs.chance
        if chance.random() < 0.1:
            return inputs.value()
        if "$ref" in schema:
            found: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return self._fitting(inputs, found)
        for several in ("anyOf", "oneOf"):
            if several in schema and "properties" not in schema:
                return self._fitting(inputs, chance.choice(schema[several]))
        if "enum" in schema:
            return chance.choice(schema["enum"])
        match schema.get("type"):
            case "object" if "properties" in schema:
                required = schema.get("required", ())
                return {
                    name: self._fitting(inputs, each)
                    for name, each in schema["properties"].items()
                    if chance.random() < (0.95 if name in required else 0.4)
                }
            case "array":
                return [self._fitting(inputs, schema["items"]) for _ in range(chance.randrange(4))]
            case "string":
                return chance.choice((self._text(inputs), "room:1", "say", "2026-01-02T03:04:05Z"))
            case "integer" | "number":
                return chance.choice((0, 1, -1, 2**64, 0.5))
            case "boolean":
                return chance.random() < 0.5
            case "object":
                return {inputs.word(): inputs.value()}
            case _:
                return inputs.value()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Feed]:
        async with (
            replica() as found,
            Neighbour(found, "room:1", "kept:1") as neighbour,
            _Http(found.internal) as http,
        ):

            async def feed(inputs: Sequence[bytes]) -> None:
                for each in inputs:
                    await self._call(http, each)
                await neighbour.check()
                found.check()

            yield feed

    async def _call(self, http: _Http, data: bytes) -> None:
        line, _, body = data.partition(b"\n")
        method, path, media = line.decode().split(" ", 2)
        headers = {"Authorization": f"Bearer {KEY}"} | ({"Content-Type": media} if media else {})
        status, answered, said = await http.ask(method, path, body, headers)
        if status >= 500:
            raise Broken(f"{status} for {method} {path}: {said[:200]!r}")
        if status >= 400 and answered.get("content-type") != "application/problem+json":
            raise Broken(f"{status} of {answered.get('content-type')} for {method} {path}")


TARGETS: tuple[Target, ...] = (
    Frames(2, 700_000, 9_000),
    Frames(1, 300_000, 3_000),
    Batches(),
    Envelopes(),
    Tokens(),
    Configurations(),
    Calls(),
)
