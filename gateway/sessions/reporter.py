"""Tells the backend what becomes of sessions, users and replicas: of each fact one replica tells."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final, Literal, TypeVar

from gateway.cluster import Caller, Command
from gateway.sessions.client import Client
from gateway.sessions.commands import Inherit, Missed, Return, Standing, Vouchers
from gateway.sessions.facts import EVENTS, ReplicaFact, SessionFact, Tell, UserFact
from gateway.sessions.losses import Losses
from gateway.sessions.registry import SessionRegistry
from gateway.sessions.transitions import Transitions
from gateway.tracker.effects import Lost
from gateway.tracker.peers import Peers

TURN_SECONDS: Final = 0.25
"""Time between two looks at what is to be decided."""

USERS_AT_ONCE: Final = 200
"""Users in one question to the others: with the longest names it is some 50 KiB."""

FAREWELL_SECONDS: Final = 2.0
"""What a replica that leaves spends on having its users taken over."""

USER_EVENTS: Final = frozenset({"user.online", "user.offline"})

A = TypeVar("A")


class Reporter:
    """One replica's part in telling the backend.

    Args:
        events: ``upstream.events``.
        clock: Monotonic seconds.

    Attributes:
        events: The facts the backend wants to be told of; without any there is nothing to do.
    """

    def __init__(
        self,
        tell: Tell,
        registry: SessionRegistry,
        cluster: Caller,
        transitions: Transitions,
        *,
        events: Iterable[str],
        peers: Peers,
        clock: Callable[[], float],
    ) -> None:
        self._tell = tell
        self._registry = registry
        self._cluster = cluster
        self._transitions = transitions
        self.events = EVENTS.intersection(events)
        self._decides = not self.events.isdisjoint(USER_EVENTS)
        self._peers = peers
        self._losses = Losses(peers)
        self._clock = clock
        self._begins_anew = False

    def started(self, client: Client) -> None:
        """A socket is a session now."""
        self._tell_session("session.started", client)
        if self._decides and client.claims is not None:
            self._transitions.started(client.claims.user, self._clock())

    def ended(self, client: Client, *, moving: bool) -> None:
        """A session ended; ``moving`` when its client is expected on another replica."""
        self._tell_session("session.ended", client)
        if self._decides and client.claims is not None:
            self._transitions.ended(client.claims.user, self._clock(), moving=moving)

    def lost(self, lost: Lost) -> None:
        """Another replica is gone without a farewell."""
        if self._decides or "replica.lost" in self.events:
            self._losses.noticed(lost)

    def standing(self, command: Vouchers) -> Standing:
        """Tell another replica whom this one vouches for."""
        return self._transitions.standing(command.users)

    def inherit(self, command: Inherit) -> bool:
        """Vouch for users in the place of a replica that leaves; False if this one cannot."""
        return self._decides and self._transitions.inherit(command.users, self._clock())

    def knows(self, command: Missed) -> bool:
        """Whether this replica knows a run of another one that is lost."""
        return self._losses.knows(command.replica, command.incarnation)

    def begin_anew(self, _: Return) -> bool:
        """The others gave this replica up: tell the backend again who is here."""
        self._begins_anew = True
        return True

    async def next_turn(self) -> None:
        """Wait for the next turn, and do what is due."""
        await asyncio.sleep(TURN_SECONDS)
        await self.turn()

    async def turn(self) -> None:
        """Do what is due."""
        await self._tell_losses()
        if self._begins_anew:
            self._begins_anew = False
            await self._begin_anew()
        await self._decide()

    async def farewell(self) -> None:
        """This replica leaves and has no sessions any more: others look after those who were here.

        Where nobody can, because there is nobody or all leave, it says at once who is offline.
        """
        if not self._decides:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                left = await self._hand_over(self._transitions.leave())
                self._transitions.abandon(left, self._clock())
                await self._decide()
                while self._transitions.undecided:
                    await asyncio.sleep(TURN_SECONDS)
                    await self._decide()

    async def _hand_over(self, users: Sequence[str]) -> Sequence[str]:
        """Have the first replica that can vouch for these users; returns those nobody takes."""
        takers = sorted(self._peers)
        while users and takers:
            some = tuple(users[:USERS_AT_ONCE])
            taken = await self._ask({takers[0]}, Inherit(some))
            if taken and all(taken):
                users = users[USERS_AT_ONCE:]
            else:
                del takers[0]
        return users

    async def _decide(self) -> None:
        while users := self._transitions.begin(self._clock(), USERS_AT_ONCE):
            standings = await self._ask(set(self._peers), Vouchers(users))
            if standings is None:
                return  # the bus is down, or a replica is dead and not yet known to be
            for user, online in self._transitions.decide(standings):
                self._tell_user(user, online=online)
            await asyncio.sleep(0)  # without other replicas nothing was waited for

    async def _tell_losses(self) -> None:
        for lost in list(self._losses.untold):
            before = {replica for replica in self._peers if replica < self._cluster.replica}
            others = await self._ask(before, Missed(lost.replica, lost.incarnation))
            if others is not None and self._losses.settled(lost, others):
                self._tell_lost(lost)
        for replica in self._losses.returned():
            if await self._ask({replica}, Return()):
                self._losses.welcomed(replica)

    async def _begin_anew(self) -> None:
        """The others gave this replica up, and to the backend all it had is lost: tell it again."""
        self._transitions.again(self._clock())
        if "replica.lost" not in self.events:
            return
        clients = iter(self._registry.clients())
        while some := list(islice(clients, USERS_AT_ONCE)):
            for client in some:
                if self._registry.has(client):
                    self._tell_session("session.started", client)
            await asyncio.sleep(0)

    async def _ask(self, replicas: AbstractSet[str], command: Command[A]) -> list[A] | None:
        """What others answer; None unless all of them do."""
        answers = await self._cluster.call(command, replicas)
        return answers.values if answers.cover.complete else None

    def _tell_session(
        self, event: Literal["session.started", "session.ended"], client: Client
    ) -> None:
        if event not in self.events or client.claims is None:
            return
        self._tell(
            SessionFact(
                event,
                client.id,
                client.claims.user,
                client.origin.device,
                self._cluster.replica,
                client.state,
            )
        )

    def _tell_lost(self, lost: Lost) -> None:
        if "replica.lost" in self.events:
            self._tell(ReplicaFact("replica.lost", lost.replica, lost.sessions))

    def _tell_user(self, user: str, *, online: bool) -> None:
        event: Literal["user.online", "user.offline"] = "user.online" if online else "user.offline"
        if event in self.events:
            self._tell(UserFact(event, user))
