"""Calls the HTTP API of a running gateway, for the commands that need one."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import typer

from gateway.cli.options import Failure, network_words
from gateway.config import Config
from gateway.config.address import reachable
from gateway.config.fields import Scope
from gateway.errors import ConfigError

TIMEOUT_SECONDS: Final = 10.0

UrlOption: TypeAlias = Annotated[
    str | None, typer.Option(help="The internal listener; else from the configuration.")
]
KeyOption: TypeAlias = Annotated[
    str | None, typer.Option(help="An API key; else from the configuration.")
]


def call(
    settings: Config,
    method: str,
    path: str,
    *,
    scope: Scope,
    url: str | None,
    key: str | None,
    body: Mapping[str, Any] | None = None,
) -> str:
    """Call the API; returns the answer's body.

    Args:
        scope: What the key taken from the configuration must allow.
        url: Base URL; None for the configured one.
        key: None for the first configured one with the scope.

    Raises:
        Failure: It cannot be reached, or refuses.
        ConfigError: There is no key.
    """
    base = (url or f"http://{reachable(settings.server.internal)}").rstrip("/")
    return asyncio.run(_send(method, f"{base}{path}", key or _key(settings, scope), body))


def _key(config: Config, scope: Scope) -> str:
    for key in config.api.keys:
        if scope in key.scopes:
            return key.key
    raise ConfigError(f"api.keys: none has the scope {scope}; give --key")


async def _send(method: str, url: str, key: str, body: Mapping[str, Any] | None) -> str:
    # aiohttp takes a third of a second to load, which other commands need not spend
    import aiohttp  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {key}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    data = None if body is None else msgspec.json.encode(body)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, data=data, headers=headers) as response,
        ):
            status, answer = response.status, await response.text()
    except TimeoutError:
        raise Failure(f"{url}: no answer within {TIMEOUT_SECONDS:g} seconds") from None
    except aiohttp.InvalidURL:
        raise typer.BadParameter("must be like http://host:4001", param_hint="--url") from None
    except ValueError:
        raise typer.BadParameter("must be what a header can hold", param_hint="--key") from None
    except (aiohttp.ClientError, OSError) as problem:
        raise Failure(f"{url}: {network_words(problem)}") from None
    if not 200 <= status < 300:
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
