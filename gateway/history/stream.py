"""The stream's configuration: what is wanted, and how a stream that is there is made to do."""

from typing import Final

from gateway.bus.subjects import Subjects
from gateway.history.api import Json
from gateway.history.base import (
    ID_SECONDS,
    SPARE_MESSAGES,
    SPARE_SECONDS,
    HistoryConfig,
    HistoryLimits,
)

_SECOND: Final = 10**9
_NO_LIMIT: Final = (0, -1)
"""How the server writes that there is none."""

_GROWING: Final = ("max_msgs_per_subject", "max_age", "max_bytes")
"""What may have no limit."""

_NECESSARY: Final = ("max_msgs_per_subject", "max_age", "republish", "allow_direct")
"""Without these there would be fewer messages than the rules say, or they would not be delivered."""


def wanted(subjects: Subjects, limits: HistoryLimits, config: HistoryConfig) -> Json:
    """The stream these limits need.

    Args:
        limits: The highest of all rules: a stream has one limit for all its subjects.
    """
    return {
        "name": subjects.stream,
        "description": "Message history of the gateway; it is widened, never narrowed.",
        "subjects": [subjects.all_stored],
        # What is stored is published again by the server that stored it: so live order is stored order.
        "republish": {"src": subjects.all_stored, "dest": subjects.all_topics},
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": limits.messages + SPARE_MESSAGES,
        # at least as long as ids are remembered: the server insists on it
        "max_age": max(limits.seconds + SPARE_SECONDS, ID_SECONDS) * _SECOND,
        "max_bytes": config.max_bytes or -1,
        "storage": config.storage,
        "num_replicas": config.replicas,
        "duplicate_window": ID_SECONDS * _SECOND,
        "allow_direct": True,
        "deny_delete": False,
        "deny_purge": False,
    }


def widened(there: Json, wish: Json) -> Json:
    """The configuration that does for both: what is there, and what is wanted.

    It never narrows anything, so replicas that start together with different rules come to the same.
    """
    merged = dict(there)
    for key in _GROWING:
        merged[key] = _wider(there.get(key, 0), wish[key])
    for key in ("num_replicas", "duplicate_window"):
        merged[key] = max(there.get(key, 0), wish[key])
    for key in ("republish", "discard", "allow_direct"):
        merged[key] = wish[key]
    return merged


def with_necessities(there: Json, more: Json) -> Json:
    """What is there, with so much of what is wanted as all promises need."""
    return there | {key: more[key] for key in _NECESSARY}


def is_ours(there: Json, wish: Json) -> bool:
    """Whether a stream of that name is the history of gateways with this prefix."""
    return set(wish["subjects"]) <= set(there.get("subjects") or ())


def _wider(there: int, wish: int) -> int:
    if there in _NO_LIMIT or wish in _NO_LIMIT:
        return there if there in _NO_LIMIT else wish
    return max(there, wish)
