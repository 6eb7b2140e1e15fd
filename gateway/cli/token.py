"""``gateway token``: prints a token to try things with."""

import re
import time
from typing import Annotated, Final

import typer

from gateway.cli.options import Assignments, ConfigFile, Dev, read_config, write
from gateway.config import Config
from gateway.errors import ConfigError

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9]\d{0,8})([smhd]?)")


def duration(text: str) -> int:
    """Seconds of ``90``, ``90s``, ``15m``, ``1h`` or ``2d``.

    Raises:
        typer.BadParameter: It is none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text} is not a duration such as 90s, 15m, 1h or 2d")
    return int(match[1]) * _UNITS[match[2]]


def token(
    *,
    user: Annotated[str, typer.Option(metavar="USER", help="The user it is for: its claim sub.")],
    device: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the device it is for.")
    ] = None,
    topics: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Topics it may join. Repeatable.")
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="Lifetime: 90s, 15m, 1h, 2d.")] = "1h",
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """Print a token to try things with. It is signed with the first of auth.secrets."""
    settings = read_config(config, dev, assignments).config
    seconds = duration(ttl)
    longest = settings.auth.max_token_seconds
    if seconds > longest:
        raise typer.BadParameter(
            f"{ttl} is longer than auth.max_token_seconds, {longest} seconds", param_hint="--ttl"
        )
    from gateway.auth.rules import PersonalTopic  # noqa: PLC0415 -- as in sign()

    most = PersonalTopic(settings.sessions.personal_topic).max_user_bytes
    if not 0 < len(user.encode()) <= most:
        raise typer.BadParameter(f"must have 1 to {most} bytes", param_hint="--user")
    write(sign(settings, user, seconds, device, topics))


def sign(
    config: Config,
    user: str,
    ttl_seconds: int,
    device: str | None = None,
    topics: list[str] | None = None,
) -> str:
    """A token signed with the first of ``auth.secrets``.

    Raises:
        ConfigError: There is none.
    """
    # PyJWT takes a tenth of a second to load, which other commands need not spend
    from gateway.auth.tokens import mint  # noqa: PLC0415

    if not config.auth.secrets:
        raise ConfigError("auth.secrets: is empty; a token cannot be signed without a secret")
    return mint(
        config.auth.secrets[0],
        sub=user,
        ttl_seconds=ttl_seconds,
        now=time.time(),
        device={"id": device} if device else None,
        topics=topics,
        audience=config.auth.audience,
        issuer=config.auth.issuer,
    )
