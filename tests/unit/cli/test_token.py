"""Tokens from the command line."""

from collections.abc import Callable
from typing import Any

import jwt
import pytest
from typer.testing import Result

from gateway.cli.token import duration

Invoke = Callable[..., Result]

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
SIGNED = ("--set", f'auth.secrets=["{SECRET}", "older-older-older-older-older-older"]')


def claims(token: str, **options: Any) -> dict[str, Any]:
    """What a token says, if the first secret signed it."""
    payload: dict[str, Any] = jwt.decode(token.strip(), SECRET, algorithms=["HS256"], **options)
    return payload


def test_a_token_is_signed_with_the_first_secret_for_an_hour(invoke: Invoke) -> None:
    result = invoke("token", "--user", "42", *SIGNED)

    payload = claims(result.stdout)
    assert result.exit_code == 0
    assert payload["sub"] == "42"
    assert payload["exp"] - payload["iat"] == 3600
    assert payload.keys() == {"sub", "iat", "exp"}


def test_device_topics_lifetime_audience_and_issuer_are_claims(invoke: Invoke) -> None:
    result = invoke(
        "token", "--user", "42", "--device", "phone", "--topics", "room:*", "--topics", "lobby",
        "--ttl", "15m", *SIGNED, "--set", "auth.audience=chat", "--set", "auth.issuer=login",
    )  # fmt: skip

    payload = claims(result.stdout, audience="chat", issuer="login")
    assert payload["device"] == {"id": "phone"}
    assert payload["topics"] == ["room:*", "lobby"]
    assert payload["exp"] - payload["iat"] == 900


def test_without_a_secret_there_is_no_token(invoke: Invoke) -> None:
    result = invoke("token", "--user", "42")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "error: auth.secrets: is empty" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--user", ""),
        ("--user", "x" * 256),
        ("--user", "42", "--ttl", "soon"),
        ("--user", "42", "--ttl", "0s"),
        ("--user", "42", "--ttl", "2d"),
    ],
)
def test_misuse_is_told_without_a_token(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("token", *arguments, *SIGNED)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error:" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172_800)]
)
def test_durations_have_units(text: str, seconds: int) -> None:
    assert duration(text) == seconds
