"""The AsyncAPI document of a running gateway: the official parser takes it, and what is said fits it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.npm import install
from tests.support.asyncapi import Document, validator
from tests.support.client import Frame, PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.upstream import UpstreamServer, says
from tests.support.waiting import eventually

NODE = Path(__file__).parent / "node"
CHANNELS = [
    {"pattern": "room:*", "push": "broadcast", "presence": True},
    {"pattern": "count:*", "presence": "count"},
    {"pattern": "kept:*", "push": "broadcast", "history": {"messages": 5, "seconds": 300}},
    {"pattern": "quiet:*", "history": {"messages": 5, "seconds": 2}},
    {"pattern": "asked:*", "join": "upstream"},
]


@pytest.fixture(scope="module")
def upstream() -> UpstreamServer:
    """Not started."""
    return UpstreamServer()


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: UpstreamServer
) -> Iterator[GatewayProcess]:
    """A gateway with a channel rule of each kind."""
    config = {"channels": CHANNELS, "upstream": upstream.section()}
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), config)
    process.start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def document(gateway: GatewayProcess) -> Document:
    """What it says of its socket."""
    described: Document = json.loads(gateway.get("/asyncapi.json")[1])
    return described


@pytest.mark.slow
def test_the_official_parser_finds_nothing(node: str, document: Document) -> None:
    install(NODE)

    done = subprocess.run(
        [node, "asyncapi.mjs"],
        cwd=NODE,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
    )

    found = [line for line in done.stdout.splitlines() if "asyncapi-latest-version" not in line]
    assert (done.returncode, found, done.stderr) == (0, [], "")


class Recorded(PhoenixClient):
    """A client that keeps all it sent and got, as it was on the wire."""

    def __init__(self, *arguments: Any) -> None:
        self.sent: list[str | bytes] = []
        self.got: list[str | bytes] = []
        super().__init__(*arguments)

    def _decode(self, data: str | bytes) -> Frame | bytes:
        self.got.append(data)
        return super()._decode(data)

    async def send(self, data: str | bytes) -> None:
        self.sent.append(data)
        await super().send(data)


async def converse(client: Recorded, other: PhoenixClient) -> None:
    """Say, and be told, everything there is."""
    await client.heartbeat()
    for room in ("room:1", "count:1", "kept:1", "quiet:1"):
        await client.join(room, {"resume": None})
    await client.join("asked:1")
    await client.join("nowhere")
    await client.ask("count:1", "message")
    await other.join("room:1")
    await client.ask("room:1", "message", {"text": "hi"})
    await client.ask("room:1", "presence_update", {"status": "away"})
    await client.ask("kept:1", "message", {"text": "hi"})
    position = (await client.expect(lambda frame: frame[2:4] == ["kept:1", "message"]))[1]
    await client.join("kept:1", {"resume": position})
    await client.join("kept:2", {"resume": {"last": 3}})
    for fresh in (token(), "none"):
        await client.ask("phoenix", "access_token", {"access_token": fresh})
    for event in ("presence_state", "presence_diff", "presence_count", "position"):
        await client.expect(lambda frame, event=event: frame[3] == event)  # type: ignore[misc]
    if client.vsn == "2.0.0":
        fields = [client._join_refs["room:1"].encode(), b"b", b"room:1", b"blob"]
        await client.send(bytes([0, *map(len, fields)]) + b"".join(fields) + b"\xff\x00")
        await client.reply("b")
        await eventually(lambda: any(isinstance(frame, bytes) for frame in client.inbox))
    await client.leave("room:1")


class Described:
    """The document's words for the frames of one version."""

    def __init__(self, document: Document, version: str) -> None:
        self._document = document
        self._version = version
        self.operations = {
            name.removesuffix(version): operation
            for name, operation in document["operations"].items()
            if name.endswith(version)
        }

    def names(self, action: str) -> list[str]:
        """Of what the gateway sends or receives."""
        return [name for name, each in self.operations.items() if each["action"] == action]

    def replies(self, name: str) -> list[str]:
        """What a frame may be answered with."""
        references = self.operations[name]["reply"]["messages"]
        return [reference["$ref"].rpartition("/")[2] for reference in references]

    def kind(self, data: str | bytes, among: list[str]) -> str:
        """Which of some kinds a frame is."""
        if isinstance(data, bytes):
            return next(name for name in among if name.startswith("binary"))
        messages = self._document["components"]["messages"]
        for name in among:
            schema = messages[f"{name}{self._version}"]["payload"]
            if schema.get("format") != "binary" and validator(self._document, schema).is_valid(
                json.loads(data)
            ):
                return name
        raise AssertionError(f"the document has no such frame: {data!r}")


@pytest.mark.parametrize(("version", "vsn"), [("V1", "1.0.0"), ("V2", "2.0.0")])
async def test_what_is_said_fits_the_document(
    gateway: GatewayProcess, upstream: UpstreamServer, document: Document, version: str, vsn: str
) -> None:
    upstream.answers["gateway.join"] = says({"reason": "not a member"}, 403)
    described = Described(document, version)
    other = await PhoenixClient.connect(gateway.socket_url, token("43"))
    client = await Recorded.connect(gateway.socket_url, token(), vsn=vsn)
    assert isinstance(client, Recorded)
    async with upstream:
        await converse(client, other)
        await other.close()
        await client.close()

    asked: dict[Any, str] = {}
    for data in client.sent:
        name = described.kind(data, described.names("receive"))
        asked["b" if isinstance(data, bytes) else client._decode(data)[1]] = name
    heard = set()
    for data in client.got[: len(client.inbox)]:
        frame = client._decode(data)
        answer = isinstance(frame, list) and frame[3] == "phx_reply"
        among = described.replies(asked[frame[1]]) if answer else described.names("send")
        heard.add(described.kind(data, among))

    assert set(asked.values()) == set(described.names("receive"))
    # nothing goes wrong here of which a client is told by "error"
    assert heard == set(described.names("send")) - {"error"}
