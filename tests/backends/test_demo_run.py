"""``make demo``: everything it starts, and that all of it ends."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.demo.run import main
from tests.support.client import PhoenixClient
from tests.support.demo import ROOT, DemoRun, Rest, free_base
from tests.support.waiting import eventually

PARTS = ("deploy.demo.backend", "gateway", "-js")
"""In the command lines of a backend, a gateway and nats-server."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[DemoRun]:
    run = DemoRun(tmp_path / "run.log", free_base())
    yield run
    run.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """One that runs, and goes on after a test."""
    run = DemoRun(tmp_path_factory.mktemp("shared") / "run.log", free_base())
    run.up()
    yield run
    run.kill()


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty for one that has ended."""
    return process.cmdline() if process.is_running() and process.status() != "zombie" else []


async def test_a_port_that_is_taken_leads_to_what_takes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = free_base()
    with socket.create_server(("127.0.0.1", base)):
        code = await main(base)

    assert code == 1
    assert str(base) in (said := capsys.readouterr().err)
    assert "is make run or another demo running?" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_starts_all_and_ends_all(run: DemoRun, number: signal.Signals) -> None:
    run.up()
    names = sorted(" ".join(each.cmdline()[:5]) for each in run.process.children())
    async with Rest(run.page, "ada") as ada:
        assert await ada.call("GET", "/rooms/general/messages") == (200, [])
        socket_url = f"{ada.socket}/websocket"
        client = await PhoenixClient.connect(socket_url, ada.token)
        assert (await client.heartbeat())[4]["status"] == "ok"
        children = run.process.children()
        run.process.send_signal(number)
        assert await client.closed() == 1012, "the gateways drain"

    assert run.ended() == 0, run.said()
    assert [each.pid for each in children if each.is_running()] == []
    assert len([name for name in names if "deploy.demo.backend" in name]) == 2
    assert len([name for name in names if "-m gateway serve" in name]) == 2
    assert len([name for name in names if "nats-server" in name]) == 1


async def test_what_ends_is_started_again_but_what_was_stopped_is_not(shared: DemoRun) -> None:
    children = {each.pid: each for each in shared.process.children()}
    async with Rest(shared.page, "ada") as ada:
        foreign = {"headers": {"Origin": "http://example.com"}}
        assert await ada.status("POST", "/parts/backend-1/stop", **foreign) == 403
        assert await ada.status("POST", "/parts/backend-3/stop") == 404
        assert await ada.status("POST", "/parts/backend-1/stop") == 204
        await eventually(lambda: shared.states()["backend-1"] == "stopped")
        for _ in range(2):
            assert await ada.call("GET", "/rooms/general/messages") == (200, [])
        for name in PARTS:
            next(each for each in children.values() if name in words(each)).kill()
        await eventually(lambda: shared.states()["backend-2"] == "down")

        ups = ["up"] * 4
        await eventually(lambda: [*shared.states().values()] == ["up", "stopped", *ups[1:]], 60)
        assert await ada.status("POST", "/parts/backend-1/start") == 204
        await eventually(lambda: [*shared.states().values()] == ["up", *ups], 60)
    left = {each.pid for each in shared.process.children()}
    assert len(left) == len(children)
    assert len(left & children.keys()) == 1, "the other gateway was left alone"


async def test_what_does_not_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    base = free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 1))
        taken.listen()
        run = DemoRun(tmp_path / "run.log", base)

        assert run.ended() == 1
    assert "error: gateway-a does not start" in run.said()
    assert "already in use" in run.said()


async def test_a_port_that_is_taken_is_named(shared: DemoRun, tmp_path: Path) -> None:
    again = DemoRun(tmp_path / "again.log", shared.base)

    assert again.ended() == 1
    assert "address already in use" in again.said()
    assert shared.process.poll() is None, "the first goes on"


def test_make_demo_sets_up_first() -> None:
    make = shutil.which("make")
    assert make is not None
    # within another make, as in "make test", it would frame its output with the directory
    command = [make, "--dry-run", "--always-make", "--no-print-directory", "demo"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "requirements/dev.txt" in lines
    assert lines.rstrip().endswith("-m deploy.demo.run")
