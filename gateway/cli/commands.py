"""The commands: each reads the configuration, then serves, checks, or talks to a running gateway."""

from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.inspect import check_config, show_config
from gateway.cli.openapi import openapi
from gateway.cli.options import Commands
from gateway.cli.publish import publish
from gateway.cli.serve import serve
from gateway.cli.sessions import sessions
from gateway.cli.token import token
from gateway.cli.watch import watch

app = typer.Typer(
    name="gateway",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    # a traceback of typer's shows the values of local variables, secrets among them
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
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


app.command()(serve)
app.command("check-config")(check_config)
app.command("config")(show_config)
app.command()(token)
app.command()(publish)
app.command()(watch)
app.command()(sessions)
app.command()(openapi)
