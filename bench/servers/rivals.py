"""The servers Gateway is compared with; their programs are in ``bench/rivals``, or are installed."""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.servers.base import EVENT, PAYLOAD, TOPIC, Server, post
from bench.servers.gateway import API_KEY, SECRET
from gateway.auth.tokens import mint

RIVALS: Final = Path(__file__).parents[1] / "rivals"
ENVIRONMENT: Final = Path(__file__).parents[2] / "build/bench"
"""The virtual environment that has what the benchmark needs and the project does not."""

INSTALL: Final = "make build/bench"


class Floor(Server):
    """A loop of ``send()`` of finished frames: what the kernel takes, and next to nothing else."""

    def command(self, directory: Path) -> list[str]:
        del directory
        return [sys.executable, str(RIVALS / "floor.py"), str(self.port)]

    def path(self, number: int) -> str:
        return f"/{self.topic(number)}"

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        return post(f"/{topic}", self.text(payload, topic))


class BareAiohttp(Server):
    """An aiohttp server without a protocol, which delivers the very bytes Gateway does."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    def command(self, directory: Path) -> list[str]:
        del directory
        return [sys.executable, str(RIVALS / "bare_aiohttp.py"), str(self.port), self._mode]


class Centrifugo(Server):
    """Centrifugo with its memory engine: a token for each client, JSON protocol, one channel.

    It is found by the variable CENTRIFUGO, on the PATH, or where ``go install`` puts it.
    """

    separator = b"\n"
    ready_path = "/health"

    def missing(self) -> str:
        if self.program():
            return ""
        return "go install github.com/centrifugal/centrifugo/v6@latest"

    def program(self) -> str | None:
        """Where it is."""
        go = Path(os.environ.get("GOPATH", "~/go")).expanduser() / "bin"
        return os.environ.get("CENTRIFUGO") or shutil.which(
            "centrifugo", path=f"{os.environ.get('PATH', '')}:{os.environ.get('GOBIN', '')}:{go}"
        )

    def command(self, directory: Path) -> list[str]:
        config = directory / "centrifugo.json"
        rule = {"name": "room", "allow_subscribe_for_client": True}
        settings = {
            "http_server": {"address": "127.0.0.1", "port": str(self.port)},
            "http_api": {"key": API_KEY},
            "client": {"token": {"hmac_secret_key": SECRET}, "allowed_origins": ["*"]},
            "channel": {"namespaces": [rule]},
            "health": {"enabled": True},
            "log": {"level": "warn"},
        }
        config.write_text(json.dumps(settings))
        return [self.program() or "centrifugo", "--config", str(config)]

    def path(self, number: int) -> str:
        del number
        return "/connection/websocket"

    def steps(self, number: int) -> Sequence[tuple[bytes, bytes]]:
        token = mint(SECRET, sub=str(number), ttl_seconds=3600, now=time.time()).encode()
        channel = self.topic(number).encode()
        return (
            (b'{"id":1,"connect":{"token":"%b"}}' % token, b'{"id":1,"connect":'),
            (b'{"id":2,"subscribe":{"channel":"%b"}}' % channel, b'{"id":2,"subscribe":'),
        )

    def text(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        return b'{"push":{"channel":"%b","pub":{"data":%b}}}' % (topic.encode(), payload)

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        body = b'{"channel":"%b","data":%b}' % (topic.encode(), payload)
        return post("/api/publish", body, b"X-API-Key: %b\r\n" % API_KEY.encode())

    def answer(self, text: bytes) -> bytes | None:
        return b"{}" if text == b"{}" else None


class Ws(Server):
    """The npm package ws, which delivers the very bytes Gateway does."""

    def missing(self) -> str:
        return _missing_node()

    def command(self, directory: Path) -> list[str]:
        del directory
        return ["node", str(RIVALS / "ws.js"), str(self.port)]


class SocketIo(Server):
    """The npm package socket.io: Engine.IO 4 over WebSocket alone, one room."""

    def missing(self) -> str:
        return _missing_node()

    def command(self, directory: Path) -> list[str]:
        del directory
        return ["node", str(RIVALS / "socketio.js"), str(self.port)]

    def path(self, number: int) -> str:
        del number
        return "/socket.io/?EIO=4&transport=websocket"

    def steps(self, number: int) -> Sequence[tuple[bytes, bytes]]:
        del number
        return ((b"", b"0{"), (b"40", b"40{"))

    def text(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        del topic
        return b'42["%b",%b]' % (EVENT.encode(), payload)

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        del topic
        return post("/", payload)

    def answer(self, text: bytes) -> bytes | None:
        return b"3" if text == b"2" else None


class Asgi(Server):
    """A server for ASGI applications with one of them, in the environment of the benchmark.

    Args:
        program: What starts it: a file of ``bench/rivals`` without its ending.
    """

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def missing(self) -> str:
        return "" if (ENVIRONMENT / "bin/python").exists() else INSTALL

    def command(self, directory: Path) -> list[str]:
        del directory
        python = ENVIRONMENT / "bin/python"
        return [str(python), str(RIVALS / f"{self._program}.py"), str(self.port)]


def _missing_node() -> str:
    if shutil.which("node") is None:
        return "install Node 20"
    return "" if (RIVALS / "node_modules").is_dir() else "npm ci --prefix bench/rivals"
