"""What the page on callbacks shows is what is sent, and what it recommends works."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.device import Device
from gateway.upstream import call as calls
from gateway.upstream.call import Call, body, headers, source

PAGE = (Path(__file__).parents[3] / "docs/upstream.md").read_text()
TYPES = {
    calls.CONNECT,
    calls.JOIN,
    calls.PUSH,
    "gateway.session.started",
    "gateway.session.ended",
    "gateway.user.online",
    "gateway.user.offline",
    "gateway.replica.lost",
}
SECRET = "whsec_" + base64.b64encode(b"01234567890123456789012345678901").decode()
EXAMPLE = Call(
    calls.PUSH,
    session="kJ2xQw81LmZa-1f",
    user="42",
    device=Device(id="d1", type="phone"),
    state=b'{"seat":7}',
    topic="room:42",
    event="message",
    payload=b'{"text":"hi"}',
)


def fields(call: Call, now: float) -> dict[str, str]:
    """Headers as the page's backend gets them."""
    return headers(
        call,
        body(call),
        call_id="5f0c1e0f5b2b4b6f9d3c8a7e6d5c4b3a",
        source=source("gw-1"),
        occurred_at=now,
        now=now,
        secrets=[SECRET],
    )


def test_every_type_is_explained() -> None:
    section = PAGE.split("## Types and answers")[1].split("\n## ")[0]

    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == TYPES


def test_the_request_shown_is_the_one_that_is_sent() -> None:
    shown = PAGE.split("POST /gateway HTTP/1.1\n")[1].split("\n```")[0]
    head, _, content = shown.partition("\n\n")
    named = dict(line.lower().split(": ", 1) for line in head.splitlines())
    sent = fields(EXAMPLE, 1_767_323_045.678)

    assert content.encode() == body(EXAMPLE)
    assert set(named) == set(sent) | {"user-agent"}
    for name in set(sent) - {"webhook-signature"}:
        assert named[name] == sent[name].lower()


@pytest.mark.parametrize(
    ("call", "late", "answer"),
    [
        (Call(calls.JOIN, session="s", user="42", topic="room:42"), 0, (200, "response")),
        (Call(calls.JOIN, session="s", user="43", topic="room:42"), 0, (403, "reason")),
        (Call(calls.JOIN, session="s", topic="room:42"), 0, (403, "reason")),
        (Call(calls.JOIN, session="s", user="42", topic="room:42"), 400, (401, "reason")),
    ],
)
def test_the_recipe_works(call: Call, late: int, answer: tuple[int, str]) -> None:
    recipe: dict[str, Any] = {}
    exec(PAGE.split("```python\n")[1].split("```")[0], recipe)  # noqa: S102 -- our own page

    status, said = recipe["receive"](fields(call, time.time() - late), body(call))

    assert (status, *said) == answer
    assert json.dumps(said)
