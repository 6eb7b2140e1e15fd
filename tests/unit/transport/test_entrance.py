"""How clients are let in: so many in a turn of the event loop."""

import asyncio
from itertools import pairwise
from typing import Any

from aiohttp import web

from gateway.metrics import Metrics
from gateway.transport.entrance import REQUESTS_PER_TURN, Entrance
from gateway.transport.peer import PeerAddress


async def test_requests_of_all_kinds_take_turns() -> None:
    """As many as a client may send in a row on one connection, or many clients at once."""
    unused: Any = None
    entrance = Entrance(unused, PeerAddress([]), Metrics())
    handled = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal handled
        handled += 1
        return web.Response(status=404)

    requests = [asyncio.ensure_future(entrance.take_turns(unused, handler)) for _ in range(500)]
    seen = [0]
    while not all(request.done() for request in requests):
        await asyncio.sleep(0)
        seen.append(handled)

    assert handled == len(requests)
    assert max(after - before for before, after in pairwise(seen)) <= REQUESTS_PER_TURN
