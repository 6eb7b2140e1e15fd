"""One user's callbacks, however they end and on however many sockets, take the backend from no other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import StartGateway
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.upstream import Answer, UpstreamServer, says
from tests.support.waiting import eventually

CHANNELS = [{"pattern": "up:*", "join": "anyone", "push": "upstream"}]
PUSH = "gateway.push"
SOCKETS = 6


class Endings:
    """Answers pushes as their payload wants; those that are ``held`` once they are let go.

    Attributes:
        held: How many are.
    """

    def __init__(self) -> None:
        self.held = 0
        self.let_go = asyncio.Event()

    async def __call__(self, body: dict[str, Any]) -> web.StreamResponse:
        how = body["payload"].get("how", "ok")
        if how == "held":
            self.held += 1
            await self.let_go.wait()
            how = "ok"
        response = ENDINGS[how](body)
        return await response if isinstance(response, Awaitable) else response


async def reset(_: dict[str, Any]) -> web.StreamResponse:
    """The end of the connection instead of an answer."""
    raise ConnectionResetError


async def never(_: dict[str, Any]) -> web.StreamResponse:
    """No answer in time."""
    await asyncio.sleep(3600)
    return web.Response()


STATUSES: dict[str, Answer] = {str(status): says({}, status) for status in (500, 502, 503, 504)}
ENDINGS: dict[str, Answer] = STATUSES | {
    "ok": lambda _: web.Response(status=204),
    "slow": never,
    "garbage": lambda _: web.Response(text="<html>"),
    "too large": lambda _: web.Response(body=b" " * 2_000_000),
    "reset": reset,
}


@pytest.fixture
async def endings() -> AsyncIterator[Endings]:
    made = Endings()
    yield made
    made.let_go.set()


@pytest.fixture
async def start(
    start_gateway: StartGateway, endings: Endings
) -> AsyncIterator[Callable[[float], GatewayProcess]]:
    """Starts a gateway with eight slots that waits so many seconds for answers."""
    async with UpstreamServer() as server:
        server.answers[PUSH] = endings

        def started(seconds: float) -> GatewayProcess:
            section = server.section(max_in_flight=8, timeout_seconds=seconds)
            return start_gateway(
                {"channels": CHANNELS, "upstream": section, "auth": {"allow_anonymous": True}}
            )

        yield started


@asynccontextmanager
async def sockets(
    gateway: GatewayProcess, user: str | None, number: int
) -> AsyncIterator[list[PhoenixClient]]:
    """Sockets of one user on the channel."""
    signed = None if user is None else token(user)
    clients = [await PhoenixClient.connect(gateway.socket_url, signed) for _ in range(number)]
    try:
        for client in clients:
            await client.join("up:1")
        yield clients
    finally:
        for client in clients:
            await client.close()


async def flood(client: PhoenixClient, how: str) -> None:
    """Push, and again when that is answered, at a pace that leaves the test some of the CPU."""
    while True:
        await client.ask("up:1", "say", {"how": how})
        await asyncio.sleep(0.01)


async def served(client: PhoenixClient, times: int) -> list[str]:
    """How so many pushes are answered, one after another."""
    return [(await client.ask("up:1", "say"))[4]["status"] for _ in range(times)]


def refused(gateway: GatewayProcess, status: str) -> float:
    """Callbacks that ended so."""
    return gateway.metric("upstream_request_seconds_count", type=PUSH, status=status)


@pytest.mark.parametrize(
    ("how", "user"), [("502", None), *((how, "mallory") for how in ENDINGS if how != "ok")]
)
async def test_who_makes_the_backend_fail_is_left_alone_and_nobody_else(
    start: Callable[[float], GatewayProcess], how: str, user: str | None
) -> None:
    gateway = start(1 if how == "slow" else 30)
    async with sockets(gateway, user, SOCKETS) as abusers:
        floods = [asyncio.create_task(flood(each, how)) for each in abusers]
        await eventually(lambda: refused(gateway, "breaker_open") > SOCKETS)
        async with sockets(gateway, "ann", 1) as [ann]:
            assert await served(ann, 50) == ["ok"] * 50
        for task in floods:
            task.cancel()
        await asyncio.wait(floods)


@pytest.mark.parametrize(("accounts", "held"), [(1, 2), (3, 5)])
async def test_who_takes_all_slots_leaves_room_for_who_comes_next(
    start: Callable[[float], GatewayProcess], endings: Endings, accounts: int, held: int
) -> None:
    """Nothing of what they ask is answered before the end."""
    gateway = start(60)
    async with AsyncExitStack() as stack:
        for number in range(accounts):
            abusers = sockets(gateway, f"mallory {number}", SOCKETS)
            for each in await stack.enter_async_context(abusers):
                await each.push("up:1", "say", {"how": "held"})
        await eventually(lambda: endings.held == held)
        async with sockets(gateway, "ann", 1) as [ann]:
            assert await served(ann, 20) == ["ok"] * 20
        assert endings.held == held


async def test_a_backend_that_is_down_is_left_alone_by_all_and_then_used_again(
    start_gateway: StartGateway,
) -> None:
    async with UpstreamServer() as server, AsyncExitStack() as stack:
        gateway = start_gateway({"channels": CHANNELS, "upstream": server.section()})
        clients = [
            (await stack.enter_async_context(sockets(gateway, f"user {n}", 1)))[0] for n in range(6)
        ]
        assert await served(clients[0], 1) == ["ok"]
        server.answers[PUSH] = says({}, 503)

        async def left_alone() -> bool:
            for each in clients:
                await served(each, 1)
            lines = gateway.log_lines()
            return any(
                line["event"] == "upstream is left alone" and line["client"] == "all"
                for line in lines
            )

        await eventually(left_alone)
        del server.answers[PUSH]

        async def used() -> bool:
            return [await served(each, 1) for each in clients] == [["ok"]] * len(clients)

        await eventually(used)
