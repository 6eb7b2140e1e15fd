"""``gateway publish``: one message to a topic, through the API of a running gateway."""

import asyncio
from typing import Annotated, Any, Final

import msgspec
import typer

from gateway.cli.options import (
    Assignments,
    ConfigFile,
    Dev,
    Failure,
    network_words,
    read_config,
    write,
)
from gateway.config import Config
from gateway.config.address import reachable
from gateway.errors import ConfigError

TIMEOUT_SECONDS: Final = 10.0


def publish(
    topic: Annotated[str, typer.Argument(help="Where to, such as room:42.")],
    event: Annotated[str, typer.Argument(help="Name of the event.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="A JSON object.")],
    *,
    url: Annotated[
        str | None, typer.Option(help="The internal listener; else from the configuration.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="An API key; else from the configuration.")
    ] = None,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """Publish a message to everybody on a topic, and print the gateway's answer."""
    settings = read_config(config, dev, assignments).config
    try:
        body = {"topic": topic, "event": event, "payload": _object(payload)}
    except msgspec.DecodeError:
        raise typer.BadParameter("must be a JSON object", param_hint="JSON") from None
    base = (url or f"http://{reachable(settings.server.internal)}").rstrip("/")
    write(asyncio.run(_post(f"{base}/v1/publish", key or _key(settings), body)))


def _object(text: str) -> msgspec.Raw:
    """The text itself, as it shall arrive byte for byte.

    Raises:
        msgspec.DecodeError: It is no JSON object.
    """
    msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return msgspec.Raw(text.encode())


def _key(config: Config) -> str:
    for key in config.api.keys:
        if "publish" in key.scopes:
            return key.key
    raise ConfigError("api.keys: none has the scope publish; give --key")


async def _post(url: str, key: str, body: dict[str, Any]) -> str:
    # aiohttp takes a third of a second to load, which other commands need not spend
    import aiohttp  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=msgspec.json.encode(body), headers=headers) as response,
        ):
            status, answer = response.status, await response.text()
    except TimeoutError:
        raise Failure(f"{url}: no answer within {TIMEOUT_SECONDS:g} seconds") from None
    except aiohttp.InvalidURL:
        raise typer.BadParameter("must be like http://host:4001", param_hint="--url") from None
    except (aiohttp.ClientError, OSError) as problem:
        raise Failure(f"{url}: {network_words(problem)}") from None
    if status != 202:
        raise Failure(f"{url}: {_problem(status, answer)}")
    return answer.strip()


def _problem(status: int, answer: str) -> str:
    """An RFC 9457 problem in one line."""
    try:
        problem = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        return f"HTTP {status}"
    parts = [str(problem[name]) for name in ("title", "detail") if problem.get(name)]
    fields = problem.get("errors")
    if isinstance(fields, list):
        parts += [
            f"{field.get('field')}: {field.get('message')}"
            for field in fields
            if isinstance(field, dict)
        ]
    return f"HTTP {status}: {'; '.join(parts)}"
