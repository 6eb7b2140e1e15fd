"""More clients than descriptors: the replica says so, and goes on with what it needs."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

DESCRIPTORS: Final = 128

FEW: Final = (
    f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}));"
    "from gateway.cli import main; main()"
)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """One that may have so many."""
    process = GatewayProcess(tmp_path / "gateway", command=("-c", FEW))
    process.start()
    yield process
    process.kill()


async def test_clients_cannot_take_the_last_descriptors(gateway: GatewayProcess) -> None:
    member = await PhoenixClient.connect(gateway.socket_url, token())
    with ExitStack() as crowd:
        taken = [
            crowd.enter_context(socket.create_connection(("127.0.0.1", gateway.public_port)))
            for _ in range(2 * DESCRIPTORS)
        ]
        await eventually(
            lambda: (
                gateway.metric("connects_total", result="refused", reason="descriptor_limit") > 0
            )
        )
        taken[-1].settimeout(30)
        assert taken[-1].recv(100).startswith(b"HTTP/1.1 503 ")
        assert gateway.get("/livez")[0] == 200
        status, report = gateway.get("/readyz")
        assert (status, b"descriptor_limit" in report) == (503, True)
        assert (await member.join("room:1"))[4]["status"] == "ok"
    assert gateway.metric("descriptors_exhausted_total") == 0
    warnings = [line for line in gateway.log_lines() if line.get("reason") == "descriptor_limit"]
    assert [line["level"] for line in warnings[:1]] == ["warning"]
    assert len(warnings) < DESCRIPTORS

    await eventually(lambda: gateway.get("/readyz")[0] == 200)
    newcomer = await PhoenixClient.connect(gateway.socket_url, token())
    assert (await newcomer.join("room:1"))[4]["status"] == "ok"
    await newcomer.close()
    await member.close()
