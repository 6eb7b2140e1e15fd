"""What the console stands on: parts of this replica, and the few calls by which others are asked."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.api.drain import ReplicaDrain
from gateway.api.health import HealthState
from gateway.api.publish import Publisher
from gateway.api.topics import TopicQueries
from gateway.api.user_types import ReplicaReport
from gateway.api.users import UserDirectory
from gateway.auth.rules import PersonalTopic, Rules
from gateway.config import Config
from gateway.console.tailing import TopicTails
from gateway.hub.registry import Registry
from gateway.log import RecentLines
from gateway.metrics import Metrics
from gateway.sessions.commands import Session
from gateway.sessions.registry import SessionRegistry
from gateway.tracker.entry import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The parts.

    All but ``directory``, ``topics``, ``publisher`` and ``tails`` know this replica alone, and ask nobody.

    Attributes:
        connections: How many clients are connected.
        replicas: All that are alive, as their heartbeats tell.
        sessions_here: A user's sessions on this replica.
        present: Who is present on a topic, as far as this replica has a reason to know.
        history_problem: Why nothing can be stored or read now; None when it can.
        lines: The last warnings and errors of the log.
        clock: Unix seconds.
    """

    config: Config
    metrics: Metrics
    registry: Registry
    sessions: SessionRegistry
    directory: UserDirectory
    topics: TopicQueries
    publisher: Publisher
    rules: Rules
    personal: PersonalTopic
    drain: ReplicaDrain
    readiness: HealthState
    connections: Callable[[], int]
    replicas: Callable[[], list[ReplicaReport]]
    sessions_here: Callable[[str], list[Session]]
    present: Callable[[str], list[Entry]]
    history_problem: Callable[[], str | None]
    tails: TopicTails
    lines: RecentLines
    clock: Callable[[], float]
