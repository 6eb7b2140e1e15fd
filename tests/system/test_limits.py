"""Clients that send too much, read too little or say nothing: bounded, and harming nobody else."""

import asyncio
import json
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
KIB = 1024


class DeafClient:
    """Joins a room and then reads nothing more."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._socket = socket.socket()
        # a small window, so that what the client does not read is soon the gateway's to keep
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)

    def __enter__(self) -> "DeafClient":  # noqa: PYI034 -- not meant to be subclassed
        self._socket.connect(("127.0.0.1", self._gateway.public_port))
        request = (
            f"GET /socket/websocket?vsn=2.0.0&token={token('deaf')} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._socket.sendall(request.encode())
        while b"\r\n\r\n" not in self._socket.recv(4096):
            pass
        self.send(json.dumps(["1", "1", ROOM, "phx_join", {}]))
        assert b"phx_reply" in self._socket.recv(4096)
        return self

    def send(self, text: str) -> None:
        """Send a short text frame, masked with zeros."""
        data = text.encode()
        self._socket.sendall(bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data)

    def send_bytes(self, opcode: int, text: str, *, times: int = 1) -> None:
        """Send frames of any length, masked with zeros."""
        data = text.encode("latin-1")
        size = len(data)
        head = (
            bytes((0x80 | opcode, 0x80 | size))
            if size < 126
            else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
        )
        self._socket.sendall((head + bytes(4) + data) * times)

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def publish_until(
    backend: Backend, gateway: GatewayProcess, metric: str, pause: float = 0, **labels: str
) -> int:
    """Publish 16 KiB messages until a metric is no longer 0; returns how many were published."""
    payload = {"x": "x" * 16 * KIB}
    for sent in range(1, 2000):
        assert await backend.publish(ROOM, "bulk", payload) == 202
        await asyncio.sleep(pause)
        if sent % 8 == 0 and gateway.metric(metric, **labels):
            return sent
    raise AssertionError(f"{metric} stays 0:\n{gateway.log()}")


async def test_a_reader_that_stops_is_closed_at_its_bound_and_others_get_everything(
    start_gateway: StartGateway,
) -> None:
    limit = 256 * KIB
    gateway = start_gateway({"limits": {"outbound_buffer_bytes": limit}})
    reader = await PhoenixClient.connect(gateway.socket_url, token("reader"))
    await reader.join(ROOM)
    with DeafClient(gateway):
        async with Backend(gateway) as backend:
            sent = await publish_until(backend, gateway, "slow_consumers_total")
        await eventually(lambda: len(reader.events(ROOM, "bulk")) == sent)
        # what the gateway and the kernel keep for one client is bounded: the limit, a message more,
        # and the few hundred KiB of kernel buffers
        assert sent * 16 * KIB < limit + 1024 * KIB
        await eventually(lambda: gateway.metric("connections", transport="websocket") == 1)
    assert gateway.metric("disconnects_total", code="1013") == 1
    assert gateway.metric("messages_dropped_total", reason="slow_consumer") >= 1
    assert (await reader.heartbeat())[4]["status"] == "ok"
    await reader.close()


async def test_a_client_that_asks_and_never_reads_the_answers_is_closed_too(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"limits": {"outbound_buffer_bytes": 64 * KIB}})
    with DeafClient(gateway) as deaf:

        def ask() -> None:
            with suppress(OSError):  # the gateway cuts the connection at some point
                for ref in range(100_000):
                    deaf.send(f'[null,"{ref}","phoenix","heartbeat",{{}}]')

        await asyncio.to_thread(ask)
        await eventually(lambda: gateway.metric("slow_consumers_total") == 1)
        await eventually(lambda: gateway.metric("connections", transport="websocket") == 0)


async def test_a_rule_may_drop_messages_of_a_slow_reader_instead(
    start_gateway: StartGateway,
) -> None:
    rule = {"pattern": "room:*", "push": "broadcast", "slow_consumer": "drop"}
    gateway = start_gateway({"limits": {"outbound_buffer_bytes": 256 * KIB}, "channels": [rule]})
    with DeafClient(gateway):
        async with Backend(gateway) as backend:
            await publish_until(backend, gateway, "messages_dropped_total", reason="slow_consumer")
        assert gateway.metric("slow_consumers_total") == 0
        assert gateway.metric("connections", transport="websocket") == 1


async def test_all_clients_together_have_a_bound_and_the_largest_goes_first(
    start_gateway: StartGateway,
) -> None:
    """Eight deaf clients, none of which reaches its own bound, pass the common one."""
    own = 4096 * KIB
    gateway = start_gateway({"limits": {"outbound_buffer_bytes": own, "outbound_total_bytes": own}})
    reader = await PhoenixClient.connect(gateway.socket_url, token("reader"))
    await reader.join(ROOM)
    with ExitStack() as deaf:
        for _ in range(8):
            deaf.enter_context(DeafClient(gateway))
        async with Backend(gateway) as backend:
            sent = await publish_until(backend, gateway, "slow_consumers_total", pause=0.02)
        assert sent * 16 * KIB < own
        assert gateway.metric("slow_consumers_total") < 8, "only as many as needed"
    assert reader.close_code is None
    await eventually(lambda: len(reader.events(ROOM, "bulk")) == sent)
    await reader.close()


async def test_a_client_nobody_hears_from_is_closed_and_one_that_pings_is_not(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"limits": {"idle_timeout_seconds": 3}})
    silent = await PhoenixClient.connect(gateway.socket_url, token())
    pinging = await PhoenixClient.connect(gateway.socket_url, token())
    await pinging.join(ROOM)

    async def ping() -> None:
        while True:
            await (await pinging.connection.ping())
            await asyncio.sleep(0.5)

    task = asyncio.create_task(ping())
    assert await silent.closed() == 1002
    assert pinging.close_code is None
    task.cancel()
    await pinging.close()


async def test_what_the_server_sends_does_not_keep_a_client_alive(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"limits": {"idle_timeout_seconds": 2}})
    silent = await PhoenixClient.connect(gateway.socket_url, token())
    await silent.join(ROOM)
    async with Backend(gateway) as backend:

        async def publish() -> None:
            while True:
                await backend.publish(ROOM, "tick", {})
                await asyncio.sleep(0.2)

        task = asyncio.create_task(publish())
        assert await silent.closed() == 1002
        task.cancel()


async def test_a_client_above_its_rate_is_read_more_slowly_and_loses_nothing(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"limits": {"messages_per_second": 50, "idle_timeout_seconds": 2}})
    hasty = await PhoenixClient.connect(gateway.socket_url, token("hasty"))
    calm = await PhoenixClient.connect(gateway.socket_url, token("calm"))
    await hasty.join(ROOM)
    refs = [await hasty.push(ROOM, "m", {"n": n}) for n in range(200)]
    assert (await calm.heartbeat())[4]["status"] == "ok"
    assert len(hasty.events(ROOM, "m")) < 200, "the last are not read yet"
    await hasty.reply(refs[-1])
    await eventually(lambda: len(hasty.events(ROOM, "m")) == 200)

    assert [e["n"] for e in hasty.events(ROOM, "m")] == list(range(200))
    assert hasty.close_code is None, "who is made to wait is not idle"
    for client in (hasty, calm):
        await client.close()


async def test_connections_above_the_limit_are_refused_for_now(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"connections": 2}})
    clients = [await PhoenixClient.connect(gateway.socket_url, token()) for _ in range(2)]
    with pytest.raises(InvalidStatus) as refused:
        await PhoenixClient.connect(gateway.socket_url, token())
    assert refused.value.response.status_code == 503
    assert "Retry-After" in refused.value.response.headers
    assert gateway.metric("connects_total", result="refused", reason="connection_limit") == 1
    assert gateway.get("/readyz")[0] == 503

    await clients.pop().close()

    await eventually(lambda: gateway.get("/readyz")[0] == 200)
    clients.append(await PhoenixClient.connect(gateway.socket_url, token()))
    for client in clients:
        await client.close()


async def test_old_connections_are_moved_away(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"drain": {"max_connection_age_seconds": 1}})
    client = await PhoenixClient.connect(gateway.socket_url, token())

    assert await client.closed() == 1012


async def test_a_crowd_that_joins_is_bounded(
    start_gateway: StartGateway, start_nats: StartNats
) -> None:
    """Joins that wait for the bus are limited; topics already subscribed are not affected."""
    nats = start_nats()
    gateway = start_gateway({"bus": {"url": nats.url}, "limits": {"joins_in_flight": 2}})
    client = await PhoenixClient.connect(gateway.socket_url, token())
    await client.join(ROOM)
    nats.pause()
    for ref in ("a", "b", "c", "d"):
        await client.send_frame(ref, ref, f"room:new-{ref}", "phx_join", {})
    limited = {(await client.reply(ref))[4]["response"]["reason"] for ref in ("c", "d")}
    nats.resume()

    assert limited == {"rate limited"}
    for ref in ("a", "b"):
        assert (await client.reply(ref))[4]["status"] == "ok"
    await client.close()


def open_files(gateway: GatewayProcess) -> int:
    """Descriptors a gateway has open."""
    return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))


@pytest.mark.slow
async def test_who_closes_and_then_reads_nothing_is_cut_off(start_gateway: StartGateway) -> None:
    """What is left to send would otherwise keep the connection, and its buffer, for as long as it likes."""
    gateway = start_gateway()
    before, clients = open_files(gateway), 20
    with ExitStack() as stack:
        for _ in range(clients):
            deaf = stack.enter_context(DeafClient(gateway))
            heartbeat = json.dumps([None, "r" * 250, "phoenix", "heartbeat", {}])
            deaf.send_bytes(0x1, heartbeat, times=2900)
            deaf.send_bytes(0x8, "\x03\xe8")
        await eventually(lambda: gateway.metric("connections", transport="websocket") == 0)
        assert open_files(gateway) > before + clients / 2, "they have not taken their last bytes"

        await eventually(lambda: open_files(gateway) < before + clients / 2)
