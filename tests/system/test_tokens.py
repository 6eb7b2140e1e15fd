"""Tokens at the socket: all the bad ones are refused, counted and kept out of the log; keys are rotated."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import StartGateway
from tests.support.bad_tokens import (
    BAD_TOKENS,
    FOREIGN_SECRET,
    MARK,
    OCT_SECRET,
    OLDER_SECRET,
    SECRET,
    auth,
    good_tokens,
    key_set,
    signed,
)
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.keys import (
    ALGORITHMS,
    ed,
    private_key,
    private_pem,
    public_jwk,
    public_pem,
    rsa,
)
from tests.support.provider import (
    Handler,
    IdentityProvider,
    cut,
    failing,
    garbage,
    huge,
    redirecting,
)
from tests.support.waiting import eventually

SHORTEST_SECRET_WORD = 12


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    """An identity provider with one key, ``a``."""
    async with IdentityProvider(public_jwk(ed("a"), "a")) as provider:
        yield provider


def token_of(kid: str | None, algorithm: str = "EdDSA", name: str | None = None) -> str:
    """A token that a key of the provider signed."""
    now = int(time.time())
    headers = None if kid is None else {"kid": kid}
    payload = {"sub": "42", "iat": now, "exp": now + 3600}
    return jwt.encode(payload, private_key(algorithm, name or kid or ""), algorithm, headers)


async def connect(gateway: GatewayProcess, token: str | None) -> int:
    """The status of a handshake: 101 when it is let in."""
    try:
        client = await PhoenixClient.connect(gateway.socket_url, token)
    except InvalidStatus as refused:
        return refused.response.status_code
    await client.close()
    return 101


def refused(gateway: GatewayProcess, reason: str) -> float:
    """How many were refused for a reason."""
    return gateway.metric("connects_total", result="refused", reason=reason)


def counted_refusals(gateway: GatewayProcess) -> dict[str, int]:
    """The reasons there were, with their numbers."""
    line = re.compile(r'gateway_connects_total\{reason="(\w+)",result="refused"\} (\S+)')
    found = line.findall(gateway.get("/metrics")[1].decode())
    return {reason: int(float(number)) for reason, number in found if float(number)}


def fragments(*texts: str) -> set[str]:
    """Everything in texts that would give them away: words, segments of tokens, lines of keys."""
    return {
        word
        for text in texts
        for word in (*re.split(r"[\s.,:]+", text), text)
        if len(word) >= SHORTEST_SECRET_WORD and not word.startswith("-----")
    }


async def test_bad_tokens_are_refused_counted_and_not_logged(
    start_gateway: StartGateway, provider: IdentityProvider
) -> None:
    provider.keys = key_set()["keys"]
    gateway = start_gateway({"auth": auth() | {"jwks_url": provider.url}})
    bystander = await PhoenixClient.connect(gateway.socket_url, signed())
    tokens = {bad.name: bad.make() for bad in BAD_TOKENS}
    good = good_tokens()

    statuses = {name: await connect(gateway, token) for name, token in tokens.items()}
    accepted = {name: await connect(gateway, token) for name, token in good.items()}

    assert statuses == dict.fromkeys(tokens, 403)
    assert accepted == dict.fromkeys(good, 101)
    assert counted_refusals(gateway) == Counter(bad.reason for bad in BAD_TOKENS)
    assert (await bystander.heartbeat())[4]["status"] == "ok"
    await bystander.close()
    log = gateway.full_log()
    keys = [json.dumps(jwk) for jwk in provider.keys]
    keys += [public_pem(rsa("login")), private_pem(rsa("login"))]
    secrets = [SECRET, OLDER_SECRET, FOREIGN_SECRET, OCT_SECRET.decode(), MARK]
    leaked = {
        word for word in fragments(*tokens.values(), *good.values(), *keys, *secrets) if word in log
    }
    assert leaked == set()
    told = [
        line for line in map(json.loads, log.splitlines()) if line["event"] == "connect refused"
    ]
    assert {line["reason"] for line in told} == {bad.reason for bad in BAD_TOKENS}


async def test_without_a_token_or_a_key_the_reason_says_so(start_gateway: StartGateway) -> None:
    keyless = start_gateway({"auth": {"secrets": []}})

    assert await connect(keyless, None) == 403
    assert await connect(keyless, signed()) == 403
    assert counted_refusals(keyless) == {"no_token": 1, "no_keys": 1}


async def test_a_bad_key_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    key = private_pem(rsa("login"))
    process = GatewayProcess(tmp_path, {"auth": {"public_keys": [key]}})

    with pytest.raises(AssertionError, match="it ended"):
        process.start()

    log = process.full_log()
    assert process.wait() == 2
    assert "error: auth.public_keys[0]: must be a public key, and is a private one" in log
    assert {word for word in fragments(key) if word in log} == set()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_keys_are_rotated_without_a_refusal(
    start_gateway: StartGateway, provider: IdentityProvider, algorithm: str
) -> None:
    old, new = private_key(algorithm, "old"), private_key(algorithm, "new")
    provider.keys = [public_jwk(old, "old")]
    gateway = start_gateway({"auth": {"secrets": [], "jwks_url": provider.url}})

    assert await connect(gateway, token_of("old", algorithm)) == 101
    provider.keys = [public_jwk(new, "new"), public_jwk(old, "old")]
    assert await connect(gateway, token_of("new", algorithm)) == 101
    assert await connect(gateway, token_of("old", algorithm)) == 101
    assert await connect(gateway, token_of("new", algorithm, "evil")) == 403

    assert refused(gateway, "token_signature") == 1
    assert gateway.metric("key_fetches_total", result="ok") == 2


async def test_clients_that_come_together_wait_for_one_fetch(
    start_gateway: StartGateway, provider: IdentityProvider
) -> None:
    provider.gate.clear()
    gateway = start_gateway({"auth": {"secrets": [SECRET], "jwks_url": provider.url}})

    waiting = [asyncio.create_task(connect(gateway, token_of("a"))) for _ in range(20)]
    await eventually(lambda: bool(provider.requests))
    assert await connect(gateway, signed()) == 101  # who needs no fetch does not wait
    provider.gate.set()

    assert set(await asyncio.gather(*waiting)) == {101}
    assert len(provider.requests) == 1


async def test_made_up_keys_are_no_hammer(
    start_gateway: StartGateway, provider: IdentityProvider
) -> None:
    gateway = start_gateway({"auth": {"jwks_url": provider.url}})
    await eventually(lambda: gateway.metric("key_fetches_total", result="ok") == 1)

    statuses = {await connect(gateway, token_of(f"made-up-{n}", name="evil")) for n in range(40)}

    assert statuses == {403}
    assert refused(gateway, "token_key") == 40
    # by itself and for the first of these; a third only where the machine took ten seconds for them
    assert len(provider.requests) <= 3


@pytest.mark.parametrize("handler", [huge, garbage, failing, redirecting, cut])
async def test_a_bad_answer_at_the_start_refuses_and_later_does_no_harm(
    start_gateway: StartGateway, provider: IdentityProvider, handler: Handler
) -> None:
    provider.handler = handler
    gateway = start_gateway({"auth": {"secrets": [SECRET], "jwks_url": provider.url}})
    await eventually(lambda: gateway.metric("key_fetches_total", result="failed") == 1)
    provider.handler = None

    assert await connect(gateway, token_of("a")) == 101
    provider.handler = handler
    # the next fetch that a token may ask for is ten seconds away, and old keys are asked for nothing
    assert await connect(gateway, token_of("a")) == 101
    assert await connect(gateway, signed()) == 101

    assert "keys cannot be fetched" in gateway.full_log()
    assert "please log in" not in gateway.full_log()
    assert "hunter2" not in gateway.full_log()


async def test_a_provider_that_never_answers_is_given_up(
    start_gateway: StartGateway, provider: IdentityProvider
) -> None:
    provider.gate.clear()
    gateway = start_gateway({"auth": {"secrets": [SECRET], "jwks_url": provider.url}})

    assert await connect(gateway, token_of("a")) == 503
    assert refused(gateway, "keys_unavailable") == 1
    assert await connect(gateway, signed()) == 101


async def test_a_provider_that_is_away_costs_the_others_nothing(
    start_gateway: StartGateway,
) -> None:
    async with IdentityProvider() as gone:
        url = gone.url
    gateway = start_gateway({"auth": {"secrets": [SECRET], "jwks_url": url}})

    assert await connect(gateway, token_of("a")) == 503
    assert await connect(gateway, signed()) == 101
    assert refused(gateway, "keys_unavailable") == 1
    gateway.terminate()
    assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_token_too_long_for_a_header_is_answered_too(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    url = f"{gateway.public_url}/socket/websocket"

    async with aiohttp.ClientSession() as session:
        headers: dict[str, Any] = {"Authorization": f"Bearer {'x' * 7169}"}
        async with session.get(url, headers=headers) as response:
            assert response.status == 403
    assert refused(gateway, "token_too_long") == 1
