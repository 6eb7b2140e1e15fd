"""Starlette on uvicorn, as it is commonly used: ``send_text`` for each client of each POST's body.

python starlette_uvicorn.py PORT
"""

import contextlib
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

clients: set[WebSocket] = set()


async def client(websocket: WebSocket) -> None:
    """Serve one client until it goes."""
    await websocket.accept()
    clients.add(websocket)
    try:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
    finally:
        clients.discard(websocket)


async def publish(request: Request) -> Response:
    """Send the body to everybody."""
    text = (await request.body()).decode()
    for each in list(clients):
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it is gone
            await each.send_text(text)
    return Response(status_code=204)


async def ready(_request: Request) -> Response:
    """Say that it serves."""
    return Response(status_code=204)


app = Starlette(
    routes=[
        WebSocketRoute("/", client),
        Route("/", publish, methods=["POST"]),
        Route("/readyz", ready),
    ]
)

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        ws_per_message_deflate=False,
    )
