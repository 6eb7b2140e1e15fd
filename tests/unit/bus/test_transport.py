"""The TCP connection to a NATS server, on the event loop the gateway runs on."""

import asyncio
from urllib.parse import urlparse

import pytest
import uvloop

from gateway.bus.client import NatsClient, Transport


def test_what_is_written_to_a_connection_that_is_gone_is_passed_over() -> None:
    """nats-py's reader tells of the loss; until then subscribers and publishers may still write."""

    async def play() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        transport = Transport()
        await transport.connect(urlparse(f"nats://127.0.0.1:{port}"), 1024, 2)
        writer = transport._io_writer
        assert writer is not None
        transport.close()
        await writer.wait_closed()
        server.close()

        transport.write(b"PING\r\n")
        transport.writelines([b"PING\r\n"])
        await transport.drain()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


async def test_a_ping_is_behind_all_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind those that wait because the server takes no more just now."""
    client = NatsClient("t", lambda _: True)
    sent: list[bytes] = []
    monkeypatch.setattr(client._tcp, "write", sent.append)
    monkeypatch.setattr(client._tcp, "writelines", sent.extend)
    client._pending = [b"PUB a", b"PUB b"]
    client.ping()

    assert sent == [b"PUB a", b"PUB b", b"PING\r\n"]
    assert client._pending == []
