"""Follows docs/quickstart.md block by block in an empty folder, up to two windows that hear each other."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from tests.browser.conftest import browser
from tests.clients.npm import DIRECTORY, install
from tests.docs.blocks import ROOT, Block, blocks
from tests.support.ports import free_port

__all__ = ["browser"]  # a fixture of another folder

PAGE = ROOT / "docs/quickstart.md"
STEPS = blocks(PAGE)
LEAVE = "leave it running"
WAIT = 20_000
"""Milliseconds until a page shows something, on a machine that is busy."""
MINUTES = 10
"""What the page promises; a command that takes longer fails."""


class Follower:
    """Does what the page says, on ports that are free.

    Attributes:
        answers: What the commands of terminal 3 printed, in order.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.answers: list[str] = []
        self._stack = stack
        self._ports = {port: str(free_port()) for port in ("4000", "4001", "8000")}
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        self._deadline = time.monotonic() + MINUTES * 60

    def here(self, text: str) -> str:
        """The same with the ports that are free here."""
        return re.sub(r"\b(4000|4001|8000)\b", lambda port: self._ports[port[0]], text)

    def follow(self, block: Block) -> None:
        """Write a file, or type commands."""
        if block.language != "sh":
            (self.folder / block.title).write_text(self.here(block.text))
        elif "pip install" in block.text:
            self._pretend_to_install(block.text)
        elif LEAVE in block.title:
            self._start(self.here(block.text), block.title)
        else:
            self._type(self.here(block.text))

    def _pretend_to_install(self, commands: str) -> None:
        """Put in place what the commands would download: it is there already."""
        [pip] = [line for line in commands.splitlines() if "pip install" in line]
        for package in pip.split("install")[1].split()[1:]:
            assert version(package)
        [npm] = [line for line in commands.splitlines() if line.startswith("npm install ")]
        wanted = json.loads((DIRECTORY / "package.json").read_text())["dependencies"]
        assert npm == f"npm install {wanted['phoenix-1.8'].removeprefix('npm:')}"

        (self.folder / ".venv").symlink_to(sys.prefix)
        (self.folder / "node_modules").mkdir()
        (self.folder / "node_modules/phoenix").symlink_to(install() / "phoenix-1.8")

    def _start(self, command: str, terminal: str) -> None:
        log = self.folder / f"{terminal.split(',', maxsplit=1)[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        url = "8000/" if "uvicorn" in command else "4001/readyz"
        self._until_answered(f"http://127.0.0.1:{self.here(url)}", process, log)

    def _until_answered(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        while subprocess.run(["curl", "-fso", os.devnull, url], check=False).returncode:
            assert process.poll() is None, f"it ended:\n{log.read_text()}"
            assert time.monotonic() < self._deadline, f"it does not answer:\n{log.read_text()}"
            time.sleep(0.05)

    def _type(self, commands: str) -> None:
        done = subprocess.run(
            ["bash", "-e", "-c", commands],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=max(self._deadline - time.monotonic(), 1),
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        self.answers.append(done.stdout)


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    """In an empty folder; what it left running ends with the test."""
    with ExitStack() as stack:
        yield Follower(tmp_path, stack)


async def window(browser: Browser, url: str, complaints: list[str]) -> Page:
    """A window at an address of the page."""
    page = await browser.new_page()

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "favicon" not in message.location["url"]:
            complaints.append(f"{message.text} ({message.location['url']})")

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    return page


@pytest.mark.slow
async def test_the_quickstart_works_as_it_is_written(follower: Follower, browser: Browser) -> None:
    third = [block for block in STEPS if block.title == "Terminal 3"]
    complaints: list[str] = []
    for block in STEPS:
        if block not in third:
            follower.follow(block)

    urls = re.findall(r"<(http://[^>]+)>", PAGE.read_text())
    ada, bob = [await window(browser, follower.here(url), complaints) for url in urls]
    for page in (ada, bob):
        await expect(page.locator("#here")).to_have_text("ada, bob", timeout=WAIT)

    await ada.get_by_label("Message").fill("Hello, Bob")
    await ada.get_by_role("button", name="Send").click()
    for page in (ada, bob):
        await expect(page.get_by_role("listitem")).to_have_text(["ada: Hello, Bob"], timeout=WAIT)

    await bob.reload()
    await expect(bob.get_by_role("listitem")).to_have_text(["ada: Hello, Bob"], timeout=WAIT)

    for block in third:
        follower.follow(block)
    for page in (ada, bob):
        await expect(page.get_by_role("listitem")).to_have_text(
            ["ada: Hello, Bob", "terminal: Hello from outside"], timeout=WAIT
        )
    assert [each["user"] for each in json.loads(follower.answers[-1])["items"]] == ["ada"]
    assert complaints == []
