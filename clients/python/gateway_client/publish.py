"""Publishes messages, at whichever replica answers."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, Unpack, cast

import httpx

from .types import Problem, PublishRequest, PublishResponse

TIMEOUT_SECONDS = 10.0

_PATH = "/v1/publish"


class PublishError(Exception):
    """It cannot be said that a message was published."""


class Refused(PublishError):
    """It was not, and would not be if it were repeated as it is.

    Attributes:
        status: HTTP status.
        problem: Why; empty where the answer is none of a gateway's.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"HTTP {status}: {problem.get('detail') or problem.get('title') or ''}")
        self.status = status
        self.problem = problem


class Unavailable(PublishError):
    """It was certainly not: no replica can be reached, or none has a bus. Repeat it later."""


class OutcomeUnknown(PublishError):
    """There was no answer in time, or none of a gateway's. Repeat it, with the same ``id``."""


class Gateway:
    """Gateways that are replicas of each other.

    Args:
        urls: Their internal listeners, such as ``http://gateway:4001``, in the order in which to ask them.
        key: An API key with the scope ``publish``.
    """

    def __init__(self, *urls: str, key: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        *self._others, self._last = _bases(urls)
        self._http = httpx.Client(headers=_headers(key), timeout=timeout_seconds)

    def publish(self, **message: Unpack[PublishRequest]) -> PublishResponse:
        """Publish one message; see ``POST /v1/publish``.

        Where it went to several topics or users, ``results`` says which of them took it.

        Raises:
            PublishError: None took it, or nobody knows.
        """
        for url in self._others:
            with suppress(Unavailable):
                return self._ask(url, message)
        return self._ask(self._last, message)

    def _ask(self, url: str, message: PublishRequest) -> PublishResponse:
        with _in_words(url):
            return _outcome(self._http.post(f"{url}{_PATH}", json=message))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncGateway:
    """The same for asyncio; see :class:`Gateway`."""

    def __init__(self, *urls: str, key: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        *self._others, self._last = _bases(urls)
        self._http = httpx.AsyncClient(headers=_headers(key), timeout=timeout_seconds)

    async def publish(self, **message: Unpack[PublishRequest]) -> PublishResponse:
        """Publish one message; see :meth:`Gateway.publish`."""
        for url in self._others:
            with suppress(Unavailable):
                return await self._ask(url, message)
        return await self._ask(self._last, message)

    async def _ask(self, url: str, message: PublishRequest) -> PublishResponse:
        with _in_words(url):
            return _outcome(await self._http.post(f"{url}{_PATH}", json=message))

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _bases(urls: tuple[str, ...]) -> list[str]:
    if not urls:
        raise ValueError("at least one URL is needed")
    return [url.rstrip("/") for url in urls]


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def _in_words(url: str) -> Iterator[None]:
    """What can happen on the way: before the request was sent, or after."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as problem:
        raise Unavailable(f"{url}: {problem!r}") from problem
    except httpx.TransportError as problem:
        raise OutcomeUnknown(f"{url}: {problem!r}") from problem


def _outcome(response: httpx.Response) -> PublishResponse:
    answer = _object(response)
    if response.status_code == 202 and "results" in answer:
        return cast("PublishResponse", answer)
    refused = Refused(response.status_code, cast("Problem", answer))
    if response.status_code == 503:
        raise Unavailable(str(refused))
    if 400 <= response.status_code < 500:
        raise refused
    raise OutcomeUnknown(str(refused))


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
