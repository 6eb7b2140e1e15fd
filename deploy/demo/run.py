"""``make demo``: two gateways on NATS, two backends behind a round-robin, and a page to try them on.

Without nats-server it is one gateway on the memory bus. Ctrl-C ends all of them.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tomllib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from deploy.demo.balancer import balance
from deploy.demo.store import Store

CONFIG: Final = Path(__file__).with_name("gateway.toml")
START_SECONDS: Final = 60
END_SECONDS: Final = 10
LOG_TAIL: Final = 2000

TEXT: Final = """
  Open {page} as Ada, open her phone from there, and be Bob in another window.
  Eve is no member of #general.

    gateways   {gateways}, clients connect to {socket}
    backends   {backends}, in turn behind the page's address
    logs       {logs}

  Ctrl-C ends it all.
"""


class Ended(Exception):
    """A process that should not have ended, with the end of its log."""


class Demo:
    """The processes of one run.

    Args:
        directory: For the database and the logs.
        base: First of the ports; the others are at fixed distances above it.
    """

    def __init__(self, directory: Path, base: int) -> None:
        self._directory = directory
        self._database = directory / "demo.sqlite3"
        self._config: dict[str, Any] = tomllib.loads(CONFIG.read_text())
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._public = f"127.0.0.1:{base}"
        self._internals = [f"127.0.0.1:{base + 1}", f"127.0.0.1:{base + 2}"]
        self._nats_port = base + 20
        self._page_port = base + 80
        self._backends = [f"127.0.0.1:{base + 81}", f"127.0.0.1:{base + 82}"]

    async def run(self, stop: asyncio.Event) -> None:
        """Start all, say where it is, and end all when told to stop.

        Raises:
            Ended: Something ended by itself, or did not start.
            OSError: The page's port is taken.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._end)
            nats = await self._start_nats()
            if not nats:
                del self._internals[1:]
            Store(self._database).create()
            for number, address in enumerate(self._backends):
                await self._start_backend(f"backend-{number + 1}", address, number)
            urls = [f"http://{address}" for address in self._backends]
            await stack.enter_async_context(balance(urls, self._page_port))
            for name, internal in zip("ab", self._internals, strict=False):
                await self._start_gateway(name, internal, nats)
            await self._ready(stop)
            if not stop.is_set():
                self._say(bool(nats))
                await self._watch(stop)

    async def _start_nats(self) -> str:
        """The bus's URL; empty without nats-server."""
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.exists() else shutil.which("nats-server")
        if binary is None:
            return ""
        port, store = str(self._nats_port), str(self._directory / "nats")
        await self._start("nats", [binary, "-a", "127.0.0.1", "-p", port, "-js", "-sd", store])
        return f"nats://127.0.0.1:{port}"

    async def _start_backend(self, name: str, address: str, number: int) -> None:
        told = {
            "database": str(self._database),
            "listen": address,
            "api": f"http://{self._internals[number % len(self._internals)]}",
            "api_key": self._config["api"]["keys"][0]["key"],
            "token_secret": self._config["auth"]["secrets"][0],
            "webhook_secret": self._config["upstream"]["secrets"][0],
            "socket": f"ws://{self._public}/socket",
        }
        environment = {f"DEMO_{key.upper()}": value for key, value in told.items()}
        await self._start(name, [sys.executable, "-m", "deploy.demo.backend"], environment)

    async def _start_gateway(self, name: str, internal: str, nats: str) -> None:
        origins = [f"http://{host}:{self._page_port}" for host in ("127.0.0.1", "localhost")]
        told = {
            "server.public": self._public,
            "server.internal": internal,
            "server.reuse_port": bool(
                nats
            ),  # the kernel spreads the clients, for want of a balancer
            "server.replica": name,
            "server.allowed_origins": origins,
            "bus.url": nats or "memory://",
            "upstream.url": f"http://127.0.0.1:{self._page_port}/gateway",
        }
        assignments = [
            f"--set={key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in told.items()
        ]
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(CONFIG), *assignments]
        await self._start(f"gateway-{name}", command)

    async def _start(
        self, name: str, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> None:
        inherited = {key: value for key, value in os.environ.items() if key[:8] != "GATEWAY_"}
        with self._log(name).open("wb") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=log,
                env=inherited | (environment or {}),
                start_new_session=True,  # Ctrl-C is for this process, which ends the others in order
            )

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    async def _ready(self, stop: asyncio.Event) -> None:
        pages = [f"http://{address}/" for address in self._backends]
        probes = [f"http://{address}/readyz" for address in self._internals]
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as http:
            for url in pages + probes:
                while not (stop.is_set() or await _answers(http, url)):
                    self._check()
                    await asyncio.sleep(0.05)

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.returncode is not None:
                log = self._log(name).read_text(errors="replace")[-LOG_TAIL:]
                raise Ended(f"{name} ended with {process.returncode}:\n{log}")

    def _say(self, clustered: bool) -> None:
        text = TEXT.format(
            page=f"http://127.0.0.1:{self._page_port}/",
            gateways="a and b on NATS" if clustered else "one (no nats-server, so no second)",
            socket=f"ws://{self._public}/socket",
            backends=" and ".join(self._backends),
            logs=self._directory,
        )
        print(text, flush=True)

    async def _watch(self, stop: asyncio.Event) -> None:
        ends = [asyncio.ensure_future(process.wait()) for process in self._processes.values()]
        told = asyncio.ensure_future(stop.wait())
        await asyncio.wait([told, *ends], return_when=asyncio.FIRST_COMPLETED)
        for each in (told, *ends):
            each.cancel()
        if not stop.is_set():
            self._check()

    async def _end(self) -> None:
        """End all, the last first."""
        for process in reversed(self._processes.values()):
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), END_SECONDS)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def main(base: int) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with TemporaryDirectory(prefix="gateway-demo-") as directory:
        try:
            await Demo(Path(directory), base).run(stop)
        except (Ended, OSError, TimeoutError) as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="deploy.demo.run", description=__doc__)
    parser.add_argument("--base-port", type=int, default=4000, help="first of the ports (4000)")
    sys.exit(asyncio.run(main(parser.parse_args().base_port)))
