"""The requests of clients that poll: where they come, and what a browser asks before."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from multidict import CIMultiDict

from gateway.transport.longpoll.requests import LongPollTransport

ABSENT: Any = None
TRANSPORT = LongPollTransport(ABSENT, ABSENT, ABSENT, ABSENT)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ([], ""),
        (["content-type"], "content-type"),
        (["content-type", "x-one, x-two"], "content-type, x-one, x-two"),
        (["content-type", "é"], ""),
    ],
)
def test_a_preflight_is_allowed_all_headers_it_asks_for(asked: list[str], allowed: str) -> None:
    headers = CIMultiDict([("Access-Control-Request-Headers", each) for each in asked])
    request = make_mocked_request("OPTIONS", "/socket/longpoll", headers=headers)

    answer = asyncio.run(TRANSPORT.serve(request))

    assert answer.headers["Access-Control-Allow-Headers"] == allowed


@pytest.mark.parametrize("path", ["/socket/longpoll", "/socket/longpoll/", "/socket//longpoll"])
async def test_slashes_make_no_difference(path: str) -> None:
    app = web.Application()
    app.add_routes(TRANSPORT.routes())
    async with TestClient(TestServer(app)) as client:
        assert (await client.options(path)).status == 200
        assert (await client.options("/socket///longpoll")).status == 404
