"""The replicas as one cluster: what they tell each other, and the calls they make to each other."""

from gateway.cluster.calls import Answers, Cover
from gateway.cluster.clock import ClusterClock
from gateway.cluster.cluster import Cluster, Others
from gateway.cluster.command import Caller, Command, LongCommand, Subscribers

__all__ = [
    "Answers",
    "Caller",
    "Cluster",
    "ClusterClock",
    "Command",
    "Cover",
    "LongCommand",
    "Others",
    "Subscribers",
]
