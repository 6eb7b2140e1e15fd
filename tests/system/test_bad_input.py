"""Hostile and clumsy input: each a clear answer, and everything alive afterwards."""

import asyncio
import base64
import io
import json
import time
from typing import Any

import aiohttp
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.tokens import SECRET, token
from tests.support.waiting import eventually

ROOM = "room:1"
NOW = int(time.time())
SECRET_WORD = "hunter2-in-a-payload"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One gateway for the whole module: it has to live through all of it."""
    keys = [
        {"name": "all", "key": API_KEY, "scopes": ["publish", "read", "manage"]},
        {"name": "reader", "key": "reader-key", "scopes": ["read"]},
    ]
    process = GatewayProcess(
        tmp_path_factory.mktemp("gateway"),
        {"api": {"keys": keys}, "limits": {"max_message_bytes": 4096}},
    )
    process.start()
    yield process
    assert process.running()
    process.kill()


@pytest.fixture
async def pair(gateway: GatewayProcess) -> Any:
    """An attacker and a bystander in one room; the bystander must notice nothing."""
    attacker = await PhoenixClient.connect(gateway.socket_url, token("attacker"))
    bystander = await PhoenixClient.connect(gateway.socket_url, token("bystander"))
    await attacker.join(ROOM)
    await bystander.join(ROOM)
    before = len(bystander.inbox)
    yield attacker, bystander
    assert bystander.close_code is None
    assert bystander.inbox[before:] == []
    assert (await bystander.heartbeat())[4]["status"] == "ok"
    await attacker.close()
    await bystander.close()


FORGED = [
    "phx_close",
    "phx_error",
    "phx_reply",
    "phx_x",
    "chan_reply_1",
    "presence_state",
    "presence_diff",
]


@pytest.mark.parametrize("event", FORGED)
async def test_a_member_cannot_forge_an_event(
    pair: tuple[PhoenixClient, PhoenixClient], event: str
) -> None:
    attacker, _ = pair

    reply = await attacker.ask(ROOM, event, {"reason": "forged"})

    assert reply[4] == {"status": "error", "response": {"reason": "push not allowed"}}


@pytest.mark.parametrize("event", FORGED)
async def test_a_backend_cannot_forge_an_event(
    gateway: GatewayProcess, pair: tuple[PhoenixClient, PhoenixClient], event: str
) -> None:
    async with Backend(gateway) as backend:
        status, problem = await backend.post(
            "/v1/publish", {"topic": ROOM, "event": event, "payload": {}}
        )

    assert status == 422
    assert problem["errors"][0]["field"] == "event"
    assert pair[0].close_code is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ('["1","9","room:1"]', "malformed"),
        ('["1","9","room:1",5,{}]', "malformed"),
        ('["1","9","room:1","m","text"]', "malformed"),
        ('["1","9","room:1","m",[1]]', "malformed"),
        ('["1","9","room:1","m",null]', "malformed"),
        (json.dumps(["1", "9", "room:" + "x" * 300, "phx_join", {}]), "malformed"),
        (json.dumps(["1", "9", ROOM, "x" * 300, {}]), "malformed"),
        ('["1","9",42,"phx_join",{}]', "unmatched topic"),
        ('["1","9","nowhere","phx_join",{}]', "unmatched topic"),
        ('["1","9","room:2","m",{}]', "unmatched topic"),
        ('["1","9","phoenix","phx_join",{}]', "unmatched topic"),
    ],
)
async def test_a_bad_frame_is_answered_with_its_reason(
    pair: tuple[PhoenixClient, PhoenixClient], frame: str, reason: str
) -> None:
    attacker, _ = pair
    await attacker.send(frame)

    reply = await attacker.reply("9")

    assert reply[4] == {"status": "error", "response": {"reason": reason}}
    assert (await attacker.heartbeat())[4]["status"] == "ok"


@pytest.mark.parametrize(
    "frame",
    [
        "not json",
        "",
        "null",
        "{}",
        '"s"',
        "[" * 2000,
        '["1","9","room:1","m",{"a":tru}]',
        b"\x01\x00",
        b"",
    ],
)
async def test_noise_is_counted_and_the_socket_lives(
    gateway: GatewayProcess, pair: tuple[PhoenixClient, PhoenixClient], frame: str | bytes
) -> None:
    attacker, _ = pair
    before = gateway.metric("malformed_frames_total")
    await attacker.send(frame)

    assert (await attacker.heartbeat())[4]["status"] == "ok"
    assert gateway.metric("malformed_frames_total") == before + 1


async def test_ten_malformed_frames_end_the_socket(
    pair: tuple[PhoenixClient, PhoenixClient],
) -> None:
    attacker, _ = pair
    for _ in range(9):
        await attacker.send("noise")
    assert (await attacker.heartbeat())[4]["status"] == "ok"
    await attacker.send("noise")

    assert await attacker.closed() == 1008


async def test_a_frame_above_the_limit_ends_the_socket(
    pair: tuple[PhoenixClient, PhoenixClient],
) -> None:
    attacker, _ = pair
    await attacker.send(json.dumps(["1", "9", ROOM, "m", {"x": "x" * 5000}]))

    assert await attacker.closed() == 1009


async def test_text_that_is_not_utf8_ends_the_socket(
    gateway: GatewayProcess, pair: tuple[PhoenixClient, PhoenixClient]
) -> None:
    attacker, _ = pair
    await attacker.connection.send(b'["1","9","room:1","m",{"a":"\xff"}]', text=True)

    assert await attacker.closed() == 1007
    assert gateway.running()


async def test_a_hundred_and_first_channel_is_refused(
    pair: tuple[PhoenixClient, PhoenixClient],
) -> None:
    attacker, _ = pair
    for number in range(2, 101):
        assert (await attacker.join(f"room:{number}"))[4]["status"] == "ok"

    reply = await attacker.join("room:101")

    assert reply[4]["response"] == {"reason": "too many channels joined"}


def raw_token(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A token without a signature."""
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


CLAIMS = {"sub": "42", "iat": NOW, "exp": NOW + 3600}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "no_token"),
        ("garbage", "token_malformed"),
        (token(ttl=-60, iat=NOW - 120), "token_expired"),
        (token(secret="another secret, but long enough for HS256"), "token_signature"),
        (jwt.encode(CLAIMS, SECRET * 2, "HS512"), "token_algorithm"),
        (raw_token({"alg": "none"}, CLAIMS), "token_algorithm"),
        (raw_token({"alg": "RS256"}, CLAIMS) + "c2ln", "token_algorithm"),
        (token(sub=""), "token_claims"),
        (token(ttl=10**7), "token_lifetime"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "token",
)
async def test_a_bad_token_is_refused_and_the_metric_says_why(
    gateway: GatewayProcess, bad: str | None, reason: str
) -> None:
    before = gateway.metric("connects_total", result="refused", reason=reason)
    with pytest.raises(InvalidStatus) as refused:
        await PhoenixClient.connect(gateway.socket_url, bad)

    assert refused.value.response.status_code == 403
    assert gateway.metric("connects_total", result="refused", reason=reason) == before + 1


@pytest.mark.parametrize(
    "vsn", ["3.0.0", "2.1.0", "1.5.0", "2.0", "2", "abc", "", "2.0.0-rc", " 2.0.0"]
)
async def test_an_unknown_version_is_refused(gateway: GatewayProcess, vsn: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await PhoenixClient.connect(gateway.socket_url, token(), vsn=vsn)

    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1.evil.example", "null"]
)
async def test_a_foreign_page_is_refused(gateway: GatewayProcess, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await PhoenixClient.connect(gateway.socket_url, token(), origin=origin)

    assert refused.value.response.status_code == 403
    assert gateway.metric("connects_total", result="refused", reason="origin") >= 1
    lines = [line for line in gateway.log_lines() if line.get("reason") == "origin"]
    assert all(line["allow_with"] == "server.allowed_origins" and line["origin"] for line in lines)
    assert lines, "once a second"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"Authorization": f"Basic {API_KEY}"}, 401),
        ({"X-API-Key": "reader-key"}, 403),
        ({"Authorization": "Bearer reader-key"}, 403),
    ],
)
async def test_publishing_needs_a_key_with_the_scope(
    gateway: GatewayProcess,
    pair: tuple[PhoenixClient, PhoenixClient],
    headers: dict[str, str],
    status: int,
) -> None:
    body = {"topic": ROOM, "event": "m", "payload": {}}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{gateway.internal_url}/v1/publish", json=body) as response,
    ):
        assert response.status == status
        assert response.content_type == "application/problem+json"
        assert (await response.json(content_type=None))["status"] == status
    assert pair[1].close_code is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"\xff\xfe", 400),
        (b'{"topic":"room:1","event":"m","payload":{"a":"\xff"}}', 400),
        (b'{"topic":"room:1","event":"m","payload":' + b"[" * 100_000, 400),
        (b"[]", 422),
        (b'{"event":"m","payload":{}}', 422),
        (b'{"topic":"room:1","event":"m","payload":"text"}', 422),
        (b'{"topic":"room:1","topics":["room:2"],"event":"m","payload":{}}', 422),
        (b'{"topic":"nowhere","event":"m","payload":{}}', 422),
        (b'{"topic":"phoenix","event":"m","payload":{}}', 422),
        (b'{"topic":"room:' + b"x" * 300 + b'","event":"m","payload":{}}', 422),
        (b'{"topic":"room:1","event":"m","payload":{"x":"' + b"x" * 5000 + b'"}}', 413),
        (b"x" * (17 * 1024 * 1024), 413),
    ],
)
async def test_a_bad_body_is_a_problem(gateway: GatewayProcess, body: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{gateway.internal_url}/v1/publish", data=io.BytesIO(body)) as response,
    ):
        assert response.status == status
        assert response.content_type == "application/problem+json"
    async with Backend(gateway) as backend:
        assert await backend.publish("room:alive", "m", {}) == 202


@pytest.mark.parametrize(
    "path",
    [
        "/v1/publish",
        "/metrics",
        "/livez",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/console",
        "/",
        "/demo",
    ],
)
async def test_nothing_internal_is_on_the_public_port(gateway: GatewayProcess, path: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.public_url}{path}") as response,
    ):
        assert response.status == 404
        assert "Server" not in response.headers


async def test_without_keys_the_api_answers_401_and_the_start_says_so(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"api": {"keys": []}})
    async with Backend(gateway) as backend:
        assert await backend.publish(ROOM, "m", {}) == 401

    assert "api.keys" in gateway.full_log()


async def test_no_secret_and_no_payload_is_in_the_log(start_gateway: StartGateway) -> None:
    """At its most talkative: good and bad tokens and keys, payloads, and requests aiohttp chokes on."""
    gateway = start_gateway({"log": {"format": "json", "level": "debug"}})
    good, bad = token("42"), token(secret="another secret, but long enough for HS256")
    client = await PhoenixClient.connect(gateway.socket_url, good)
    await client.join(ROOM, {"password": SECRET_WORD})
    await client.ask(ROOM, "m", {"body": SECRET_WORD})
    await client.send(f'["1","9","room:1","{SECRET_WORD}"')
    with pytest.raises(InvalidStatus):
        await PhoenixClient.connect(gateway.socket_url, bad)
    encoded = base64.b64encode(good.encode()).decode().rstrip("=")
    offer = f"base64url.bearer.phx.{encoded}"
    bearer = await PhoenixClient.connect(
        gateway.socket_url, additional_headers={"Sec-WebSocket-Protocol": offer}
    )
    async with Backend(gateway) as backend:
        await backend.publish(ROOM, "m", {"body": SECRET_WORD})
        await backend.post("/v1/publish", {"topic": ROOM, "event": 1, "payload": SECRET_WORD})
    async with Backend(gateway, key="wrong-key-of-somebody") as stranger:
        await stranger.publish(ROOM, "m", {"body": SECRET_WORD})
    for port in (gateway.public_port, gateway.internal_port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /?token={good} HTTP/9.9\r\nbad header {SECRET_WORD}\r\n\r\n".encode())
        await writer.drain()
        writer.close()
    await eventually(lambda: gateway.metric("messages_delivered_total") >= 2)
    await client.close()
    await bearer.close()
    gateway.terminate()
    await asyncio.to_thread(gateway.wait)

    log = gateway.full_log()
    for secret in (good, bad, encoded, SECRET, API_KEY, SECRET_WORD, "wrong-key-of-somebody"):
        assert secret not in log, log[max(0, log.find(secret) - 200) : log.find(secret) + 100]
    assert log.count("\n") > 3
