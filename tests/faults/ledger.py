"""What was stored and what came, and whether they are the same. Pure."""

from collections import Counter, defaultdict
from typing import NamedTuple


class Stored(NamedTuple):
    """A message that was taken with 202.

    Attributes:
        offset: Its place in the topic.
        at: When the 202 came, seconds since the beginning.
    """

    offset: int
    at: float


class Finding(NamedTuple):
    """Something one client saw otherwise than it should.

    Attributes:
        kind: ``missed``, ``repeated``, ``strange`` (never taken with 202) or ``disordered``.
        numbers: Of the messages.
    """

    client: int
    topic: str
    kind: str
    numbers: list[int]


class Ledger:
    """The books of one run.

    Args:
        members: Topics of each client.
    """

    def __init__(self, members: list[list[str]]) -> None:
        self.stored: defaultdict[str, dict[int, Stored]] = defaultdict(dict)
        self._got = {
            (client, topic): list[int]()
            for client, topics in enumerate(members)
            for topic in topics
        }

    def store(self, topic: str, number: int, offset: int, at: float) -> None:
        """A message was taken."""
        assert number not in self.stored[topic], "each number is taken once"
        self.stored[topic][number] = Stored(offset, at)

    def get(self, client: int, topic: str, number: int) -> None:
        """A message came."""
        self._got[client, topic].append(number)

    @property
    def messages(self) -> int:
        """All that were stored."""
        return sum(map(len, self.stored.values()))

    @property
    def deliveries(self) -> int:
        """All that came, to whomever."""
        return sum(map(len, self._got.values()))

    def outstanding(self) -> int:
        """Deliveries that have not come yet, if none came twice."""
        return sum(
            max(0, len(self.stored[topic]) - len(got)) for (_, topic), got in self._got.items()
        )

    def findings(self) -> list[Finding]:
        """All that is not as it should be."""
        return [
            finding
            for (client, topic), got in self._got.items()
            for finding in self._compare(client, topic, got)
        ]

    def _compare(self, client: int, topic: str, got: list[int]) -> list[Finding]:
        stored = self.stored[topic]
        order = sorted(stored, key=lambda number: stored[number].offset)
        if got == order:
            return []
        counts = Counter(got)
        kinds = {
            "missed": [number for number in order if number not in counts],
            "repeated": [number for number, count in counts.items() if count > 1],
            "strange": [number for number in counts if number not in stored],
            "disordered": _late([(stored[n].offset, n) for n in got if n in stored]),
        }
        return [Finding(client, topic, kind, numbers) for kind, numbers in kinds.items() if numbers]


def _late(came: list[tuple[int, int]]) -> list[int]:
    """Numbers that came after one that stands behind them, of pairs of offset and number."""
    highest = 0
    late: list[int] = []
    for offset, number in came:
        if offset < highest:
            late.append(number)
        highest = max(highest, offset)
    return late
