"""A backend that takes every callback and says nothing: aiohttp on uvloop.

python backend.py PORT
"""

import asyncio
import sys

import uvloop
from aiohttp import web


async def callback(request: web.Request) -> web.Response:
    """Read it all, as a real one would."""
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")


async def slow(request: web.Request) -> web.Response:
    """The same, three seconds later."""
    await asyncio.sleep(3)
    return await callback(request)


async def ready(_: web.Request) -> web.Response:
    """It answers."""
    return web.Response()


async def main(port: int) -> None:
    """Serve until it is killed."""
    app = web.Application()
    app.add_routes([web.post("/", callback), web.post("/slow", slow), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(int(sys.argv[1])))
