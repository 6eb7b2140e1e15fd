"""What a call to other replicas is made of: the command, and whom it goes to."""

from collections.abc import Set as AbstractSet
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gateway.cluster.calls import Answers

A = TypeVar("A")


class Command(msgspec.Struct, Generic[A], frozen=True, array_like=True):
    """What a replica can have others do. MessagePack, a tag first.

    A subclass names the type of its answers, and has a number for a tag, as in
    ``class Count(Command[int], frozen=True, tag=1)``. Neighbouring releases read both as this one does.
    """


class LongCommand(Command[A], Generic[A], frozen=True):
    """One whose answer may take longer than anybody waits for a replica that is dead.

    So it is watched meanwhile whether the other replica is still there. Tags are texts.
    """


class Subscribers(msgspec.Struct, frozen=True):
    """All replicas that are subscribed to a topic, and those they name.

    Attributes:
        whole: Whether the answer has to be: then this replica carries it out, too, and those that are
            doubted, as they may be subscribed and silent, are asked by themselves. Else this replica must
            not be subscribed: nobody could tell that no other is from that none answers.
    """

    topic: str
    whole: bool = False


class Caller(Protocol):
    """Makes calls to replicas."""

    @property
    def replica(self) -> str:
        """Id of this one."""

    async def call(self, command: Command[A], to: AbstractSet[str] | Subscribers, /) -> Answers[A]:
        """Have a command carried out, see :meth:`gateway.cluster.cluster.Cluster.call`."""

    def nobody(self, subscribers: Subscribers, /) -> bool:
        """Whether certainly no replica is among them; False where that is not known without asking."""


def answer_type(command: type[Command[Any]]) -> Any:  # noqa: ANN401 -- a type, or a generic one
    """The type of a command's answers."""
    [base] = command.__orig_bases__  # type: ignore[attr-defined] # set for what has a generic base (PEP 560)
    return base.__args__[0]
