"""Turns facts about sessions, users and replicas into the events that the backend gets."""

from typing import assert_never

from gateway.sessions.facts import Fact, ReplicaFact, SessionFact, UserFact
from gateway.upstream.call import Call


def callback(fact: Fact) -> Call:
    """What the backend is told of a fact."""
    kind = f"gateway.{fact.event}"
    match fact:
        case SessionFact():
            return Call(
                kind,
                session=fact.session,
                user=fact.user,
                device=fact.device,
                state=fact.state,
                replica=fact.replica,
            )
        case UserFact():
            return Call(kind, user=fact.user)
        case ReplicaFact():
            return Call(kind, replica=fact.replica, sessions=fact.sessions)
        case _:
            assert_never(fact)
