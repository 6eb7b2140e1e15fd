"""The servers Gateway is compared with; their programs are in ``bench/rivals``."""

import sys
from pathlib import Path
from typing import Final

from bench.servers.base import EVENT, PAYLOAD, Server, post
from bench.wire import LoadError, Wire

RIVALS: Final = Path(__file__).parents[1] / "rivals"


class BareAiohttp(Server):
    """An aiohttp server without a protocol, which delivers the very bytes Gateway does."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    def command(self, directory: Path) -> list[str]:
        del directory
        return [sys.executable, str(RIVALS / "bare_aiohttp.py"), str(self.port), self._mode]


class Ws(Server):
    """The npm package ws, which delivers the very bytes Gateway does."""

    def command(self, directory: Path) -> list[str]:
        del directory
        return ["node", str(RIVALS / "ws.js"), str(self.port)]


class SocketIo(Server):
    """The npm package socket.io: Engine.IO 4 over WebSocket alone, one room."""

    message = b'42["%b",%b]' % (EVENT.encode(), PAYLOAD)

    def command(self, directory: Path) -> list[str]:
        del directory
        return ["node", str(RIVALS / "socketio.js"), str(self.port)]

    def join(self, wire: Wire, number: int) -> None:
        del number
        wire.upgrade("/socket.io/?EIO=4&transport=websocket")
        _expect(wire.receive(), b"0{")
        wire.send(b"40")
        _expect(wire.receive(), b"40{")

    def publish(self) -> bytes:
        return post("/", PAYLOAD)

    def answer(self, text: bytes) -> bytes | None:
        return b"3" if text == b"2" else None


def _expect(text: bytes, start: bytes) -> None:
    if not text.startswith(start):
        raise LoadError(f"expected {start!r}, got {text[:200]!r}")
