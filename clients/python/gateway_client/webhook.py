"""Verifies that a callback comes from the gateway: Standard Webhooks 1.0."""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, TypedDict

TOLERANCE_SECONDS = 300


class InvalidSignature(ValueError):
    """It comes from somebody else, or is old: answer 401, and do nothing."""


class Device(TypedDict, total=False):
    """What is known of a device."""

    id: str
    name: str
    type: str


class Callback(TypedDict, total=False):
    """What a callback says; all but ``type`` may be absent. See docs/upstream.md for what is when."""

    type: str
    session: str
    user: str
    device: Device
    state: Any
    topic: str
    event: str
    payload: Any
    params: Any
    replica: str
    sessions: int


def verify(body: bytes, headers: Mapping[str, str], *secrets: str) -> Callback:
    """What a callback says, if one of the secrets signed it within the last five minutes.

    Args:
        body: The bytes as they came, before anything parsed them.
        headers: All of the request's, or those that begin with ``webhook-``.
        secrets: Each ``whsec_…``, as in ``upstream.secrets``.

    Raises:
        InvalidSignature: It is not to be believed.
    """
    given = {name.lower(): value for name, value in headers.items()}
    sent_at = given.get("webhook-timestamp", "")
    if not (sent_at.isascii() and sent_at.isdigit()):
        raise InvalidSignature("webhook-timestamp is missing or no number")
    if abs(time.time() - int(sent_at)) > TOLERANCE_SECONDS:
        raise InvalidSignature("webhook-timestamp is not within five minutes of now")
    signed = b"%b.%b.%b" % (given.get("webhook-id", "").encode(), sent_at.encode(), body)
    signatures = given.get("webhook-signature", "").encode().split(b" ")
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        ours = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
        if any(hmac.compare_digest(ours, signature) for signature in signatures):
            callback: Callback = json.loads(body)
            return callback
    raise InvalidSignature("webhook-signature is of no secret of ours")
