"""The gateway's commands as an operator runs them: processes, and a gateway they talk to."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartNats
from tests.support.client import PhoenixClient
from tests.support.command import COMMAND, invoke, run_process, started
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import SECRET, token


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Iterator[tuple[GatewayProcess, str]]:
    """A running gateway and the path of its configuration."""
    process = start_gateway({"log": {"level": "debug", "format": "json"}})
    yield process, str(process._log_path.with_name("gateway.toml"))
    assert SECRET not in process.full_log()
    assert API_KEY not in process.full_log()


def wait_for_tail(gateway: GatewayProcess, tail: "subprocess.Popen[str]") -> None:
    """Return once the topic is watched."""
    deadline = time.monotonic() + 30
    while gateway.metric("tails") != 1:
        assert tail.poll() is None, tail.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_api_is_described_as_openapi() -> None:
    result = run_process("openapi")

    assert (result.returncode, result.stderr) == (0, "")
    assert '"openapi": "3.1.0"' in result.stdout


def test_a_wrong_configuration_ends_the_process_with_2() -> None:
    result = run_process("serve", "--set", 'channels=[{"pattern": "a", "join": "upstream"}]')

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        'error: channels[0].join: "upstream" is not allowed; upstream.url names no backend\n'
    )


def test_a_port_that_is_taken_ends_the_process_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        result = run_process("serve", "--dev", "--set", f"server.public={address}")

    assert result.returncode == 1
    assert "error: cannot serve: Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_libraries_of_the_server_are_not_loaded_to_start() -> None:
    code = "import sys, gateway.cli.commands; print(*sys.modules)"

    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"aiohttp", "nats", "prometheus_client", "jwt", "structlog", "uvloop"} & set(out)


def test_the_bus_is_tried_and_its_limit_compared(start_nats: StartNats) -> None:
    url = start_nats("max_payload: 32768").url
    arguments = ("check-config", "--connect", "--set", f"bus.url={url}")

    refused = run_process(*arguments)
    accepted = run_process(*arguments, "--set", "limits.max_message_bytes=28672")

    assert refused.returncode == 2
    assert (
        "limits.max_message_bytes: 65536 is not allowed; allowed: at most 28672" in refused.stderr
    )
    assert accepted.returncode == 0
    assert "takes messages of up to 28672 bytes" in accepted.stdout


HISTORY = 'channels=[{"pattern": "room:*", "history": {"messages": 5, "seconds": 60}}]'


def test_a_bus_that_has_no_place_for_the_history_is_a_failure(start_nats: StartNats) -> None:
    url = start_nats(jetstream=False).url
    arguments = ("check-config", "--connect", "--set", f"bus.url={url}")

    without = run_process(*arguments)
    wanted = run_process(*arguments, "--set", HISTORY)

    assert without.returncode == 0, without.stderr
    assert wanted.returncode == 1
    assert "error: a replica would not be ready: history_no_jetstream" in wanted.stderr


def test_a_bus_that_could_keep_a_history_is_left_as_it_is(start_nats: StartNats) -> None:
    nats = start_nats()

    result = run_process(
        "check-config", "--connect", "--set", f"bus.url={nats.url}", "--set", HISTORY
    )

    assert result.returncode == 0, result.stderr
    assert not list((nats.store / "js").rglob("GATEWAY")), "nothing is made"


class OldServer(socketserver.StreamRequestHandler):
    """Says that it is nats-server 2.10, and answers PINGs."""

    def handle(self) -> None:
        self.wfile.write(b'INFO {"max_payload":1048576,"version":"2.10.29","headers":true}\r\n')
        for line in self.rfile:
            if line.startswith(b"PING"):
                self.wfile.write(b"PONG\r\n")


def test_a_bus_server_that_is_too_old_for_the_history_is_a_failure() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"nats://127.0.0.1:{server.server_address[1]}"
        result = run_process(
            "check-config", "--connect", "--set", f"bus.url={url}", "--set", HISTORY
        )
        server.shutdown()

    assert result.returncode == 1
    assert "history_server_too_old: nats-server 2.10.29 is older than 2.11" in result.stderr


@pytest.mark.parametrize(
    ("denied", "reason"),
    [
        ('subscribe: { deny: "gateway.replicas" }', "bus_subscription_denied"),
        ('publish: { deny: "gateway.replicas" }', "bus_publish_denied"),
        ('publish: { deny: "$JS.API.>" }', ""),
    ],
)
def test_missing_permissions_are_a_failure_where_a_replica_needs_them(
    start_nats: StartNats, denied: str, reason: str
) -> None:
    user = f"{{ user: g, password: hunter2, permissions: {{ {denied} }} }}"
    url = start_nats(f"authorization {{ users = [ {user} ] }}").url.replace("//", "//g:hunter2@")

    result = run_process("check-config", "--connect", "--set", f"bus.url={url}")

    assert (result.returncode == 0) == (not reason), result.stderr
    assert not reason or f"a replica would not be ready: {reason}" in result.stderr
    assert "hunter2" not in result.stderr


def test_a_bus_that_is_away_is_a_failure_that_shows_no_password() -> None:
    url = f"nats://user:hunter2@127.0.0.1:{free_port()}"

    result = run_process("check-config", "--connect", "--set", f"bus.url={url}")

    assert result.returncode == 1
    assert "error: no connection to the bus within 5 seconds" in result.stderr
    assert "Traceback" not in result.stderr
    assert "hunter2" not in result.stdout + result.stderr


def test_what_is_published_is_watched_by_nobody_in_particular(
    gateway: tuple[GatewayProcess, str],
) -> None:
    """Two messages, one line each in their order; then watch ends by itself."""
    process, config = gateway
    with started("watch", "room:42", "--config", config, "--count", "2") as tail:
        wait_for_tail(process, tail)

        for payload in ('{"n": 1.0,"ä":"é"}', '{"n":2}'):
            result = invoke("publish", "room:42", "message", payload, "--config", config)
            assert result.exit_code == 0
            assert json.loads(result.stdout)["results"][0]["topic"] == "room:42"
        for figure in ("sessions", "topics", "messages_delivered_total"):
            assert process.metric(figure) == 0
        assert process.metric("connections", transport="websocket") == 0
        out, err = tail.communicate(timeout=30)

    assert (tail.returncode, err) == (0, "")
    assert [line.partition(',"time"')[0] for line in out.splitlines()] == [
        '{"topic":"room:42","event":"message","payload":{"n": 1.0,"ä":"é"}',
        '{"topic":"room:42","event":"message","payload":{"n":2}',
    ]


async def test_the_sessions_of_a_user_are_listed(gateway: tuple[GatewayProcess, str]) -> None:
    process, config = gateway
    client = await PhoenixClient.connect(process.socket_url, token("ann/1"))
    await client.join("room:42")
    found = await asyncio.to_thread(run_process, "sessions", "ann/1", "--config", config)
    nobody = await asyncio.to_thread(run_process, "sessions", "no/body", "--config", config)
    await client.close()

    head, row = found.stdout.splitlines()
    assert head.split()[:3] == ["session", "device", "type"]
    assert "127.0.0.1" in row
    assert row.endswith("room:42")
    assert nobody.returncode == found.returncode == 0
    assert nobody.stdout == "user no/body has no sessions\n"


def test_watch_ends_on_ctrl_c_without_a_word(gateway: tuple[GatewayProcess, str]) -> None:
    process, config = gateway
    with started("watch", "lobby", "--config", config) as tail:  # which no rule matches
        wait_for_tail(process, tail)
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=30)

    assert (tail.returncode, out, err) == (0, "", "")


def test_refusals_of_a_running_gateway_are_failures(gateway: tuple[GatewayProcess, str]) -> None:
    process, config = gateway
    publish = ("publish", "room:42", "message", "{}", "--config", config)

    reserved = invoke("publish", "room:42", "phx_close", "{}", "--config", config)
    wrong_key = invoke(*publish, "--key", "hunter2")
    nowhere = invoke(*publish, "--url", process.public_url)
    watched = invoke("watch", "room:42", "--config", config, "--key", "hunter2")

    for result, words in [
        (reserved, "HTTP 422"),
        (wrong_key, "HTTP 401"),
        (nowhere, "HTTP 404"),
        (watched, "HTTP 401"),
    ]:
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stdout == ""
        assert "hunter2" not in result.output
    assert "hunter2" not in process.full_log()


def test_a_drained_replica_ends_the_tail_and_what_it_missed_is_shown_afterwards(
    start_gateway: StartGateway,
) -> None:
    process = start_gateway(
        {"channels": [{"pattern": "room:*", "history": {"messages": 10, "seconds": 60}}]}
    )
    config = str(process._log_path.with_name("gateway.toml"))

    def drain(method: str, state: str) -> None:
        deadline = time.monotonic() + 30
        while json.loads(api(process, method))["state"] != state:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            method = "GET"

    with started("watch", "room:42", "--config", config, "--count", "3") as tail:
        wait_for_tail(process, tail)
        assert invoke("publish", "room:42", "a", "{}", "--config", config).exit_code == 0
        drain("POST", "drained")
        for event in ("b", "c"):
            assert invoke("publish", "room:42", event, "{}", "--config", config).exit_code == 0
        drain("DELETE", "serving")
        out, err = tail.communicate(timeout=30)

    assert [json.loads(line)["event"] for line in out.splitlines()] == ["a", "b", "c"]
    assert err.splitlines() == [
        "warning: the replica has moved its clients away; connecting again",
        "note: connected again, and nothing was missed",
    ]


def api(process: GatewayProcess, method: str) -> bytes:
    """The answer of the calls about a drain."""
    request = urllib.request.Request(f"{process.internal_url}/v1/drain", method=method)  # noqa: S310 -- always http
    request.add_header("X-API-Key", API_KEY)
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 -- as above
        return bytes(response.read())


def test_top_is_live_in_a_terminal_and_a_snapshot_in_a_pipe(
    gateway: tuple[GatewayProcess, str],
) -> None:
    _, config = gateway
    result = invoke("top", "--config", config)

    assert (result.exit_code, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    head, *_, row = result.stdout.splitlines()
    assert head.endswith("serving, ready")
    assert row.split() == ["*", head.split()[0], "0", "0"]

    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "top", "--config", config], stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"\x1b[J" not in shown:  # the first screen is whole
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(ours, 65536):
                shown += more
    os.close(ours)

    assert process.returncode == 0
    assert shown.startswith(b"\x1b[?1049h")
    assert b"serving, ready" in shown
    assert shown.endswith(b"\x1b[?1049l"), "the terminal is as it was"


def test_bash_completes_what_is_typed() -> None:
    script = """
        eval "$(_GATEWAY_COMPLETE=source_bash gateway)"
        COMP_WORDS=(gateway watch --c) COMP_CWORD=2
        _gateway_completion gateway
        echo "${COMPREPLY[@]}"
    """
    beside = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", script], env=os.environ | beside, capture_output=True, text=True, check=True
    )

    assert (result.stdout.split(), result.stderr) == (["--count", "--config"], "")


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
