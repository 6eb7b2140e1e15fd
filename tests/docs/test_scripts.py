"""What docs/scripts.md has one type, against a gateway: messages are published, and heard, both ways."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.tokens import SECRET
from tests.support.waiting import eventually

COMMANDS = [block.text for block in blocks(ROOT / "docs/scripts.md", "sh")]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    process.start()
    yield process
    process.kill()


def typed(gateway: GatewayProcess, beginning: str) -> "subprocess.Popen[str]":
    """Type the one command that begins so."""
    [command] = [text for text in COMMANDS if text.startswith(beginning)]
    here = command.replace("127.0.0.1:4001", f"127.0.0.1:{gateway.internal_port}")
    return subprocess.Popen(
        ["bash", "-c", f'gateway() {{ {sys.executable} -m gateway "$@"; }}; exec 2>&1; {here}'],
        env=os.environ | {"GATEWAY_API_KEY": API_KEY, "TOKEN_SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )


async def test_what_is_published_either_way_is_heard_either_way(gateway: GatewayProcess) -> None:
    with typed(gateway, "gateway watch room") as watching, typed(gateway, "curl -sSN") as tail:
        try:
            await eventually(lambda: gateway.metric("tails") == 2)
            for way in ("gateway publish", "curl -sS --fail"):
                with typed(gateway, way) as publishing:
                    answer, _ = publishing.communicate(timeout=60)
                assert publishing.returncode == 0, answer
                assert json.loads(answer)["results"] == [{"topic": "room:42", "position": None}]
            for reader in (watching, tail):
                assert reader.stdout is not None
                lines = map(json.loads, reader.stdout)
                heard = [next(line for line in lines if "event" in line) for _ in range(2)]
                assert [each["payload"] for each in heard] == [{"text": "hi"}] * 2
        finally:
            for reader in (watching, tail):
                os.killpg(reader.pid, 9)


def test_a_token_needs_no_configuration(gateway: GatewayProcess) -> None:
    with typed(gateway, "GATEWAY_AUTH__SECRETS") as minting:
        token, _ = minting.communicate(timeout=60)

    assert minting.returncode == 0, token
    assert token.count(".") == 2
