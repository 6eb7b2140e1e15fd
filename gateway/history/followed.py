"""One topic that is kept level with the store."""

from typing import Final

from gateway.history.policy import HistoryPolicy
from gateway.history.topiclog import TopicLog

RING_BYTES: Final = 1024 * 1024
"""What one topic keeps in memory at most."""

CHECK_SECONDS: Final = 28.0
"""
A live copy that was lost with nothing after it is found at the latest after so long.

Two seconds less than what is promised, for the look itself, and because visits are planned by the second.
"""


class Followed:
    """One topic.

    Attributes:
        resuming: Members that want positions.
        told_at: When those were last told one, monotonic seconds.
        generation: How often its offsets began anew; what was found out before does not count after.
        fetches: Reads of what is missing that are under way, or wait to be tried again.
    """

    __slots__ = ("fetches", "generation", "log", "policy", "resuming", "told_at", "topic")

    def __init__(self, topic: str, policy: HistoryPolicy, now: float) -> None:
        self.topic = topic
        self.policy = policy
        self.log = TopicLog(policy, RING_BYTES)
        self.resuming = 0
        self.told_at = now
        self.generation = 0
        self.fetches = 0

    @property
    def visit_seconds(self) -> float:
        """Time between two looks at it; no position shall be older than a third of what counts."""
        return max(1.0, min(CHECK_SECONDS, self.policy.seconds / 6))
