"""The phoenix package as published, in Node.js: what `tests/matrix` does not play with every client."""

from itertools import count

import pytest

from tests.clients.conftest import CHANNELS, Drive
from tests.conftest import StartGateway
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token

VERSIONS = ["phoenix-1.4", "phoenix-1.6", "phoenix-1.7", "phoenix-1.8"]
WIRES = [pytest.param(False, id="v2"), pytest.param(True, id="v1")]

GREETING = "grüß Gott 🙂"

each_version = pytest.mark.parametrize("package", VERSIONS)
_numbers = count(1)


def room() -> str:
    """A topic no other test uses."""
    return f"room:js-{next(_numbers)}"


def params() -> dict[str, str]:
    """Connect parameters of a known user."""
    return {"token": token()}


@pytest.mark.parametrize("package", ["phoenix-1.8"])  # the first to have authToken
async def test_an_auth_token_is_accepted(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    client = await drive(package, "join", gateway, topic=room(), authToken=token())

    assert await client.finish() == [{"saw": "open"}, {"saw": "joined", "response": {}}]


@each_version
async def test_a_second_join_replaces_the_first(
    drive: Drive, gateway: GatewayProcess, package: str
) -> None:
    client = await drive(package, "duplicate", gateway, topic=room(), params=params())

    assert await client.finish() == [{"saw": "first closed"}, {"saw": "second heard", "times": 1}]


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
