"""``gateway check-config`` and ``gateway config``: look at a configuration without serving."""

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from gateway.auth.rules import PersonalTopic, Rules
from gateway.cli.options import (
    FAILED,
    Assignments,
    ConfigFile,
    Dev,
    complain,
    read_config,
    read_to_serve,
    write,
)
from gateway.config import Config
from gateway.config.check import warnings
from gateway.config.keys import KEYS
from gateway.config.load import effective
from gateway.config.masking import masked
from gateway.config.reference import markdown_reference, toml_reference, toml_value
from gateway.protocol.reserved import RESERVED_TOPIC


class Reference(StrEnum):
    """Forms of the documentation of all keys."""

    TOML = "toml"
    MARKDOWN = "markdown"


def check_config(
    *,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect", help="Also connect to the bus, and say why a replica would not be ready."
        ),
    ] = False,
    topic: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Say which channel rule a topic matches.")
    ] = None,
) -> None:
    """Check the configuration, and list all its errors and warnings."""
    loaded = read_to_serve(config, dev, assignments)
    for warning in warnings(loaded.config):
        complain(warning, "warning")
    if connect:
        # only this option needs the bus
        from gateway.cli.connect import connect as try_bus  # noqa: PLC0415

        write(asyncio.run(try_bus(loaded.config)))
    if topic is not None:
        write(_rule(loaded.config, topic))
    write("the configuration is valid")


def show_config(
    *,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
    reference: Annotated[
        Reference | None, typer.Option(help="Print the documentation of all keys instead.")
    ] = None,
) -> None:
    """Print the configuration in force: each key, its value and where that comes from. Secrets are masked."""
    if reference is not None:
        typer.echo(
            toml_reference() if reference is Reference.TOML else markdown_reference(), nl=False
        )
        return
    for key, value, origin in effective(read_config(config, dev, assignments)):
        write(f"{key} = {toml_value(value)}  # {origin}")


def _rule(config: Config, topic: str) -> str:
    personal = PersonalTopic(config.sessions.personal_topic)
    rules = Rules((*config.channels, personal))
    rule = None if topic == RESERVED_TOPIC else rules.match(topic)
    if rule is None:
        complain(f'topic "{topic}" matches no channel rule, so nobody can join it')
        raise typer.Exit(FAILED)
    patterns = [channel.pattern for channel in config.channels]
    where = (
        f"channels[{patterns.index(rule.pattern)}]"
        if rule.pattern in patterns
        else "the built-in rule of personal topics"
    )
    kept = rule.history
    history = f"{kept.messages} messages of {kept.seconds} seconds" if kept else "none"
    lines = [
        (
            f'topic "{topic}" matches {where}, "{rule.pattern}": join {rule.join}, push {rule.push},'
            f" echo {str(rule.echo).lower()}, presence {str(rule.presence).lower()},"
            f" history {history}, slow_consumer {rule.slow_consumer}"
        )
    ]
    if needed := rule.needed(topic):
        claims = ", ".join(f"{name} = {value}" for name, value in needed)
        lines.append(f"it is joined only with a token that says {claims}")
    if "upstream" in (rule.join, rule.push):
        backend = rule.upstream_url or config.upstream.url
        lines.append(f"its backend is {masked(backend, KEYS['upstream.url'].shape)}")
    return "\n".join(lines)
