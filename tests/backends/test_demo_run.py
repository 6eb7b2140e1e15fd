"""``make demo``: everything it starts, and that all of it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.clients.npm import install
from tests.support.client import PhoenixClient
from tests.support.demo import ROOT, Rest
from tests.support.waiting import eventually

OFFSETS = (0, 1, 2, 20, 80, 81, 82)
WITHIN_SECONDS = 60


class Run:
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

    async def up(self) -> None:
        """Return once it says where the page is."""

        def says() -> bool:
            assert self.process.poll() is None, self.said()
            return self.page in self.said()

        await eventually(says, WITHIN_SECONDS)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        await eventually(lambda: self.process.poll() is not None, WITHIN_SECONDS)
        code: int = self.process.returncode
        return code

    def kill(self) -> None:
        """Kill it and what it started, if it runs."""
        if self.process.poll() is None:
            for each in [*self.process.children(), self.process]:
                each.kill()
            self.process.wait()


def free_base() -> int:
    """A port from which on all ports of the demo are free."""
    for base in range(21_000, 30_000, 100):
        try:
            for offset in OFFSETS:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise AssertionError("no ports are free")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run.log", free_base())
    yield run
    run.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_starts_all_and_ends_all(run: Run, number: signal.Signals) -> None:
    await run.up()
    names = sorted(" ".join(each.cmdline()[:5]) for each in run.process.children())
    async with Rest(run.page, "ada") as ada:
        assert await ada.call("GET", "/rooms/general/messages") == (200, [])
        socket_url = f"{ada.socket}/websocket"
        client = await PhoenixClient.connect(socket_url, ada.token)
        assert (await client.heartbeat())[4]["status"] == "ok"
        children = run.process.children()
        run.process.send_signal(number)
        assert await client.closed() == 1012, "the gateways drain"

    assert await run.ended() == 0, run.said()
    assert [each.pid for each in children if each.is_running()] == []
    assert len([name for name in names if "deploy.demo.backend" in name]) == 2
    assert len([name for name in names if "-m gateway serve" in name]) == 2
    assert len([name for name in names if "nats-server" in name]) == 1


async def test_it_ends_when_a_part_of_it_does(run: Run) -> None:
    await run.up()
    children = run.process.children()
    backend = next(each for each in children if "deploy.demo.backend" in each.cmdline())
    backend.kill()

    assert await run.ended() == 1
    assert "error: backend-" in run.said()
    assert [each.pid for each in children if each.is_running()] == []


async def test_a_port_that_is_taken_is_named(run: Run, tmp_path: Path) -> None:
    await run.up()
    again = Run(tmp_path / "again.log", run.base)

    assert await again.ended() == 1
    assert "address already in use" in again.said()
    assert run.process.poll() is None, "the first goes on"


def test_make_demo_sets_up_first() -> None:
    make = shutil.which("make")
    assert make is not None
    # within another make, as in "make test", it would frame its output with the directory
    command = [make, "--dry-run", "--always-make", "--no-print-directory", "demo"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "requirements/dev.txt" in lines
    assert lines.rstrip().endswith("-m deploy.demo.run")
