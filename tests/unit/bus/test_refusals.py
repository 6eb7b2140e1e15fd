"""What a server's words mean, who is told of them, and how a denied subject is tried again."""

import pytest
import structlog

from gateway.bus import refusals
from gateway.bus.refusals import (
    ADVICE,
    Denial,
    DeniedSubjects,
    RefusalKind,
    Refusals,
    denial_in,
    kind_of,
    kind_of_code,
)
from tests.support.counted import Counted


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ('Permissions Violation for Publish to "g.topic.a"', "publish_denied"),
        ('Permissions Violation for Publish with Reply of "g.x"', "publish_denied"),
        ('Permissions Violation for Subscription to "g.topic.a"', "subscription_denied"),
        ("Authorization Violation", "authorization"),
        ("User Authentication Expired", "authorization"),
        ("User Authentication Revoked", "authorization"),
        ("Account Authentication Expired", "authorization"),
        ("Authentication Timeout", "authorization"),
        ("Failed Account Registration", "authorization"),
        ("maximum connections exceeded", "limit"),
        ("maximum account active connections exceeded", "limit"),
        ("maximum subscriptions exceeded", "limit"),
        ("Connection throttling is active. Please try again later.", "limit"),
        ("Maximum Payload Violation", "max_payload"),
        ("Unknown Protocol Operation", "other"),
    ],
)
def test_the_servers_words_have_a_kind(words: str, kind: str) -> None:
    assert kind_of(words) == kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10047, "store_full"),
        (10023, "store_full"),
        (10002, "store_full"),
        (10077, "store_full"),
        (10026, "limit"),
        (10039, "no_jetstream"),
        (10076, "no_jetstream"),
        (10054, "max_payload"),
        (10109, "stream"),  # sealed
        (99999, "stream"),
    ],
)
def test_an_error_of_jetstream_has_a_kind(code: int, kind: str) -> None:
    assert kind_of_code(code) == kind


@pytest.mark.parametrize(
    ("words", "denial"),
    [
        ('Permissions Violation for Publish to "t.A.b"', Denial(True, "t.A.b", 0)),
        ('Permissions Violation for Subscription to "t.a"', Denial(False, "t.a", 0)),
        ('Permissions Violation for Subscription to "t.a" (sid "12")', Denial(False, "t.a", 12)),
        (
            'Permissions Violation for Subscription to "t.a", too many tokens',
            Denial(False, "t.a", 0),
        ),
        ('Permissions Violation for Publish with Reply of "t.a"', None),
        ("Authorization Violation", None),
    ],
)
def test_what_is_denied_is_read_with_its_case(words: str, denial: Denial | None) -> None:
    assert denial_in(words) == denial


def test_every_kind_is_counted_from_the_start_and_has_advice() -> None:
    metrics = Counted()
    Refusals(metrics)
    lines = metrics.exposition()[0].decode()
    for kind in RefusalKind:
        assert f'gateway_bus_refusals_total{{kind="{kind}"}} 0.0' in lines
        assert ADVICE[kind]


def test_a_refusal_is_logged_once_in_a_while_and_always_counted() -> None:
    metrics = Counted()
    told = Refusals(metrics)
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            told.note(RefusalKind.STORE_FULL, "insufficient storage resources available")
    (line,) = logs
    assert line["words"] == "insufficient storage resources available"
    assert line["advice"] == ADVICE[RefusalKind.STORE_FULL]
    assert metrics.value("bus_refusals_total", kind="store_full") == 100


def denied(clock: Clock) -> DeniedSubjects:
    subjects = DeniedSubjects(clock)
    assert not subjects.deny("t.a", "no")
    return subjects


def test_a_denied_subject_is_tried_once_after_a_pause_and_allowed_again() -> None:
    clock = Clock()
    subjects = denied(clock)
    assert not subjects.due("t.a")
    clock.forward(refusals.FIRST_TRIAL_SECONDS)
    assert subjects.due("t.a")
    assert not subjects.due("t.a"), "one trial at a time"
    subjects.decided("t.a")
    assert not subjects.known


def test_a_trial_that_is_denied_is_repeated_after_a_longer_pause() -> None:
    clock = Clock()
    subjects = denied(clock)
    pauses = []
    for _ in range(8):
        before = clock.now
        while not subjects.due("t.a"):
            clock.forward(0.5)
        pauses.append(clock.now - before)
        assert subjects.deny("t.a", "no")
        subjects.decided("t.a")
        assert subjects.words("t.a") == "no"
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_messages_sent_before_the_first_was_denied_are_no_trials() -> None:
    clock = Clock()
    subjects = denied(clock)
    for _ in range(10):
        assert not subjects.deny("t.a", "no")
    clock.forward(refusals.FIRST_TRIAL_SECONDS)
    assert subjects.due("t.a")


def test_no_more_than_some_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MOST_DENIED", 3)
    subjects = DeniedSubjects(Clock())
    for name in "abcde":
        subjects.deny(name, "no")
    assert list(subjects.known) == ["c", "d", "e"]
