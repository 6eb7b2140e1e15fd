"""Plays the columns with the clients: the real gateways, the drivers, and what they need."""

import asyncio
import contextlib
import math
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.clients.npm import install
from tests.matrix.clients import DRIVERS, Client
from tests.matrix.columns import COLUMNS, Play, Stage, play_alone, play_together
from tests.matrix.driver import Driver
from tests.matrix.page import Results
from tests.support.gateway import GatewayProcess
from tests.support.nats import NatsServer

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build/matrix"
OPTIONAL = ("go", "cargo", "mvn")
"""Toolchains that a machine need not have, in CI either."""

TOOLS = {"node": "npm", "go": "go", "java": "mvn", "rust": "cargo"}
COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"

IDLE_SECONDS = 4
"""Above what the shortest heartbeats take on a busy machine."""


def channels() -> list[dict[str, object]]:
    """The rules, for clients that may name topics as they like and for those that may not."""
    history = {"messages": 100, "seconds": 300}
    rules: list[dict[str, object]] = []
    for prefix in ("", "realtime:"):
        rules += [
            {"pattern": f"{prefix}room:*", "push": "broadcast"},
            {"pattern": f"{prefix}present:*", "presence": True},
            {"pattern": f"{prefix}kept:*", "push": "broadcast", "history": history},
            {"pattern": f"{prefix}closed:*", "join": "token"},
        ]
    return rules


@contextlib.asynccontextmanager
async def stage(directory: Path, idle_seconds: int) -> AsyncIterator[Stage]:
    """Two gateways and a nats-server."""
    nats = NatsServer(directory / "nats")
    shared = {"bus": {"url": nats.url}, "channels": channels(), "auth": {"leeway_seconds": 0}}
    gateway = GatewayProcess(directory / "gateway", shared)
    other = GatewayProcess(
        directory / "other", shared | {"limits": {"idle_timeout_seconds": idle_seconds}}
    )
    nats.start()
    try:
        gateway.start()
        other.start()
        yield Stage(gateway, other, idle_seconds)
    finally:
        gateway.kill()
        other.kill()
        nats.stop()


async def play(
    clients: Sequence[Client], directory: Path, patience_ms: float = math.inf
) -> Results:
    """What is to be said of each client; of no heartbeats that are further apart than this."""
    waited_for = [client.beats_ms for client in clients if client.beats_ms <= patience_ms]
    idle_seconds = IDLE_SECONDS + max(waited_for, default=0) // 1000
    async with stage(directory, idle_seconds) as on, contextlib.AsyncExitStack() as stack:
        plays = []
        for client in clients:
            command, folder = command_of(client)
            driver = await Driver.start(command, folder, directory / f"{client.slug}.log")
            stack.push_async_callback(driver.end)
            plays.append(Play(client, driver, on))
        silent = {each.client.name for each in plays if each.client.beats_ms > patience_ms}
        await asyncio.gather(
            *(play_alone(each, {"beat"} if each.client.name in silent else set()) for each in plays)
        )
        await play_together(plays)
        return {
            each.client.name: {
                "version": each.client.version,
                "cells": {key: each.cells[key] for key in COLUMNS if key in each.cells},
            }
            for each in plays
        }


def command_of(client: Client) -> tuple[tuple[str, ...], Path]:
    """How its driver is started, and where; what has to be built is built first."""
    folder = DRIVERS / client.toolchain
    match client.toolchain:
        case "node":
            script, *rest = client.driver
            return ("node", str(folder / script), *rest), install().parent
        case "python":
            module, *rest = client.driver
            return (sys.executable, "-m", f"tests.matrix.drivers.python.{module}", *rest), ROOT
        case "go":
            _build("go", "build", "-o", str(BUILT / "phx"), ".", within=folder)
            return (str(BUILT / "phx"),), folder
        case "rust":
            _build("cargo", "build", "--locked", "--target-dir", str(BUILT / "rust"), within=folder)
            return (str(BUILT / "rust/debug/matrix"), *client.driver), folder
        case "java":
            _build("mvn", "-q", "-B", COPY, f"-DoutputDirectory={BUILT / 'java'}", within=folder)
            jars = str(BUILT / "java/*")
            _build("javac", "-cp", jars, "-d", str(BUILT / "classes"), "Driver.java", within=folder)
            return ("java", "-cp", f"{BUILT / 'classes'}:{jars}", "Driver"), folder
        case _:
            raise AssertionError(client.toolchain)


def _build(*command: str, within: Path) -> None:
    done = subprocess.run(command, cwd=within, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"


def missing(client: Client) -> str | None:
    """The tool it needs and that this machine has not."""
    tool = TOOLS.get(client.toolchain)
    return tool if tool is not None and shutil.which(tool) is None else None
