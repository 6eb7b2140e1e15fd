"""A customer's backend that does as a push's payload says, for the abuse bench.

``python -m bench.abuse_backend PORT``. The payload's ``mode`` may be ``slow``: three seconds; ``502``;
``garbage``: no JSON; ``reset``: no answer. Anything else is answered ``{}``.
"""

import asyncio
import json
import sys

import uvloop
from aiohttp import web

SLOW_SECONDS = 3.0


async def callback(request: web.Request) -> web.Response:
    """Answer as asked."""
    mode = json.loads(await request.read()).get("payload", {}).get("mode")
    match mode:
        case "slow":
            await asyncio.sleep(SLOW_SECONDS)
        case "502":
            return web.Response(status=502)
        case "garbage":
            return web.Response(body=b"]", content_type="application/json")
        case "reset":
            assert request.transport is not None
            request.transport.abort()
    return web.json_response({})


async def ready(_: web.Request) -> web.Response:
    """It answers."""
    return web.Response()


async def main(port: int) -> None:
    """Serve until it is killed."""
    app = web.Application()
    app.add_routes([web.post("/", callback), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(int(sys.argv[1])))
