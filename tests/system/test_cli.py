"""The gateway's commands as an operator runs them: processes, and a gateway they talk to."""

import json
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

import pytest

from tests.conftest import StartGateway, StartNats
from tests.support.command import invoke, run_process, started
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.ports import free_port
from tests.support.tokens import SECRET


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Iterator[tuple[GatewayProcess, str]]:
    """A running gateway and the path of its configuration."""
    process = start_gateway({"log": {"level": "debug", "format": "json"}})
    yield process, str(process._log_path.with_name("gateway.toml"))
    assert SECRET not in process.full_log()
    assert API_KEY not in process.full_log()


def wait_for_join(gateway: GatewayProcess, tail: "subprocess.Popen[str]") -> None:
    """Return once the gateway has a topic, which is the watched one."""
    deadline = time.monotonic() + 30
    while gateway.metric("topics") != 1:
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
    assert "takes messages of 28672 bytes" in accepted.stdout


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


def test_what_is_published_is_watched(gateway: tuple[GatewayProcess, str]) -> None:
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


def test_the_sessions_of_a_user_are_listed(gateway: tuple[GatewayProcess, str]) -> None:
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


def test_refusals_of_a_running_gateway_are_failures(gateway: tuple[GatewayProcess, str]) -> None:
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
