"""Signatures, judged by the library receivers use."""

import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.upstream.call import sign

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
FOREIGN = "whsec_" + base64.b64encode(b"f" * 32).decode()
BODY = '{"type":"gateway.join","user":"Jürgen"}'.encode()


def received(signature: str, at: int) -> dict[str, str]:
    """The headers a backend gets."""
    return {
        "webhook-id": "abc",
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }


def test_a_signature_is_verified() -> None:
    now = int(time.time())

    assert Webhook(NEW).verify(BODY, received(sign([NEW], "abc", now, BODY), now))


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_each_of_two_secrets_verifies_alone(secret: str) -> None:
    now = int(time.time())

    assert Webhook(secret).verify(BODY, received(sign([NEW, OLD], "abc", now, BODY), now))


@pytest.mark.parametrize(
    ("secret", "body", "signed_id", "age"),
    [
        pytest.param(NEW, BODY + b" ", "abc", 0, id="changed body"),
        pytest.param(NEW, BODY, "xyz", 0, id="another id"),
        pytest.param(NEW, BODY, "abc", 301, id="old"),
        pytest.param(NEW, BODY, "abc", -301, id="from the future"),
        pytest.param(FOREIGN, BODY, "abc", 0, id="another secret"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    secret: str, body: bytes, signed_id: str, age: int
) -> None:
    at = int(time.time()) - age
    signature = sign([NEW, OLD], signed_id, at, BODY)

    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, received(signature, at))


def test_the_time_is_signed_too() -> None:
    now = int(time.time())
    signature = sign([NEW], "abc", now - 1, BODY)

    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY, received(signature, now))


@given(
    st.binary(min_size=24, max_size=64),
    st.text("0123456789abcdef", min_size=1),
    st.integers(0, 2**32),
    st.text(),
)
def test_it_is_what_the_library_signs(key: bytes, name: str, at: int, body: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    moment = datetime.fromtimestamp(at, UTC)

    assert sign([secret], name, at, body.encode()) == Webhook(secret).sign(name, moment, body)
