"""Callbacks as the gateway sends them: CloudEvents, signed as Standard Webhooks."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from standardwebhooks import Webhook

SECRET = "whsec_dGVzdHMgc2lnbiBjYWxsYmFja3Mgd2l0aCB0aGlz"
OTHER_SECRET = "whsec_c29tZWJvZHkgZWxzZSBzaWducyB3aXRoIHRoaXM="
TOLERANCE_SECONDS = 300


class Callback:
    """One request, to be changed before it is sent.

    Attributes:
        body: The bytes that were signed, before somebody changes them.
        headers: With the signatures.

    Args:
        call: The body, such as :func:`join` and :func:`push` make.
        secrets: Each signs.
        age_seconds: How long ago it was signed.
    """

    def __init__(
        self,
        call: dict[str, Any],
        *,
        webhook_id: str = "msg_1",
        secrets: Sequence[str] = (SECRET,),
        age_seconds: float = 0,
    ) -> None:
        text = json.dumps(call, ensure_ascii=False)
        at = datetime.fromtimestamp(int(time.time() - age_seconds), UTC)
        signatures = [Webhook(secret).sign(webhook_id, at, text) for secret in secrets]
        self.body = text.encode()
        self.headers = {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": webhook_id,
            "ce-type": call["type"],
            "ce-source": "urn:gateway:test",
            "ce-time": at.isoformat(),
            "ce-subject": quote(call.get("user", ""), safe=""),
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def join(user: str | None, topic: str = "room:general") -> dict[str, Any]:
    """Body of a ``gateway.join``; ``None`` is an anonymous socket."""
    call: dict[str, Any] = {
        "type": "gateway.join",
        "session": "s1",
        "state": None,
        "topic": topic,
        "params": {},
    }
    return call | _user(user)


def push(
    user: str | None,
    payload: Any,
    *,
    event: str = "message",
    topic: str = "room:general",
    **more: Any,
) -> dict[str, Any]:
    """Body of a ``gateway.push``; ``more`` is for ``state``."""
    call: dict[str, Any] = {"type": "gateway.push", "session": "s1", "state": None, "topic": topic}
    return call | {"event": event, "payload": payload} | _user(user) | more


def _user(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user, "device": {"id": "d1", "name": f"{user}'s phone", "type": "phone"}}
