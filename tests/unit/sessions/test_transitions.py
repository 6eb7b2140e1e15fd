"""Online and offline: of all replicas one says so, and says it once, however their decisions cross."""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sessions.commands import Standing
from gateway.sessions.transitions import AGAIN_SECONDS, SETTLE_SECONDS, Transitions
from gateway.tracker.view import MOVING_SECONDS
from tests.support.examples import examples

GRACE = 3.0
TURN_SECONDS = 0.25
ANSWER_SECONDS = 0.5

T = TypeVar("T")

NOBODY = Standing()
VOUCHED = Standing(vouched=("u",))
SETTLING = Standing(settling=("u",))


class Here:
    """One replica's transitions, with the sessions of user ``u`` and a clock."""

    def __init__(self, grace: float = GRACE) -> None:
        self.sessions = 0
        self.now = 100.0
        self.transitions = Transitions(
            lambda user: user == "u" and self.sessions > 0,
            offline_after_seconds=grace,
            spread=lambda: 0.5,
        )

    def start(self) -> None:
        """A session begins."""
        self.sessions += 1
        self.transitions.started("u", self.now)

    def end(self, *, moving: bool = False) -> None:
        """A session ends."""
        self.sessions -= 1
        self.transitions.ended("u", self.now, moving=moving)

    def asks(self, seconds: float = 0.0) -> bool:
        """Let time pass; returns whether the others are to be asked about the user."""
        self.now += seconds
        return self.transitions.begin(self.now, 10) == ("u",)

    def decide(self, *others: Standing) -> list[bool]:
        """What is told when the others answer so."""
        return [online for _, online in self.transitions.decide(others)]

    def come_online(self) -> None:
        """Have the user here, and told of."""
        self.start()
        assert self.asks(SETTLE_SECONDS)
        assert self.decide() == [True]

    @property
    def vouches(self) -> bool:
        """Whether this replica vouches for the user."""
        return self.transitions.standing(["u"]).vouched == ("u",)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([], [True]),
        ([NOBODY, NOBODY], [True]),
        ([NOBODY, VOUCHED], []),
        # two replicas to which she came at once: whoever asks first is the one
        ([SETTLING], [True]),
    ],
)
def test_who_is_here_comes_online_unless_somebody_vouches_for_her(
    others: list[Standing], told: list[bool]
) -> None:
    here = Here()
    here.start()
    assert not here.asks(SETTLE_SECONDS / 2)
    assert here.asks(SETTLE_SECONDS / 2)

    assert here.decide(*others) == told
    assert here.vouches
    assert not here.asks(1000), "there is nothing more to decide"


@pytest.mark.parametrize(
    ("others", "told", "vouches"),
    [
        ([], [False], False),
        ([NOBODY, NOBODY], [False], False),
        # theirs to say now
        ([NOBODY, VOUCHED], [], False),
        ([SETTLING, VOUCHED], [], False),
        # she is somewhere else already, and it is about to be asked whether she came online
        ([SETTLING, NOBODY], [], True),
    ],
)
def test_who_is_gone_goes_offline_after_the_grace_unless_somebody_vouches_for_her(
    others: list[Standing], told: list[bool], vouches: bool
) -> None:
    here = Here()
    here.come_online()
    here.end()
    assert not here.asks(GRACE - 0.1)
    assert here.asks(0.1)

    assert here.decide(*others) == told
    assert here.vouches is vouches
    assert here.asks(1000) is vouches


def test_who_comes_back_within_the_grace_was_never_away() -> None:
    here = Here()
    here.come_online()
    here.end()
    assert not here.asks(GRACE - 0.1)
    here.start()

    assert not here.asks(1000)
    here.end()
    assert not here.asks(GRACE - 0.1)
    assert here.asks(0.1)


def test_who_is_gone_before_it_is_settled_was_never_here() -> None:
    here = Here()
    here.start()
    here.now += SETTLE_SECONDS / 2
    here.end()
    assert not here.asks(1000)

    here.start()
    assert not here.asks(SETTLE_SECONDS / 2)
    assert here.asks(SETTLE_SECONDS / 2)


def test_two_sessions_at_once_are_one_user() -> None:
    here = Here()
    here.start()
    here.start()
    assert here.asks(SETTLE_SECONDS)
    assert here.decide() == [True]
    here.end()
    assert not here.asks(1000)
    here.end()

    assert here.asks(GRACE)
    assert here.decide() == [False]


def asked(here: Here) -> None:
    """Another replica asks about the user."""
    here.transitions.standing(["someone", "u"])


def come_and_go(here: Here) -> None:
    """The user is here for a moment."""
    here.start()
    here.end()


def go_and_come(here: Here) -> None:
    """The user is away for a moment."""
    here.end()
    here.start()


@pytest.mark.parametrize("between", [asked, Here.start, Here.end, go_and_come])
def test_answers_are_void_when_something_happened_meanwhile_to_one_who_came(
    between: Callable[[Here], None],
) -> None:
    here = Here()
    here.start()
    assert here.asks(SETTLE_SECONDS)
    between(here)

    assert here.decide() == []
    assert here.transitions.standing(["u"]).vouched == ()


@pytest.mark.parametrize("between", [asked, Here.start, come_and_go])
def test_answers_are_void_when_something_happened_meanwhile_to_one_who_left(
    between: Callable[[Here], None],
) -> None:
    here = Here()
    here.come_online()
    here.end()
    assert here.asks(GRACE)
    between(here)

    assert here.decide() == []
    assert here.vouches


def test_a_void_decision_is_made_again_soon() -> None:
    here = Here()
    here.start()
    assert here.asks(SETTLE_SECONDS)
    asked(here)
    assert here.decide() == []
    assert not here.asks(AGAIN_SECONDS - 0.1)

    assert here.asks(0.1)
    assert here.decide() == [True]


def test_without_all_answers_nothing_is_decided_until_there_are() -> None:
    here = Here()
    here.start()
    assert here.asks(SETTLE_SECONDS)
    for _ in range(5):  # nobody calls decide(): the bus is down
        assert here.asks(AGAIN_SECONDS)

    assert here.decide() == [True]


def test_what_is_asked_of_others_between_is_no_hindrance() -> None:
    here = Here()
    here.start()
    assert here.asks(SETTLE_SECONDS)
    here.transitions.standing(["someone"])

    assert here.decide() == [True]


def test_who_is_moved_has_more_time_to_come_back() -> None:
    here = Here()
    here.come_online()
    here.end(moving=True)
    assert not here.asks(MOVING_SECONDS - 0.1)
    assert here.asks(0.1)

    assert here.decide() == [False]


def test_a_moved_session_outlasts_one_that_ends_after_it() -> None:
    here = Here()
    here.come_online()
    here.start()
    here.end(moving=True)
    here.now += 1
    here.end()
    assert not here.asks(GRACE)
    assert here.asks(MOVING_SECONDS - GRACE - 1)


def test_a_grace_longer_than_a_move_counts_for_the_moved() -> None:
    here = Here(grace=60.0)
    here.come_online()
    here.end(moving=True)

    assert not here.asks(59)
    assert here.asks(1)


def test_an_answer_tells_who_is_vouched_for_and_who_is_only_here() -> None:
    here = Here()
    assert here.transitions.standing(["u", "v"]) == NOBODY
    here.start()
    assert here.transitions.standing(["u", "v"]) == SETTLING
    assert here.asks(SETTLE_SECONDS)
    here.decide()
    assert here.transitions.standing(["u", "v"]) == VOUCHED
    here.end()
    assert here.transitions.standing(["u", "v"]) == VOUCHED


def test_an_inherited_user_goes_offline_if_she_does_not_come_back_anywhere() -> None:
    here = Here()
    assert here.transitions.inherit(["u"], here.now)
    assert here.vouches
    assert not here.asks(MOVING_SECONDS - 0.1)
    assert here.asks(0.1)

    assert here.decide(NOBODY) == [False]


def test_an_inherited_user_who_came_back_here_stays_online() -> None:
    here = Here()
    here.start()
    assert here.asks(SETTLE_SECONDS)
    here.transitions.inherit(["u"], here.now)
    assert here.decide(NOBODY) == [], "she was online all the time"

    assert not here.asks(1000)
    assert here.vouches


def test_who_leaves_answers_for_its_users_but_decides_and_inherits_no_more() -> None:
    here = Here()
    here.come_online()
    here.end(moving=True)

    assert here.transitions.leave() == ["u"]
    assert here.vouches
    assert not here.transitions.inherit(["v"], here.now)
    assert not here.asks(1000)
    assert not here.transitions.undecided


def test_whom_nobody_takes_over_goes_offline_at_once() -> None:
    here = Here()
    here.come_online()
    here.end(moving=True)
    here.transitions.abandon(here.transitions.leave(), here.now)
    assert here.transitions.undecided
    assert here.asks()

    assert here.decide() == [False]
    assert not here.transitions.undecided


def test_after_it_was_called_lost_a_replica_has_its_users_come_online_anew() -> None:
    here = Here()
    here.come_online()
    here.transitions.again(here.now)
    assert not here.vouches

    assert here.asks(SETTLE_SECONDS)
    assert here.decide(NOBODY) == [True]


def test_only_so_many_are_asked_about_at_once() -> None:
    transitions = Transitions(lambda _: True, offline_after_seconds=0.0, spread=lambda: 0.5)
    for n in range(5):
        transitions.started(f"u{n}", 0.0)
    asked = []
    while some := transitions.begin(1.0, 2):
        asked.append(some)
        transitions.decide([])

    assert sorted(map(len, asked)) == [1, 2, 2]
    assert {user for some in asked for user in some} == {f"u{n}" for n in range(5)}


class Replica:
    """One of several on a simulated network, which writes down what it tells."""

    def __init__(self, network: "Network", name: str) -> None:
        self.network = network
        self.name = name
        self.sessions: dict[str, int] = defaultdict(int)
        self.transitions = Transitions(
            lambda user: self.sessions[user] > 0,
            offline_after_seconds=network.grace,
            spread=network.random.random,
        )
        self.question = 0
        self.leaving = False
        network.later(network.random.uniform(0, TURN_SECONDS), self.turn)

    def start(self, user: str) -> None:
        """A session begins."""
        if not self.leaving:
            self.sessions[user] += 1
            self.transitions.started(user, self.network.now)

    def end(self, user: str, *, moving: bool = False) -> None:
        """A session ends, if there is one."""
        if self.sessions[user]:
            self.sessions[user] -= 1
            self.transitions.ended(user, self.network.now, moving=moving)

    def turn(self) -> None:
        """Decide on what is due, then again in a while."""
        if not self.leaving:
            self.decide(lambda: self.network.later(TURN_SECONDS, self.turn))

    def decide(self, then: Callable[[], None]) -> None:
        """Decide on what is due, a few at a time."""
        users = self.transitions.begin(self.network.now, 2)
        if not users:
            then()
            return
        self.question += 1
        question = self.question

        def answered(answers: list[Standing] | None) -> None:
            if self.question != question:
                return  # it began to leave meanwhile
            if answers is None:
                then()
                return
            for user, online in self.transitions.decide(answers):
                self.network.told[user].append(online)
            self.decide(then)

        others = self.network.live - {self.name}
        self.network.ask(others, lambda other: other.transitions.standing(users), answered)

    def drain(self) -> None:
        """Move all sessions, have the users taken over, leave."""
        if self.leaving:
            return
        for user in list(self.sessions):
            while self.sessions[user]:
                self.end(user, moving=True)
        self.leaving = True
        self.question += 1
        self.hand_over(self.transitions.leave(), sorted(self.network.live - {self.name}))

    def hand_over(self, users: list[str], takers: list[str]) -> None:
        """Ask one replica after the other; in the end decide on those nobody took."""
        if not users or not takers:
            self.transitions.abandon(users, self.network.now)
            self.give_up()
            return

        def answered(answers: list[bool] | None) -> None:
            self.hand_over([] if answers == [True] else users, takers[1:])

        def inherit(other: Replica) -> bool:
            return other.transitions.inherit(users, self.network.now)

        self.network.ask({takers[0]}, inherit, answered)

    def give_up(self) -> None:
        """Decide on the last ones, then go."""
        if self.transitions.undecided:
            self.network.later(TURN_SECONDS, lambda: self.decide(self.give_up))
        else:
            self.network.live.discard(self.name)


class Network:
    """Replicas whose messages take their time, and time itself."""

    def __init__(self, seed: int, grace: float) -> None:
        self.random = random.Random(seed)
        self.grace = grace
        self.now = 0.0
        self.numbers = count()
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.replicas: list[Replica] = []
        self.live: set[str] = set()
        self.told: dict[str, list[bool]] = defaultdict(list)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Do something in a while."""
        heapq.heappush(self.agenda, (self.now + seconds, next(self.numbers), call))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.agenda and self.agenda[0][0] <= until:
            self.now, _, call = heapq.heappop(self.agenda)
            call()
        self.now = until

    def join(self) -> None:
        """One more replica, which all know from now on."""
        name = f"r{len(self.replicas)}"
        self.live.add(name)
        self.replicas.append(Replica(self, name))

    def delay(self) -> float:
        """How long a message takes: now and then too long for anybody to wait for it."""
        return self.random.choice((0.001, 0.01, 0.1, self.random.uniform(0.0, 0.6)))

    def ask(
        self,
        names: set[str],
        question: Callable[[Replica], T],
        answered: Callable[[list[T] | None], None],
    ) -> None:
        """Have replicas answer; what they answer, or None if one does not in time."""
        answers: list[T] = []
        waiting = True

        def decided(result: list[T] | None) -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                answered(result)

        def arrived(answer: T) -> None:
            answers.append(answer)
            if len(answers) == len(names):
                decided(answers)

        def asked(replica: Replica) -> None:
            if replica.name in self.live:
                answer = question(replica)
                self.later(self.delay(), lambda: arrived(answer))

        if not names:
            decided(answers)
        self.later(ANSWER_SECONDS, lambda: decided(None))
        for replica in self.replicas:
            if replica.name in names:
                self.later(self.delay(), partial(asked, replica))


numbers = st.integers(0, 9)
steps = st.lists(
    st.tuples(
        st.sampled_from(["start"] * 4 + ["end"] * 3 + ["move", "change", "drain", "join"]),
        numbers,
        st.sampled_from(["u", "v"]),
        st.sampled_from([0.0, 0.0, 0.01, 0.3, 0.6, 3.0, 3.3, 12.0]),
    ),
    max_size=40,
)


@settings(max_examples=examples(4))
@given(steps, st.integers(0, 1000), st.sampled_from([0.0, 0.4, GRACE]), st.integers(1, 4))
def test_online_and_offline_take_turns_and_the_last_word_is_true(
    steps: list[tuple[str, int, str, float]], seed: int, grace: float, replicas: int
) -> None:
    network = Network(seed, grace)
    for _ in range(replicas):
        network.join()
    for what, number, user, seconds in steps:
        replica = network.replicas[number % len(network.replicas)]
        match what:
            case "start":
                replica.start(user)
            case "end":
                replica.end(user)
            case "move" | "change":  # a client that is sent away, or goes; it comes back elsewhere
                replica.end(user, moving=what == "move")
                other = network.replicas[(number + 1) % len(network.replicas)]
                network.later(network.delay(), partial(other.start, user))
            case "drain":
                replica.drain()
            case "join":
                network.join()
        network.run(seconds)
    network.run(60)  # any grace, the time of a move, and some decisions that have to be made again

    for user, told in network.told.items():
        assert told == [n % 2 == 0 for n in range(len(told))], user
    here = {user: sum(r.sessions[user] for r in network.replicas) for user in ("u", "v")}
    assert {u: network.told[u][-1:] == [True] for u in here} == {u: n > 0 for u, n in here.items()}
