"""Calls the HTTP API of a running gateway, for the commands that need one."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
import typer

from gateway.cli.options import Failure, network_words
from gateway.config import Config
from gateway.config.address import reachable
from gateway.config.fields import Scope
from gateway.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_SECONDS: Final = 10.0

READY_PATH: Final = "/readyz"
"""Its 503 is an answer."""

_LINES: Final = "application/x-ndjson"

METRICS_PATH: Final = "/metrics"
"""Its answer is no JSON."""

UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The internal listener. Default: that of the configuration."),
]
KeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="GATEWAY_API_KEY",  # what stands on a command line all users of the machine can read
        help="An API key. Default: one of the configuration.",
    ),
]


class Unreachable(Failure):
    """There is no answer, or a refusal for now: it may be another one later."""


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
    target, secret = address(settings, path, scope=scope, url=url, key=key)

    async def send() -> str:
        async with _session(secret) as session:
            return await _send(session, method, target, body)

    return asyncio.run(send())


def fetch(
    settings: Config, paths: Sequence[str], *, scope: Scope, url: str | None, key: str | None
) -> list[str]:
    """The bodies of several resources; of ``/readyz`` also when it is not ready.

    Raises:
        Failure: See :func:`call`.
    """
    addresses = [address(settings, path, scope=scope, url=url, key=key) for path in paths]

    async def send() -> list[str]:
        async with _session(addresses[0][1]) as session:
            return [await _send(session, "GET", target, None) for target, _ in addresses]

    return asyncio.run(send())


def address(
    settings: Config, path: str, *, scope: Scope, url: str | None, key: str | None
) -> tuple[str, str]:
    """The URL of a call and the key for it; see :func:`call`."""
    base = (url or f"http://{reachable(settings.server.internal)}").rstrip("/")
    return f"{base}{path}", key or _key(settings, scope)


def _key(config: Config, scope: Scope) -> str:
    for key in config.api.keys:
        if scope in key.scopes:
            return key.key
    raise ConfigError(
        f"no API key: none has the scope {scope} in the configuration; give --config FILE or --key KEY"
    )


def _session(key: str, timeout: "aiohttp.ClientTimeout | None" = None) -> "aiohttp.ClientSession":
    # aiohttp takes a third of a second to load, which other commands need not spend
    import aiohttp  # noqa: PLC0415

    return aiohttp.ClientSession(
        timeout=timeout or aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        headers={"Authorization": f"Bearer {key}"},
    )


async def _send(
    session: "aiohttp.ClientSession", method: str, url: str, body: Mapping[str, Any] | None
) -> str:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    data = None if body is None else msgspec.json.encode(body)
    with _failures(url, TIMEOUT_SECONDS):
        async with session.request(method, url, data=data, headers=headers) as response:
            answer = await response.text()
            if not (response.status == 503 and url.endswith(READY_PATH)):
                text = url.endswith(METRICS_PATH)
                _require_ok(url, response, "text/plain" if text else "application/json", answer)
            return answer.strip()


async def read_lines(url: str, key: str, silence_seconds: float) -> AsyncGenerator[bytes, None]:
    """The lines of an answer that goes on and on.

    Args:
        silence_seconds: After which it is given up.

    Raises:
        Unreachable: There is no answer, or no more of it than this, or a refusal for now.
        Failure: It is refused.
    """
    import aiohttp  # noqa: PLC0415 -- as above

    timeout = aiohttp.ClientTimeout(connect=TIMEOUT_SECONDS, sock_read=silence_seconds)
    with _failures(url, silence_seconds):
        async with _session(key, timeout) as session, session.get(url) as response:
            if response.content_type != _LINES or not response.ok:
                _require_ok(url, response, _LINES, await response.text())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line


@contextmanager
def _failures(url: str, seconds: float) -> Iterator[None]:
    """Put what can happen on the way into words."""
    import aiohttp  # noqa: PLC0415 -- as above

    try:
        yield
    except TimeoutError:
        raise Unreachable(f"{url}: no answer within {seconds:g} seconds") from None
    except aiohttp.InvalidURL:
        raise typer.BadParameter("must be like http://host:4001", param_hint="--url") from None
    except (aiohttp.ClientError, OSError) as problem:
        raise Unreachable(f"{url}: {network_words(problem)}") from None
    except ValueError:  # after those, as a certificate that is not trusted is one of both
        raise typer.BadParameter("must be what a header can hold", param_hint="--key") from None


def _require_ok(url: str, response: "aiohttp.ClientResponse", media: str, answer: str) -> None:
    """Raises for what is no answer of a gateway, too, whatever its status."""
    status = response.status
    if 200 <= status < 300 and response.content_type == media:
        return
    kind = Unreachable if status == 429 or status >= 500 else Failure
    raise kind(f"{url}: {_problem(status, answer)}")


def _problem(status: int, answer: str) -> str:
    """An RFC 9457 problem in one line."""
    try:
        problem = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        return f"HTTP {status}, and no answer of a gateway: is it the internal listener?"
    parts = [str(problem[name]) for name in ("title", "detail") if problem.get(name)]
    fields = problem.get("errors")
    if isinstance(fields, list):
        parts += [
            f"{field.get('field')}: {field.get('message')}"
            for field in fields
            if isinstance(field, dict)
        ]
    return f"HTTP {status}: {'; '.join(parts)}"
