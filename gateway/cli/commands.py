"""The commands: each reads the configuration, then serves, checks, or talks to a running gateway."""

from collections.abc import Callable
from typing import Annotated, Final

import typer

from gateway import __version__
from gateway.cli.inspect import check_config, show_config
from gateway.cli.openapi import openapi
from gateway.cli.options import Commands
from gateway.cli.publish import publish
from gateway.cli.serve import serve
from gateway.cli.sessions import sessions
from gateway.cli.token import token
from gateway.cli.top import top
from gateway.cli.watch import watch

_LITERALLY: Final = "\b\n"
"""What a formatter of help must not fill is a paragraph that begins so."""

_SURROUNDINGS: Final = """Environment:
  GATEWAY_CONFIG            the configuration file, as --config
  GATEWAY_<SECTION>__<KEY>  one key of it, such as GATEWAY_BUS__URL
  GATEWAY_API_KEY           the API key, as --key

Exit codes:
  0  it worked
  1  the command failed
  2  the configuration or the command line is wrong

Examples:
  gateway serve --dev
  gateway watch room:demo --dev
  gateway publish room:demo message '{"body": "hello"}' --dev
"""

app = typer.Typer(
    name="gateway",
    cls=Commands,
    no_args_is_help=True,
    # a traceback of typer's shows the values of local variables, secrets among them
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=_LITERALLY + _SURROUNDINGS.replace("\n\n", f"\n\n{_LITERALLY}"),
)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Phoenix Channels for every backend language."""


EXAMPLES: Final[dict[Callable[..., None], tuple[str, ...]]] = {
    serve: (
        "gateway serve --dev",
        "gateway serve --config /etc/gateway.toml",
        "gateway serve --config gateway.toml --set bus.url=nats://nats:4222",
        "gateway serve --config gateway.toml --workers auto",
    ),
    check_config: (
        "gateway check-config --config gateway.toml",
        "gateway check-config --config gateway.toml --connect --topic room:42",
    ),
    show_config: (
        "gateway config --config gateway.toml",
        "gateway config --reference toml",
    ),
    token: (
        "gateway token --user 42 --config gateway.toml",
        "gateway token --user 42 --device phone --topics 'room:*' --ttl 15m --config gateway.toml",
    ),
    publish: (
        """gateway publish room:42 new_message '{"text": "hi"}' --config gateway.toml""",
        """gateway publish room:42 new_message '{}' --url http://gateway:4001""",
    ),
    watch: (
        "gateway watch room:42 --config gateway.toml",
        """gateway watch 'room:*' --url http://gateway:4001""",
        "gateway watch room:42 --count 1 --config gateway.toml | jq .payload",
    ),
    sessions: ("gateway sessions 42 --config gateway.toml",),
    top: (
        "gateway top --config gateway.toml",
        "gateway top --url http://gateway:4001 --interval 5",
    ),
    openapi: ("gateway openapi > openapi.json",),
    version: ("gateway version",),
}
"""The commands, in the order of the help, with examples."""

_NAMES: Final = {check_config: "check-config", show_config: "config"}

for _command, _examples in EXAMPLES.items():
    app.command(
        _NAMES.get(_command, _command.__name__),
        epilog=_LITERALLY + "\n  ".join(("Examples:", *map(str.strip, _examples))),
    )(_command)
