"""Facts become callbacks."""

import json
from typing import Any

import pytest

from gateway.device import Device
from gateway.sessions.facts import Fact, ReplicaFact, SessionFact, UserFact, callback
from gateway.upstream.call import body


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        (
            SessionFact("session.started", "s1", "42", Device("phone"), "a", b'{"cart":7}'),
            {"session": "s1", "user": "42", "device": {"id": "phone"}, "state": {"cart": 7}}
            | {"replica": "a"},
        ),
        (
            SessionFact("session.ended", "s1", "42", Device(), "a", b"null"),
            {"session": "s1", "user": "42", "state": None, "replica": "a"},
        ),
        (UserFact("user.online", "42"), {"user": "42"}),
        (UserFact("user.offline", "42"), {"user": "42"}),
        (ReplicaFact("replica.lost", "a", 0), {"replica": "a", "sessions": 0}),
    ],
)
def test_what_the_backend_gets(fact: Fact, said: dict[str, Any]) -> None:
    call = callback(fact)

    assert call.type == f"gateway.{fact.event}"
    assert json.loads(body(call)) == {"type": call.type} | said
