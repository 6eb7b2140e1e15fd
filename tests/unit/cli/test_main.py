"""The command as a whole: exit codes, plain errors, and a quick start."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest
from typer.testing import Result

import gateway
from gateway.cli import main
from gateway.cli.commands import app
from gateway.cli.options import Failure

Invoke = Callable[..., Result]
RunProcess = Callable[..., CompletedProcess[str]]

COMMANDS = {"serve", "check-config", "config", "token", "publish", "watch", "sessions", "openapi"}


def test_all_commands_are_there() -> None:
    assert {
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    } == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(invoke: Invoke, command: str) -> None:
    result = invoke(command, "--help")

    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_the_version_is_told(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"{gateway.__version__}\n"


def test_the_api_is_described_as_openapi(run_process: RunProcess) -> None:
    result = run_process("openapi")

    assert (result.returncode, result.stderr) == (0, "")
    assert '"openapi": "3.1.0"' in result.stdout


def test_a_wrong_configuration_ends_the_process_with_2(run_process: RunProcess) -> None:
    result = run_process("serve", "--set", 'channels=[{"pattern": "a", "join": "upstream"}]')

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        'error: channels[0].join: "upstream" is not allowed; upstream.url names no backend\n'
    )


def test_a_port_that_is_taken_ends_the_process_with_1(run_process: RunProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        result = run_process("serve", "--dev", "--set", f"server.public={address}")

    assert result.returncode == 1
    assert "error: cannot serve: Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [(), ("serv",), ("serve", "--port", "1")])
def test_misuse_ends_with_2(invoke: Invoke, command: tuple[str, ...]) -> None:
    assert invoke(*command).exit_code == 2


def test_a_failure_is_one_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Failure("it did not work")

    monkeypatch.setattr("gateway.cli.inspect.read_config", fail)

    result = invoke("config")

    assert (result.exit_code, result.stderr) == (1, "error: it did not work\n")


def test_it_can_be_ended_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "gateway.cli.commands", SimpleNamespace(app=load))
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert ended.value.code == 143


def test_the_libraries_of_the_server_are_not_loaded_to_start() -> None:
    code = "import sys, gateway.cli.commands; print(*sys.modules)"

    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"aiohttp", "nats", "prometheus_client", "jwt", "structlog", "uvloop"} & set(out)
