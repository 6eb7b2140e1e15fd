"""The gateway against recorded answers of Phoenix, and the tool against gateways that are right and wrong."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from tests.differential.__main__ import RECORDINGS, minimal
from tests.differential.comparing import EXCUSES, compare, shrink
from tests.differential.gateway import conforming
from tests.differential.playing import Live
from tests.differential.sequences import Step, sequence

ROWS = (Path(__file__).parents[2] / "docs/differences.md").read_text()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of its socket."""
    with conforming(tmp_path_factory.mktemp("one")) as url:
        yield url


async def test_clients_see_what_they_see_at_phoenix(gateway: str) -> None:
    used: set[str] = set()
    for path in sorted(RECORDINGS.glob("*.json")):
        for play in json.loads(path.read_text()):
            found = await compare(play, None, Live(gateway, play["clients"]), used)
            where = f"{path.stem}, seed {play['seed']}"
            assert not found, "\n".join([where, *map(str, found)])
    assert used == {row for row, _, _ in EXCUSES}, "each is needed"


def test_what_excuses_is_a_row_of_the_page() -> None:
    names = set(re.findall(r"\| `([a-z0-9_]+)` \|$", ROWS, re.MULTILINE))

    assert {row for row, _, _ in EXCUSES} <= names


async def test_two_gateways_do_not_differ(gateway: str, tmp_path: Path) -> None:
    with conforming(tmp_path) as other:
        for seed in range(4):
            assert await minimal(other, gateway, sequence(seed), 0.0) == []


@pytest.fixture
async def wrong(gateway: str) -> AsyncIterator[str]:
    """The URL of a server that never says that a channel is closed."""

    async def pass_on(
        source: web.WebSocketResponse | ClientWebSocketResponse,
        target: web.WebSocketResponse | ClientWebSocketResponse,
    ) -> None:
        async for frame in source:
            if frame.type is WSMsgType.BINARY:
                await target.send_bytes(frame.data)
            elif '"phx_close"' not in frame.data:
                await target.send_str(frame.data)
        await target.close()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse()
        await client.prepare(request)
        url = f"{gateway}/websocket?{request.query_string}"
        async with ClientSession() as http, http.ws_connect(url) as server:
            await asyncio.gather(pass_on(client, server), pass_on(server, client))
        return client

    app = web.Application()
    app.router.add_get("/socket/websocket", serve)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/socket"
    await runner.cleanup()


async def test_what_a_wrong_server_does_is_found_and_shrunk(
    gateway: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.differential.comparing.PATIENCE_SECONDS", 0.2)
    sockets = [["websocket", vsn, vsn] for vsn in ("2.0.0", "1.0.0", "2.0.0")]
    plays = (sequence(seed) | {"clients": sockets} for seed in range(20))

    for play in plays:
        if found := await minimal(wrong, gateway, play, 0.0):
            break

    assert [step[2][3] for step in play["steps"]] in (["phx_join"] * 2, ["phx_join", "phx_leave"])
    assert [each[3] for difference in found for each in difference.gateway] == ["phx_close"]
    assert "phx_close" not in str([difference.reference for difference in found])


async def test_no_step_of_the_fewest_can_be_left_out() -> None:
    asked: list[list[Step]] = []

    async def fails(steps: list[Step]) -> bool:
        asked.append(steps)
        return {3, 17, 18} <= {step[0] for step in steps}

    assert await shrink([[number, "send", None] for number in range(30)], fails) == [
        [number, "send", None] for number in (3, 17, 18)
    ]
    assert len(asked) < 60


async def test_a_server_of_yours_does_not_differ(gateway: str) -> None:
    if (url := os.environ.get("PHOENIX_URL")) is None:
        pytest.skip("PHOENIX_URL names no server with the channels of reference.exs")
    for seed in range(10):
        assert await minimal(url, gateway, sequence(seed), 0.1) == []
