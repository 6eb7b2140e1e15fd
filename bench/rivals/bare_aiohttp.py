"""aiohttp without a protocol: sends each POST's body to every client as one text message.

``framed`` builds the WebSocket frame once and writes it to each transport; ``send_str`` is how aiohttp
is meant to be used. The event loop is uvloop, as Gateway's.

    python bare_aiohttp.py PORT framed|send_str
"""

import asyncio
import struct
import sys

import uvloop
from aiohttp import web


def text_frame(payload: bytes) -> bytes:
    """One unmasked text frame of at most 65,535 bytes."""
    length = len(payload)
    header = struct.pack("!BB", 0x81, length)
    if length > 125:
        header = struct.pack("!BBH", 0x81, 126, length)
    return header + payload


class Server:
    """All clients get everything."""

    def __init__(self, *, framed: bool) -> None:
        self._framed = framed
        self._clients: dict[web.WebSocketResponse, asyncio.Transport] = {}

    async def client(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one client until it goes."""
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        if request.transport is None:
            return ws
        self._clients[ws] = request.transport
        try:
            async for _ in ws:
                pass
        finally:
            del self._clients[ws]
        return ws

    async def publish(self, request: web.Request) -> web.Response:
        """Send the body to everybody."""
        body = await request.read()
        if self._framed:
            frame = text_frame(body)
            for transport in self._clients.values():
                transport.write(frame)
        else:
            text = body.decode()
            for ws in list(self._clients):
                await ws.send_str(text)
        return web.Response(status=204)

    async def ready(self, _request: web.Request) -> web.Response:
        """Say that it serves."""
        return web.Response(status=204)


async def main(port: int, *, framed: bool) -> None:
    """Serve until killed."""
    server = Server(framed=framed)
    app = web.Application()
    app.router.add_get("/", server.client)
    app.router.add_get("/readyz", server.ready)
    app.router.add_post("/", server.publish)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), framed=sys.argv[2] == "framed"))
