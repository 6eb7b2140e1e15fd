"""Malformed frames of one client, until there are too many."""

from collections import deque
from typing import Final

from gateway.protocol.effects import Close, Effect, Send
from gateway.protocol.messages import Undecodable
from gateway.protocol.reasons import CloseCode

MALFORMED_LIMIT: Final = 10
"""Malformed frames within :data:`MALFORMED_SECONDS` after which a socket is closed with 1008."""
MALFORMED_SECONDS: Final = 60.0


class Strikes:
    """The times of recent ones."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MALFORMED_LIMIT)

    def add(self, now: float) -> bool:
        """Count one; whether it is one too many. ``now`` is in monotonic seconds."""
        self._times.append(now)
        return len(self._times) == MALFORMED_LIMIT and now - self._times[0] < MALFORMED_SECONDS


def judge(problem: Undecodable, strikes: Strikes | None, now: float) -> list[Effect]:
    """What a frame that could not be decoded leads to.

    Args:
        strikes: Those of the client; needed for a malformed frame.
    """
    effects: list[Effect] = []
    if problem.reply is not None:
        effects.append(Send(problem.reply))
    if problem.malformed and strikes is not None and strikes.add(now):
        effects.append(Close(CloseCode.PROTOCOL_ABUSE))
    return effects
