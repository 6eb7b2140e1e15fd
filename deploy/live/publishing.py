"""What a backend does for live fragments: it signs the page's token, and publishes HTML.

Beside the standard library it needs PyJWT. ``GATEWAY_APIS`` has the internal listeners of one or more
replicas, with commas between them.
"""

import json
import os
import time
import urllib.error
import urllib.request
import uuid

import jwt

APIS = os.environ["GATEWAY_APIS"].split(",")
API_KEY = os.environ["GATEWAY_API_KEY"]
TOKEN_SECRET = os.environ["GATEWAY_TOKEN_SECRET"]
GATEWAY = os.environ["GATEWAY_URL"]
"""Where browsers reach the gateway."""

TOKEN_SECONDS = 3600


def token(user: str) -> str:
    """What lets a user's page in."""
    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + TOKEN_SECONDS}
    return jwt.encode(claims, TOKEN_SECRET, "HS256")


def publish(topic: str, target: str, action: str, html: str = "") -> None:
    """Change every page that shows the topic.

    Where one replica cannot be reached another is asked: under the same id a message is stored once.

    Raises:
        OSError: No replica took it.
    """
    payload = {"target": target, "action": action, "html": html}
    message = {"topic": topic, "event": "live", "payload": payload, "id": uuid.uuid4().hex}
    body = json.dumps(message).encode()
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    problem: OSError | None = None
    for api in APIS:
        request = urllib.request.Request(f"{api}/v1/publish", body, headers)  # noqa: S310 -- always http
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError as refused:
            if refused.code < 500:
                raise
            problem = refused
        except OSError as unreachable:
            problem = unreachable
    raise problem or OSError("no replica is configured")
