"""What the README has one type, and put into a page, against a gateway in dev mode."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import DevGateway
from tests.clients.npm import install
from tests.docs.blocks import ROOT, blocks

README = ROOT / "README.md"
SHELL = [
    command
    for block in blocks(README, "sh")
    for command in block.text.replace("\\\n", " ").splitlines()
    if command.strip() and not command.startswith("#")
]
CURL = [command for command in SHELL if command.startswith("curl ")]
PAGE_CODE = [block.text for block in blocks(README, "js") if 'from "phoenix"' in block.text]

PRELUDE = """
import WebSocket from "ws"
globalThis.WebSocket = WebSocket
globalThis.token = globalThis.currentToken = process.argv[2]
globalThis.show = (said) => { console.log(JSON.stringify(said)); process.exit() }
"""
"""What the code of a page finds there: a socket, the user's token, and a function that shows something."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevGateway]:
    """What ``make run`` starts."""
    gateway = DevGateway(tmp_path_factory.mktemp("dev"))
    gateway.start()
    yield gateway
    gateway.kill()


def test_commands_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for command in SHELL for word in re.findall(r"^make ([a-z-]+)", command)}

    assert named
    assert named - targets == set()


@pytest.mark.parametrize("command", CURL, ids=lambda command: re.sub(r"\W+", "-", command)[:40])
def test_requests_are_answered(gateway: DevGateway, command: str) -> None:
    here = re.sub(r"\bcurl\b", "curl -sS --fail-with-body", command, count=1)
    here = here.replace("127.0.0.1:4001", f"127.0.0.1:{gateway.internal_port}")

    done = subprocess.run(
        ["bash", "-c", here], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(PAGE_CODE)))
def test_the_code_of_a_page_hears_itself(
    node: str, gateway: DevGateway, tmp_path: Path, number: int
) -> None:
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "phoenix").symlink_to(install() / "phoenix-1.8")
    (modules / "ws").symlink_to(install() / "ws")
    (tmp_path / "prelude.mjs").write_text(PRELUDE)
    socket = gateway.socket_url.removesuffix("/websocket")
    code = re.sub(r"wss?://[\w.:]+/socket", socket, PAGE_CODE[number])
    assert socket in code
    (tmp_path / "page.mjs").write_text(code)
    token = subprocess.run(
        [sys.executable, "-m", "gateway", "token", "--dev", "--user", "42"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    done = subprocess.run(
        [node, "--import", "./prelude.mjs", "page.mjs", token],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_something_is_run() -> None:
    assert len(CURL) > 1
    assert PAGE_CODE
