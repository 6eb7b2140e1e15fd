"""The command as a whole: exit codes and plain errors."""

import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from typer.testing import Result

import gateway
from gateway.cli import main
from gateway.cli.commands import app
from gateway.cli.options import Failure

Invoke = Callable[..., Result]

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
