"""The operations on history."""

from typing import Final

from gateway.api.history import Erased, HistoryPage
from gateway.api.operation import KEY_PROBLEMS, Operation, Response
from gateway.api.problem import BUS_UNAVAILABLE, INTERNAL, INVALID, NOT_FOUND, OUTCOME_UNKNOWN

_TOPIC: Final = {"topic": "The topic; one percent-encoded segment."}
_PROBLEMS: Final = (*KEY_PROBLEMS, NOT_FOUND, INVALID, INTERNAL, BUS_UNAVAILABLE)

READ_HISTORY: Final = Operation(
    method="GET",
    path="/v1/topics/{topic}/history",
    name="readHistory",
    tag="History",
    summary="What was published to a topic",
    description="Pages through what is kept, the oldest first, within the limits of the topic's rule.",
    scope="read",
    segments=_TOPIC,
    query={
        "limit": "Messages of a page, 1 to 1,000; 100 when absent.",
        "cursor": "`next` of the page before, or any position: what comes after it.",
    },
    answers={
        200: Response(
            "A page.",
            HistoryPage,
            example='{"items": [{"position": "@18c5.2a.19b2", "time": "2026-01-02T03:04:05.678Z", '
            '"event": "new_message", "payload": {"text": "hi"}, "exclude_sessions": [], '
            '"exclude_devices": [], "device_types": []}], "position": "@18c5.2a.19b2", "next": null}',
        )
    },
    problems=_PROBLEMS,
)

ERASE_HISTORY: Final = Operation(
    method="DELETE",
    path="/v1/topics/{topic}/history",
    name="eraseHistory",
    tag="History",
    summary="Forget what was published to a topic",
    description="For good, on all replicas. Members stay, and positions stay good: who resumes gets what "
    "is published afterwards.",
    scope="manage",
    segments=_TOPIC,
    answers={200: Response("How many messages it was.", Erased, example='{"erased": 12}')},
    problems=(*_PROBLEMS, OUTCOME_UNKNOWN),
)

HISTORY_OPERATIONS: Final = (READ_HISTORY, ERASE_HISTORY)
