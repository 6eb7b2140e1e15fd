"""The client of the tests."""

import asyncio

from websockets.asyncio.server import ServerConnection, serve

from tests.support.client import PhoenixClient


async def listen(connection: ServerConnection) -> None:
    """Say nothing."""
    await connection.wait_closed()


async def leave_one_open() -> PhoenixClient:
    """What a test does that fails before it closes its client."""
    server = await serve(listen, "127.0.0.1", 0)
    port = next(iter(server.sockets)).getsockname()[1]
    client = await PhoenixClient.connect(f"ws://127.0.0.1:{port}/")
    server.close(close_connections=False)
    return client


def test_a_client_nobody_closed_is_closed_with_its_event_loop() -> None:
    """Else whatever test runs when it is collected fails for its open socket."""
    with asyncio.Runner() as runner:
        client = runner.run(leave_one_open())
        socket = client.connection.transport.get_extra_info("socket")
        assert socket.fileno() >= 0

    assert socket.fileno() == -1
