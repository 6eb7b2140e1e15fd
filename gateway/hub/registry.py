"""The local registry: which sockets of this replica are members of which topic."""

from dataclasses import dataclass, field

from gateway.hub.broadcast import Broadcast, Encoding, Outlet


class Member:
    """One channel, seen from its topic.

    A rejoin makes a new member: a fan-out under way checks :attr:`live`, so the old channel hears
    nothing after its phx_close, and :attr:`first` keeps from the new one what is older than its reply.

    Attributes:
        encoding: The form it gets messages in.
        drops: Whether a slow socket misses messages instead of being closed.
        first: Number of the first message of the topic this member gets.
        live: False from the moment the channel ends.
        position: Position after the last message it was sent, as JSON; empty without history.
    """

    __slots__ = ("drops", "encoding", "first", "live", "outlet", "position", "wire")

    def __init__(self, outlet: Outlet, encoding: Encoding, *, drops: bool) -> None:
        self.outlet = outlet
        self.wire = outlet.wire  # fan-out looks at every member: one object less to fetch
        self.encoding = encoding
        self.drops = drops
        self.position = b""
        self.first = 0
        self.live = True


@dataclass(slots=True, eq=False)
class Topic:
    """A topic with at least one local member.

    Attributes:
        members: In order of joining; a dict for its order and its removal in constant time.
        waiting: Messages no pass has taken up yet.
        next_number: Number the next message will get.
        paced_until: Messages of a lower number are sent no faster than members read.
    """

    name: str
    members: dict[Member, None] = field(default_factory=dict)
    waiting: list[Broadcast] = field(default_factory=list)
    next_number: int = 0
    paced_until: int = 0


class Registry:
    """Topics by name."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def get(self, name: str) -> Topic | None:
        """The topic, if any local socket is a member."""
        return self._topics.get(name)

    def all(self) -> list[Topic]:
        """All topics."""
        return list(self._topics.values())

    def names(self) -> list[str]:
        """All topics with a local member."""
        return list(self._topics)

    def add(self, name: str, member: Member) -> None:
        """Make a channel a member; it gets the messages that arrive from now on."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name)
        member.first = topic.next_number
        topic.members[member] = None

    def remove(self, name: str, member: Member) -> None:
        """End a membership: not a byte is written for it afterwards. Idempotent."""
        if not member.live:
            return
        member.live = False
        topic = self._topics[name]
        del topic.members[member]
        if not topic.members:
            del self._topics[name]
