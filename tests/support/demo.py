"""The demo's backends, as real processes on one database."""

import base64
import json
import os
import random
import socket
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil

from tests.clients.npm import install
from tests.support.forked import Forked
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "deploy/demo/gateway.toml").read_text())
API_KEY: str = CONFIG["api"]["keys"][0]["key"]
TOKEN_SECRET: str = CONFIG["auth"]["secrets"][0]
WEBHOOK_SECRET: str = CONFIG["upstream"]["secrets"][0]
START_SECONDS = 120.0
RUN_SECONDS = 120
OFFSETS = (0, 1, 2, 3, 4, 20, 21, 80, 81, 82, 83)
"""From the first port of ``make demo`` to its ports."""

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""An image of one pixel."""


class DemoBackend:
    """One process of ``deploy/demo/backend.py``.

    Args:
        directory: Of its log, and of the database it shares with others.
        api: Base URL of the gateway's internal listener.
        socket: URL clients are told to connect to.
    """

    def __init__(self, directory: Path, api: str, socket: str = "ws://127.0.0.1:1/socket") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_path = directory / f"backend-{self.port}.log"
        told = {
            "database": str(database(directory)),
            "listen": f"127.0.0.1:{self.port}",
            "api": api,
            "api_key": API_KEY,
            "token_secret": TOKEN_SECRET,
            "webhook_secret": WEBHOOK_SECRET,
            "socket": socket,
        }
        self._environment = os.environ | {f"DEMO_{k.upper()}": v for k, v in told.items()}
        self._process: Forked | None = None

    def launch(self) -> None:
        """Start it, without waiting."""
        install(ROOT / "deploy/demo")
        command = ("-m", "deploy.demo.backend")
        self._process = Forked(command, self._environment, self._log_path)

    def wait(self) -> None:
        """Return once it answers."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"it ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"it does not start:\n{self.log()}"
            time.sleep(0.02)

    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.running():
            assert self._process is not None
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """All it wrote."""
        return self._log_path.read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/rooms", timeout=5) as response:  # noqa: S310 -- always http
                return bool(response.status == 200)
        except OSError:
            return False


def database(directory: Path) -> Path:
    """The database of the backends of a directory."""
    return directory / "demo.sqlite3"


def start(*backends: DemoBackend) -> None:
    """Start those that do not run, all at once; returns when all answer."""
    for backend in backends:
        if not backend.running():
            backend.launch()
    for backend in backends:
        backend.wait()


class Rest:
    """A logged-in device's REST calls, to one process or to a load balancer.

    Attributes:
        token: Of these calls, and of its socket.
        socket: Where it was told to connect.
    """

    def __init__(self, url: str, user: str, device: str = "laptop") -> None:
        self.token = ""
        self.socket = ""
        self._url = url
        self._login = {"user": user, "device": device}
        self._http = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        status, answer = await self.call("POST", "/login", json=self._login)
        assert status == 200, answer
        self.token, self.socket = answer["token"], answer["socket"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and decoded answer, None for an empty one."""
        options = {"headers": {}} | options
        if self.token:
            options["headers"] = {"Authorization": f"Bearer {self.token}"} | options["headers"]
        async with self._http.request(method, f"{self._url}{path}", **options) as response:
            text = await response.read()
            return response.status, await response.json() if text else None

    async def status(self, method: str, path: str, **options: Any) -> int:
        """Status of an answer that may be no JSON."""
        async with self._http.request(method, f"{self._url}{path}", **options) as response:
            return response.status

    async def upload(
        self, room: str, data: bytes = PNG, kind: str = "image/png"
    ) -> tuple[int, Any]:
        """Post an image."""
        headers = {"Content-Type": kind}
        return await self.call("POST", f"/rooms/{room}/images", data=data, headers=headers)

    async def fetch(self, path: str) -> tuple[str, bytes]:
        """GET what is no JSON: its media type and bytes."""
        async with self._http.get(f"{self._url}{path}") as response:
            assert response.status == 200, path
            return response.content_type, await response.read()


class DemoRun:
    """A running ``deploy/demo/run.py``.

    Args:
        log: File for what it writes.
        base: First of its ports.

    Attributes:
        page: Where it says its page is.
    """

    def __init__(self, log: Path, base: int) -> None:
        self.base = base
        self.page = f"http://127.0.0.1:{base + 80}"
        self._log = log
        install(ROOT / "deploy/demo")
        command = [sys.executable, "-m", "deploy.demo.run", "--base-port", str(base)]
        # what whoever runs it has set for a gateway of her own must not matter
        environment = os.environ | {"GATEWAY_CONFIG": "/nowhere", "GATEWAY_LOG__LEVEL": "nonsense"}
        with log.open("wb") as output:
            self.process = psutil.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output
            )

    def said(self) -> str:
        """All it wrote."""
        return self._log.read_text()

    def up(self) -> None:
        """Return once it says where the page is."""
        deadline = time.monotonic() + RUN_SECONDS
        while self.page not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.process.wait(RUN_SECONDS))

    def states(self) -> dict[str, str]:
        """How each part is, as its page shows it."""
        with urllib.request.urlopen(f"{self.page}/parts", timeout=5) as answer:  # noqa: S310 -- always http
            states: dict[str, str] = json.load(answer)
            return states

    def kill(self) -> None:
        """Kill it and what it started, if it runs."""
        if self.process.poll() is None:
            for each in [*self.process.children(), self.process]:
                each.kill()
            self.process.wait()


def free_base() -> int:
    """A port from which on all ports of the demo are free; by chance, as others look for one too."""
    for base in random.sample(range(21_000, 30_000, 100), 90):
        try:
            for offset in OFFSETS:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise AssertionError("no ports are free")
