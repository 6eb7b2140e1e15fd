"""Signatures of callbacks, as Standard Webhooks 1.0 has them: HMAC-SHA256 over id, time and body."""

import base64
import hmac
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
"""How a secret begins; base64 of the key follows."""


def sign(secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one signature for each secret, separated by blanks.

    All secrets sign, so that the backend may verify with the old one or the new one while they are
    being changed.

    Args:
        message_id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``, unix seconds.
        body: The bytes of the request's body.

    Source: Standard Webhooks 1.0, "Signature scheme" and "Multiple signatures".
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join(["v1," + _signature(secret, content) for secret in secrets])


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()
