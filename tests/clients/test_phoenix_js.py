"""The phoenix package of four generations, as published, in Node.js."""

from itertools import count

import pytest

from tests.clients.conftest import CHANNELS, Drive
from tests.clients.driver import Seen
from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token

VERSIONS = ["phoenix-1.4", "phoenix-1.6", "phoenix-1.7", "phoenix-1.8"]
WIRES = [pytest.param(False, id="v2"), pytest.param(True, id="v1")]

GREETING = "grüß Gott 🙂"
TEXT = {"text": GREETING, "n": 1}

each_version = pytest.mark.parametrize("package", VERSIONS)
_numbers = count(1)


def room() -> str:
    """A topic no other test uses."""
    return f"room:js-{next(_numbers)}"


def params() -> dict[str, str]:
    """Connect parameters of a known user."""
    return {"token": token()}


@each_version
async def test_a_token_in_the_params_is_accepted(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    client = await drive(package, "join", gateway, topic=room(), params=params())

    assert await client.finish() == [{"saw": "open"}, {"saw": "joined", "response": {}}]


@pytest.mark.parametrize("package", ["phoenix-1.8"])  # the first to have authToken
async def test_an_auth_token_is_accepted(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    client = await drive(package, "join", gateway, topic=room(), authToken=token())

    assert await client.finish() == [{"saw": "open"}, {"saw": "joined", "response": {}}]


@pytest.mark.parametrize(
    ("topic", "reason"), [("room:1", "unauthorized"), ("other:1", "unmatched topic")]
)
@each_version
async def test_a_refused_join_says_why(
    drive: Drive, gateway: GatewayProcess, package: str, topic: str, reason: str
) -> None:
    client = await drive(package, "refused", gateway, topic=topic)

    assert await client.finish() == [{"saw": "refused", "answer": {"reason": reason}}]


@pytest.mark.parametrize("v1", WIRES)
@each_version
async def test_a_push_is_answered_and_reaches_both_clients(
    drive: Drive, gateway: GatewayProcess, package: str, v1: bool
) -> None:
    client = await drive(package, "talk", gateway, topic=room(), params=params(), v1=v1)

    assert await client.finish() == [
        {"saw": "reply", "response": {}},
        {"saw": "echo", "payload": TEXT},
        {"saw": "heard", "payload": TEXT},
    ]


@pytest.mark.parametrize("package", VERSIONS[1:])  # the first is older than binary messages
async def test_bytes_reach_both_clients_as_they_are(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    client = await drive(package, "binary", gateway, topic=room(), params=params())

    everything = list(range(256))
    assert await client.finish() == [
        {"saw": "reply", "response": {}},
        {"saw": "echo", "buffer": True, "bytes": everything},
        {"saw": "heard", "buffer": True, "bytes": everything},
    ]


@pytest.mark.parametrize("v1", WIRES)
@each_version
async def test_who_left_hears_nothing_more(
    drive: Drive, gateway: GatewayProcess, package: str, v1: bool
) -> None:
    client = await drive(package, "leave", gateway, topic=room(), params=params(), v1=v1)

    assert await client.finish() == [{"saw": "left"}, {"saw": "afterwards", "heard": 0}]


@each_version
async def test_a_second_join_replaces_the_first(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    client = await drive(package, "duplicate", gateway, topic=room(), params=params())

    assert await client.finish() == [{"saw": "first closed"}, {"saw": "second heard", "times": 1}]


@pytest.mark.parametrize("v1", WIRES)
@each_version
async def test_heartbeats_are_answered(
    drive: Drive, gateway: GatewayProcess, package: str, v1: bool
) -> None:
    client = await drive(
        package,
        "heartbeat",
        gateway,
        topic=room(),
        params=params(),
        heartbeatIntervalMs=100,
        v1=v1,
    )

    answer = {"saw": "heartbeat", "payload": {"status": "ok", "response": {}}}
    assert await client.finish() == [answer] * 3


@each_version
async def test_what_a_backend_publishes_arrives_in_order(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    topic = "news:" + room()
    client = await drive(package, "listen", gateway, topic=topic)
    await client.expect("joined")
    async with Backend(gateway) as backend:
        for n in range(10):
            assert await backend.publish(topic, "said", {"n": n}) == 202
        await backend.publish(topic, "end", {})

    seen = await client.finish()

    assert [item["payload"] for item in seen[1:]] == [{"n": n} for n in range(10)]


@pytest.mark.parametrize(
    ("killed", "code"), [(False, 1012), (True, 1006)], ids=["drained", "killed"]
)
async def test_clients_come_back_by_themselves_to_a_gateway_that_restarts(
    drive: Drive, start_gateway: StartGateway, killed: bool, code: int
) -> None:
    gateway = start_gateway({"channels": CHANNELS})
    topic = room()
    clients = [
        await drive(package, "listen", gateway, topic=topic, params=params())
        for package in VERSIONS
    ]

    async def all_see(what: str) -> list[Seen]:
        return [await client.expect(what) for client in clients]

    await all_see("joined")
    async with Backend(gateway) as backend:
        await backend.publish(topic, "said", {"text": "before"})
        await all_see("said")
        if killed:
            gateway.kill()
        else:
            gateway.terminate()
            assert gateway.wait() == 0
        assert {seen["code"] for seen in await all_see("closed")} == {code}
        gateway.start()
        await all_see("joined")
        await backend.publish(topic, "said", {"text": "after"})
        await backend.publish(topic, "end", {})

    for client in clients:
        seen = await client.finish()
        texts = [item["payload"]["text"] for item in seen if item["saw"] == "said"]
        assert texts == ["before", "after"]


@pytest.mark.parametrize("v1", WIRES)
async def test_what_is_long_goes_compressed_both_ways(
    drive: Drive, start_gateway: StartGateway, v1: bool
) -> None:
    """The package ws offers it, and compresses what is longer than a kilobyte."""
    gateway = start_gateway({"compression": {"enabled": True}, "channels": CHANNELS})
    client = await drive(
        "phoenix-1.8", "talk", gateway, topic=room(), params=params(), v1=v1, times=200
    )
    said = {"text": GREETING * 200, "n": 1}

    assert await client.finish() == [
        {"saw": "reply", "response": {}},
        {"saw": "echo", "payload": said},
        {"saw": "heard", "payload": said},
    ]
    before = gateway.metric("compression_before_bytes_total")
    assert before > 2000
    assert 0 < gateway.metric("compression_after_bytes_total") < before / 4
