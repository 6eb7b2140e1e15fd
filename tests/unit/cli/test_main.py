"""The command as a whole: exit codes and plain errors."""

import shlex
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner, Result

import gateway
from gateway.cli import main
from gateway.cli.commands import EXAMPLES, app
from gateway.cli.options import Failure

Invoke = Callable[..., Result]

COMMANDS = {
    "serve",
    "check-config",
    "config",
    "token",
    "publish",
    "watch",
    "sessions",
    "openapi",
    "top",
    "version",
}


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
    assert invoke("--version").stdout == invoke("version").stdout == f"{gateway.__version__}\n"


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: command.__name__)
def test_examples_are_shown_and_can_be_typed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: Callable[..., None]
) -> None:
    """Each is parsed as it stands, and nothing is done."""
    [name] = {shlex.split(example)[1] for example in EXAMPLES[command]}
    shown = invoke(name, "--help").stdout
    for example in EXAMPLES[command]:
        assert f"  {example.strip()}\n" in shown
        words = shlex.split(example.partition(" | ")[0].partition(" > ")[0])
        assert words[0] == "gateway"
        parsed = typer.main.get_command(app)
        monkeypatch.setattr(parsed.commands[name], "invoke", lambda _: None)  # type: ignore[attr-defined]
        assert parsed.main(words[1:], standalone_mode=False) is None


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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    words = {
        "COMP_WORDS": "gateway wa",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "gateway wa",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }

    def run(instruction: str) -> str:
        environment = words | {"_GATEWAY_COMPLETE": f"{instruction}_{shell}"}
        return CliRunner().invoke(app, env=environment, prog_name="gateway").stdout

    if shell != "bash":  # whose version would be asked for
        assert f"_GATEWAY_COMPLETE=complete_{shell}" in run("source"), "as docs/cli.md has it"
    assert "watch" in run("complete")
    assert "serve" not in run("complete")


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "1.5", "100000"])
def test_a_number_of_workers_that_is_none_is_refused(invoke: Invoke, number: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = invoke("serve", f"--workers={number}")
    signal.signal(signal.SIGTERM, before)

    assert result.exit_code == 2
    assert result.stderr == "error: --workers: must be a number from 1 to 1024, or auto\n"
