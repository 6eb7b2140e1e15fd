"""The Python package in ``clients/``, against a real gateway."""

import asyncio
import re
import runpy
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway as package
from gateway.device import Device
from gateway.upstream.call import Call, body
from gateway_client import (
    AsyncGateway,
    Callback,
    Gateway,
    InvalidSignature,
    OutcomeUnknown,
    Refused,
    Unavailable,
    mint_token,
    verify,
)
from tests.backends.test_receivers import FORGED
from tests.support import webhooks
from tests.support.client import PhoenixClient
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import SECRET
from tests.support.upstream import SECRET as WEBHOOK_SECRET
from tests.support.upstream import UpstreamServer

ROOT = Path(package.__file__).parents[1]
PACKAGE = ROOT / "clients/python"
CHANNELS = [
    {"pattern": "room:*", "push": "broadcast"},
    {"pattern": "asked:*", "join": "upstream"},
    {"pattern": "named:*", "join": "token"},
]
MESSAGE: Any = {"event": "message", "payload": {"text": "grüß Gott 🙂"}}


@pytest.fixture(scope="module")
def upstream() -> UpstreamServer:
    """Not started."""
    return UpstreamServer()


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: UpstreamServer
) -> Iterator[GatewayProcess]:
    """A gateway that asks a backend."""
    config = {"channels": CHANNELS, "upstream": upstream.section()}
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), config)
    process.start()
    yield process
    process.kill()


async def said(client: PhoenixClient, event: str) -> Any:
    """The payload of a message, once it has come."""
    return (await client.expect(lambda frame: frame[3] == event))[4]


async def test_what_is_published_arrives_at_who_has_a_minted_token(gateway: GatewayProcess) -> None:
    device: Any = {"id": "d1", "type": "phone"}
    client = await PhoenixClient.connect(
        gateway.socket_url, mint_token(SECRET, "ada", topics=["named:*"], device=device)
    )
    await client.enter("named:1")

    url = gateway.internal_url + "/"
    with Gateway(url, key=API_KEY) as backend:
        answer = await asyncio.to_thread(backend.publish, topic="named:1", id="m1", **MESSAGE)
        assert answer == {"id": "m1", "results": [{"topic": "named:1", "position": None}]}
        assert await said(client, "message") == MESSAGE["payload"]
    async with AsyncGateway(url, key=API_KEY) as asynchronous:
        await asynchronous.publish(topic="named:1", event="twice", payload={})
        assert await said(client, "twice") == {}
    await client.close()


async def test_a_token_is_refused_with_another_secret_or_after_its_end(
    gateway: GatewayProcess,
) -> None:
    for token in (mint_token("x" * 40, "ada"), mint_token(SECRET, "ada", ttl_seconds=-100)):
        with pytest.raises(Exception, match="403"):
            await PhoenixClient.connect(gateway.socket_url, token)


async def test_the_next_replica_is_asked(gateway: GatewayProcess) -> None:
    urls = (f"http://127.0.0.1:{free_port()}", gateway.internal_url)
    with Gateway(*urls, key=API_KEY) as backend:
        publish = partial(backend.publish, topic="room:1", **MESSAGE)
        assert (await asyncio.to_thread(publish))["results"]
    async with AsyncGateway(*urls, key=API_KEY) as asynchronous:
        assert (await asynchronous.publish(topic="room:1", **MESSAGE))["results"]


@pytest.mark.parametrize(
    ("key", "message", "kind"),
    [
        (API_KEY, {"topic": "room:1", "event": "phx_close", "payload": {}}, "reserved-name"),
        (API_KEY, {"event": "message", "payload": {}}, "invalid"),
        ("unknown", {"topic": "room:1"} | MESSAGE, "unauthorized"),
    ],
)
async def test_a_refusal_has_the_problem(
    gateway: GatewayProcess, key: str, message: Any, kind: str
) -> None:
    async with AsyncGateway(gateway.internal_url, key=key) as backend:
        with pytest.raises(Refused, match=r"HTTP 4\d\d: \w") as refused:
            await backend.publish(**message)

    assert refused.value.problem["type"] == f"urn:gateway:problem:{kind}"
    assert refused.value.problem["status"] == refused.value.status


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", Unavailable),
        (b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n", OutcomeUnknown),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", Refused),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", OutcomeUnknown),
        (b"", OutcomeUnknown),
    ],
    ids=["503", "504", "404", "200", "none"],
)
async def test_what_is_no_answer_says_whether_to_repeat(
    answer: bytes, error: type[Exception]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncGateway(url, key=API_KEY) as backend:
            with pytest.raises(error):
                await backend.publish(topic="room:1", **MESSAGE)


def test_a_gateway_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="URL"):
        Gateway(key=API_KEY)


async def test_a_callback_of_the_gateway_is_believed(
    gateway: GatewayProcess, upstream: UpstreamServer
) -> None:
    async with upstream:
        client = await PhoenixClient.connect(gateway.socket_url, mint_token(SECRET, "ada"))
        await client.enter("asked:1")
        await client.close()
    [call] = [call for call in upstream.calls if call.type == "gateway.join"]

    callback = verify(call.raw, call.headers, WEBHOOK_SECRET)
    assert (callback["type"], callback["user"]) == ("gateway.join", "ada")
    assert callback["topic"] == "asked:1"


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_callback_is_not_believed(forge: Callable[[], webhooks.Callback]) -> None:
    forged = forge()

    with pytest.raises(InvalidSignature):
        verify(forged.body, forged.headers, webhooks.SECRET)


def test_one_good_signature_of_several_is_enough() -> None:
    both = webhooks.OTHER_SECRET, webhooks.SECRET
    signed = webhooks.Callback(webhooks.join("ada"), secrets=both)

    for secrets in (both, both[:1], both[1:]):
        assert verify(signed.body, signed.headers, *secrets)["user"] == "ada"
    with pytest.raises(InvalidSignature):
        verify(signed.body, signed.headers)


def test_a_callback_has_the_fields_of_the_code() -> None:
    everything = Call(
        *("gateway.push", "s1", "ada", Device(id="d1")), topic="room:1", event="e", payload=b"{}",
        params=b"{}", replica="r", sessions=1,
    )  # fmt: skip
    fields = re.findall(rb'"(\w+)":', body(everything).replace(b'{"id":"d1"}', b"{}"))

    assert {field.decode() for field in fields} == Callback.__annotations__.keys()


def test_its_types_are_those_of_the_document() -> None:
    generator = runpy.run_path(str(PACKAGE / "generate.py"))

    assert generator["generated"]() == generator["FILE"].read_text(), (
        "run clients/python/generate.py"
    )


def test_a_wheel_has_its_types_and_the_gateways_version(tmp_path: Path) -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel")
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", PACKAGE, source], check=True)  # it would be built in
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("gateway_client/")}

    kept = PACKAGE.glob("gateway_client/*.*")
    assert packed == {f"gateway_client/{path.name}" for path in kept if path.is_file()}
    assert project["version"] == package.__version__


async def test_the_backend_in_the_guide_works(
    gateway: GatewayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (ROOT / "docs/backends.md").read_text().split("\n## In Python\n")[1]
    [code] = re.findall(
        r"^```python\n(.*?)^```$", section.split("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    (tmp_path / "backend.py").write_text(code)
    for name, value in {
        "GATEWAY_APIS": gateway.internal_url,
        "GATEWAY_API_KEY": API_KEY,
        "GATEWAY_TOKEN_SECRET": SECRET,
        "WEBHOOK_SECRET": webhooks.SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    backend = runpy.run_path(str(tmp_path / "backend.py"))
    transport = httpx.ASGITransport(backend["app"])

    async with httpx.AsyncClient(transport=transport, base_url="http://backend") as http:
        token = (await http.get("/token")).json()
        client = await PhoenixClient.connect(gateway.socket_url, token)
        await client.enter("room:general")
        assert (await http.post("/images/7")).status_code == 201
        assert await said(client, "image") == {"url": "/images/7"}
        await client.close()
        for callback, status in (
            (webhooks.Callback(webhooks.join("ada")), 204),
            (webhooks.Callback(webhooks.join(None)), 403),
            (webhooks.Callback(webhooks.join("ada"), age_seconds=time.time()), 401),
        ):
            answer = await http.post("/gateway", content=callback.body, headers=callback.headers)
            assert answer.status_code == status
    await backend["gateway"].aclose()
