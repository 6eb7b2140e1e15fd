"""Fetching over the network: what is an answer, and what is none."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.app import fetch as module
from gateway.app.fetch import MAX_BYTES, fetch
from gateway.errors import FetchError
from tests.support.provider import (
    Handler,
    IdentityProvider,
    cut,
    dripping,
    failing,
    garbage,
    huge,
    redirecting,
)


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    """A provider without keys."""
    async with IdentityProvider() as provider:
        yield provider


async def test_the_body_is_fetched_and_json_is_asked_for(provider: IdentityProvider) -> None:
    assert await fetch(provider.url) == b'{"keys": []}'

    (headers,) = provider.requests
    assert headers["Accept"] == "application/json"
    assert headers["Accept-Encoding"] == "identity"


async def test_what_it_is_called_does_not_matter(provider: IdentityProvider) -> None:
    provider.handler = garbage

    assert await fetch(provider.url) == b"<html>please log in</html>"


async def test_an_answer_of_the_most_bytes_is_taken(provider: IdentityProvider) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * size)

    provider.handler = answer
    size = MAX_BYTES
    assert len(await fetch(provider.url)) == MAX_BYTES
    size += 1
    with pytest.raises(FetchError, match="longer than 262144 bytes"):
        await fetch(provider.url)


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (failing, "the answer is HTTP 503"),
        (redirecting, "the answer is HTTP 302"),
        (huge, "longer than 262144 bytes"),
        (cut, "no connection"),
    ],
)
async def test_a_bad_answer_is_none(
    provider: IdentityProvider, handler: Handler, words: str
) -> None:
    provider.handler = handler

    with pytest.raises(FetchError, match=words) as caught:
        await fetch(provider.url)

    assert "hunter2" not in str(caught.value)
    assert provider.url not in str(caught.value)
    assert len(provider.requests) == 1


async def test_an_answer_that_drips_is_too_late(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)
    provider.handler = dripping

    with pytest.raises(FetchError, match="no answer within"):
        await fetch(provider.url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/keys",
        "http://nobody.invalid/keys",
        "http://[::1/keys",
        "http://127.0.0.1:99999/keys",
        f"http://{'x' * 70}.example/keys",
    ],
)
async def test_an_address_where_nobody_is_says_so(url: str) -> None:
    with pytest.raises(FetchError, match="no connection"):
        await fetch(url)
