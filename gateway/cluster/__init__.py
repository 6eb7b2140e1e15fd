"""All replicas on one bus: the ways from one to the others, and questions they ask each other."""

from gateway.cluster.links import Cluster
from gateway.cluster.questions import Answers

__all__ = ["Answers", "Cluster"]
