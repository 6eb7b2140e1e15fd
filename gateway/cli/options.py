"""Options, reading of the configuration, errors and output, as all commands have them."""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperGroup

from gateway.config import Config, Loaded, load_config
from gateway.config.check import missing_files, short_secrets
from gateway.errors import ConfigError, GatewayError

FAILED: Final = 1
"""Exit code: the command failed."""

MISUSED: Final = 2
"""Exit code: the configuration or the command line is wrong."""

ConfigFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="Configuration file, TOML. Default: GATEWAY_CONFIG."
    ),
]
Dev: TypeAlias = Annotated[
    bool, typer.Option("--dev", help="Development mode: open to everybody, on this machine only.")
]
Assignments: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override one configuration key; lists as JSON. Repeatable.",
    ),
]


class Failure(GatewayError):
    """A command that did not work, in words for whoever typed it."""


class Commands(TyperGroup):
    """Commands whose errors are lines on standard error, never tracebacks."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 -- typer's own types moved between its releases
        """Run a command.

        Raises:
            typer.Exit: With the code of the error, after saying what it is.
        """
        try:
            return super().invoke(ctx)
        except ConfigError as problem:
            for line in problem.problems:
                complain(line)
            raise typer.Exit(MISUSED) from None
        except GatewayError as problem:
            complain(str(problem))
            raise typer.Exit(FAILED) from None


def complain(line: str, kind: str = "error") -> None:
    """Write a line on standard error."""
    typer.echo(f"{kind}: {line}", err=True)


def write(line: str | bytes) -> None:
    """Write a line of the answer on standard output, for a pipe to read at once.

    Raises:
        BrokenPipeError: Nobody reads any more.
    """
    typer.echo(line)
    sys.stdout.flush()


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the texts of each column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def read_config(file: str | None, dev: bool, assignments: list[str] | None) -> Loaded:
    """The configuration as the options have it.

    Raises:
        ConfigError: It cannot be used.
    """
    return load_config(file, dev=dev, assignments=assignments or ())


def read_to_serve(file: str | None, dev: bool, assignments: list[str] | None) -> Loaded:
    """The configuration, checked for whether a replica can be run with it here.

    Raises:
        ConfigError: With all that is wrong.
    """
    return load_config(file, dev=dev, assignments=assignments or (), also=_in_the_way)


def _in_the_way(config: Config) -> Iterator[str]:
    yield from missing_files(config)
    yield from short_secrets(config)
    # cryptography takes a tenth of a second to load, which other commands need not spend
    from gateway.auth.keys import configured_keys  # noqa: PLC0415

    try:
        configured_keys(config.auth)
    except ConfigError as problem:
        yield from problem.problems


def network_words(problem: Exception) -> str:
    """An error of the network in words; never what was sent."""
    cause = getattr(problem, "os_error", getattr(problem, "certificate_error", problem))
    return getattr(cause, "strerror", None) or type(problem).__name__
