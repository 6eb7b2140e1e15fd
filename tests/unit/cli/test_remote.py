"""Talking to a running gateway: publish and watch."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from typer.testing import Result

from gateway.cli.options import Failure
from gateway.cli.watch import _read_binary, _read_text
from tests.conftest import StartGateway
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import SECRET

Invoke = Callable[..., Result]


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Iterator[tuple[GatewayProcess, str]]:
    """A running gateway and the path of its configuration."""
    process = start_gateway({"log": {"level": "debug", "format": "json"}})
    yield process, str(process._log_path.with_name("gateway.toml"))
    assert SECRET not in process.full_log()
    assert API_KEY not in process.full_log()


@contextmanager
def started(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A command as a process, which is gone afterwards."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_join(gateway: GatewayProcess, tail: "subprocess.Popen[str]") -> None:
    """Return once the gateway has a topic, which is the watched one."""
    deadline = time.monotonic() + 30
    while gateway.metric("topics") != 1:
        assert tail.poll() is None, tail.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_published_is_watched(invoke: Invoke, gateway: tuple[GatewayProcess, str]) -> None:
    """Two messages, one line each in their order; then watch ends by itself."""
    process, config = gateway
    with started("watch", "room:42", "--config", config, "--count", "2") as tail:
        wait_for_join(process, tail)

        for payload in ('{"n": 1.0,"ä":"é"}', '{"n":2}'):
            result = invoke("publish", "room:42", "message", payload, "--config", config)
            assert result.exit_code == 0
            assert json.loads(result.stdout)["results"][0]["topic"] == "room:42"
        out, err = tail.communicate(timeout=30)

    assert (tail.returncode, err) == (0, "")
    assert out.splitlines() == [
        '{"topic":"room:42","event":"message","payload":{"n": 1.0,"ä":"é"}}',
        '{"topic":"room:42","event":"message","payload":{"n":2}}',
    ]


def test_the_sessions_of_a_user_are_listed(
    invoke: Invoke, gateway: tuple[GatewayProcess, str]
) -> None:
    process, config = gateway
    with started("watch", "room:42", "--user", "ann/1", "--config", config) as tail:
        wait_for_join(process, tail)
        found = invoke("sessions", "ann/1", "--config", config)
        nobody = invoke("sessions", "no/body", "--config", config)

    head, row = found.stdout.splitlines()
    assert head.split()[:3] == ["session", "device", "type"]
    assert "127.0.0.1" in row
    assert row.endswith("room:42")
    assert nobody.exit_code == found.exit_code == 0
    assert len(nobody.stdout.splitlines()) == 1


def test_watch_ends_on_ctrl_c_without_a_word(gateway: tuple[GatewayProcess, str]) -> None:
    process, config = gateway
    with started("watch", "room:42", "--config", config) as tail:
        wait_for_join(process, tail)
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=30)

    assert (tail.returncode, out, err) == (0, "", "")


def test_refusals_of_a_running_gateway_are_failures(
    invoke: Invoke, gateway: tuple[GatewayProcess, str]
) -> None:
    process, config = gateway
    publish = ("publish", "room:42", "message", "{}", "--config", config)

    reserved = invoke("publish", "room:42", "phx_close", "{}", "--config", config)
    wrong_key = invoke(*publish, "--key", "hunter2")
    nowhere = invoke(*publish, "--url", process.public_url)
    unmatched = invoke("watch", "lobby", "--config", config)
    wrong_secret = invoke(
        "watch", "room:42", "--config", config,
        "--set", 'auth.secrets=["hunter2-hunter2-hunter2-hunter2-hunter2"]',
    )  # fmt: skip

    for result, words in [
        (reserved, "HTTP 422"),
        (wrong_key, "HTTP 401"),
        (nowhere, "HTTP 404"),
        (unmatched, 'topic "lobby" cannot be joined: unmatched topic'),
        (wrong_secret, "refused with HTTP 403"),
    ]:
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stdout == ""
        assert "hunter2" not in result.output
    assert "hunter2" not in process.full_log()


def test_a_watched_gateway_that_drains_ends_the_watch(gateway: tuple[GatewayProcess, str]) -> None:
    process, config = gateway
    with started("watch", "room:42", "--config", config) as tail:
        wait_for_join(process, tail)
        process.terminate()
        out, err = tail.communicate(timeout=30)

    assert (tail.returncode, out) == (1, "")
    assert "error: the connection was closed, code 1012" in err


@pytest.mark.parametrize(
    "command", [("publish", "room:42", "message", "{}"), ("watch", "room:42")], ids=lambda c: c[0]
)
def test_a_gateway_that_is_away_is_a_failure(invoke: Invoke, command: tuple[str, ...]) -> None:
    port = free_port()

    result = invoke(
        *command,
        "--dev",
        "--url",
        f"{'ws' if command[0] == 'watch' else 'http'}://127.0.0.1:{port}",
    )

    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("publish", "a", "b", "[1]", "--dev"), "must be a JSON object"),
        (("publish", "a", "b", "{", "--dev"), "must be a JSON object"),
        (("publish", "a", "b", "{}"), "none has the scope publish"),
        (("publish", "a", "b", "{}", "--dev", "--url", "://"), "must be like http://host:4001"),
        (("watch", "a"), "auth.secrets: is empty"),
        (("watch", "a", "--dev", "--count", "0"), "--count"),
    ],
)
def test_misuse_is_told(invoke: Invoke, command: tuple[str, ...], words: str) -> None:
    result = invoke(*command)

    assert result.exit_code == 2
    assert words in result.stderr


def test_a_binary_message_is_printed_in_base64() -> None:
    frame = b"\x02\x07\x05room:42image\x00\xff"

    assert _read_binary(frame) == b'{"topic":"room:42","event":"image","base64":"AP8="}'


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_a_channel_that_ends_ends_the_watch(event: str) -> None:
    with pytest.raises(Failure, match="was closed"):
        _read_text(f'["1","1","room:42","{event}",{{}}]', "room:42")


def test_the_development_block_has_a_curl_that_works() -> None:
    """As printed, but for the shell."""
    public, internal = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    listeners = ("--set", f"server.public={public}", "--set", f"server.internal={internal}")
    with started("serve", "--dev", *listeners) as process:
        assert process.stderr is not None
        text = ""
        while '"public": true' not in text:  # the log says that it listens
            line = process.stderr.readline()
            assert line, text
            text += line
        assert f"http://{public}/" in text
        assert f"curl http://{internal}/v1/publish -H 'Authorization: Bearer dev'" in text
        body = text.partition("-d '")[2].partition("'\n")[0]
        request = urllib.request.Request(f"http://{internal}/v1/publish", data=body.encode())
        for header in re.findall(r"-H '(.+?)'", text):
            request.add_header(*header.split(": "))
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 -- always http
            assert response.status == 202
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert process.returncode == 0
