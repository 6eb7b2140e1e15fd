"""The log of a topic: what passes, what waits, what is fetched, and what is said about it."""

import tracemalloc

import pytest

from gateway.history.base import Stored
from gateway.history.ring import OVERHEAD_BYTES
from gateway.history.topiclog import CONFIRMED_SECONDS, NOTHING, FetchRange, Step, TopicLog
from tests.unit.history.model import RETENTION

BEGUN = 1000.0
KEPT = 100.0 + 60.0
"""Seconds for which the store keeps a message, at least."""


def stored(offset: int, time: float | None = None) -> Stored:
    """A message that was stored a tenth of a second after the one at the offset before."""
    return Stored(offset, BEGUN + offset / 10 if time is None else time, b"%d" % offset)


def new_log(*, max_bytes: int = 1 << 20) -> TopicLog:
    """A log that begins above 10; the rule keeps five messages for 100 seconds."""
    log = TopicLog(RETENTION, max_bytes)
    assert log.baseline(10, BEGUN + 1.0) == Step([])
    return log


def live(log: TopicLog, offset: int, previous: int, time: float | None = None) -> Step:
    """A live copy arrives."""
    message = stored(offset, time)
    return log.live(message.offset, previous, message.time, message.body)


def fetched(
    log: TopicLog, fetch: FetchRange | None, *offsets: int, upto: int | None = None
) -> Step:
    """A fetch brings messages, at once."""
    assert fetch is not None
    end = fetch.upto if upto is None else upto
    return log.fetched(fetch, map(stored, offsets), upto=end, time=BEGUN + 10.0)


def ready(log: TopicLog) -> bool:
    """Whether it is; asked anew each time."""
    return log.ready


def delivered(step: Step) -> list[int]:
    """What a step delivers."""
    return [message.offset for message in step.deliver]


@pytest.mark.parametrize(
    ("offset", "previous", "passes"),
    [
        (15, 7, True),  # the one before is older than the log
        (15, 10, True),
        (15, 11, False),
        (15, 0, False),  # none before, as far as the store knows; that needs a look
        (11, 0, True),  # there is no room for one before
        (11, 10, True),
    ],
)
def test_a_copy_passes_if_nothing_can_lie_before_it(
    offset: int, previous: int, passes: bool
) -> None:
    step = live(new_log(), offset, previous)

    assert delivered(step) == ([offset] if passes else [])
    assert (step.fetch is None) == passes


@pytest.mark.parametrize("offset", [1, 9, 10])
def test_what_the_baseline_covers_is_not_delivered(offset: int) -> None:
    log = new_log()

    assert live(log, offset, 0) == NOTHING
    assert live(log, 12, offset).deliver == (stored(12),)


def test_copies_wait_for_the_baseline() -> None:
    log = TopicLog(RETENTION, 1 << 20)
    assert not ready(log)
    for offset, previous in ((9, 8), (12, 10), (14, 12)):
        assert live(log, offset, previous) == NOTHING
    assert log.check(14, BEGUN) == NOTHING
    assert log.retry() == NOTHING

    assert delivered(log.baseline(10, BEGUN)) == [12, 14]
    assert ready(log)


def test_a_second_baseline_changes_nothing() -> None:
    log = new_log()

    assert log.baseline(99, BEGUN + 50.0) == NOTHING
    assert delivered(live(log, 12, 10)) == [12]


def test_a_copy_after_a_lost_one_waits_for_it() -> None:
    log = new_log()
    live(log, 11, 10)

    step = live(log, 15, 13)

    assert step == Step([], FetchRange(11, 13))
    assert delivered(fetched(log, step.fetch, 13)) == [13, 15]
    assert delivered(live(log, 16, 15)) == [16]


def test_a_look_that_finds_nothing_lets_the_copy_pass() -> None:
    log = new_log()

    step = live(log, 15, 0)

    assert step == Step([], FetchRange(10, 14))
    assert fetched(log, step.fetch) == Step([stored(15)])


def test_a_look_may_find_something_after_all() -> None:
    log = new_log()

    step = live(log, 15, 0)

    assert delivered(fetched(log, step.fetch, 12)) == [12, 15]


def test_one_fetch_is_under_way_at_a_time_and_the_next_goes_on() -> None:
    log = new_log()
    first = live(log, 15, 13)

    assert live(log, 16, 15) == Step([])
    assert live(log, 20, 18) == Step([])
    assert log.check(30, BEGUN + 3.0) == Step([])

    second = fetched(log, first.fetch, 13)
    assert delivered(second) == [13, 15, 16]
    assert second.fetch == FetchRange(16, 30)
    assert delivered(fetched(log, second.fetch, 18, 20, 30)) == [18, 20, 30]


def test_a_late_copy_passes_while_the_fetch_for_it_is_under_way() -> None:
    log = new_log()
    step = live(log, 15, 13)

    assert delivered(live(log, 13, 10)) == [13, 15]
    assert fetched(log, step.fetch, 13) == Step([])


@pytest.mark.parametrize("offset", [13, 15])
def test_a_copy_is_delivered_once(offset: int) -> None:
    log = new_log()
    step = live(log, 15, 13)
    assert live(log, 15, 13) == Step([])
    fetched(log, step.fetch, 13)

    assert live(log, offset, 10) == NOTHING


def test_what_waits_is_delivered_even_if_the_store_has_given_it_up() -> None:
    log = new_log()
    step = live(log, 13, 12)
    live(log, 15, 14)
    fail = step.fetch
    assert fail is not None
    log.failed(fail)

    step = log.retry()

    assert step.fetch == FetchRange(10, 14)
    assert delivered(fetched(log, step.fetch, 12, 14)) == [12, 13, 14, 15]


def test_a_read_that_brings_less_than_wanted_says_how_far_it_came() -> None:
    log = new_log()
    step = log.check(20, BEGUN + 3.0)

    step = fetched(log, step.fetch, 12, 13, 17, upto=13)

    assert delivered(step) == [12, 13]  # 17 is beyond what the read vouches for
    assert step.fetch == FetchRange(13, 20)
    assert delivered(fetched(log, step.fetch, 17, 20)) == [17, 20]


@pytest.mark.parametrize("occasion", ["copy", "check", "retry"])
def test_a_fetch_that_fails_is_wanted_again_at_the_next_occasion(occasion: str) -> None:
    log = new_log()
    step = live(log, 15, 13)
    assert step.fetch is not None
    log.failed(step.fetch)

    match occasion:
        case "copy":
            again = live(log, 16, 13)
        case "check":
            again = log.check(0, BEGUN + 3.0)
        case _:
            again = log.retry()

    assert again.fetch == FetchRange(10, 13)
    assert again.fetch is not step.fetch
    assert log.retry().fetch is None


def test_a_read_that_came_nowhere_is_a_failure() -> None:
    log = new_log()
    step = live(log, 15, 13)

    assert fetched(log, step.fetch, upto=10) == NOTHING
    assert log.retry().fetch == FetchRange(10, 13)


def test_the_result_of_a_fetch_that_failed_is_passed_over() -> None:
    log = new_log()
    first = live(log, 15, 13)
    assert first.fetch is not None
    log.failed(first.fetch)
    second = log.retry()

    assert fetched(log, first.fetch) == NOTHING
    log.failed(first.fetch)
    assert delivered(fetched(log, second.fetch, 13)) == [13, 15]


def test_a_fetch_moves_on_though_nothing_is_to_be_had() -> None:
    log = new_log()
    step = log.check(20, BEGUN + 3.0)

    step = fetched(log, step.fetch)

    assert delivered(step) == []
    assert step.fetch is None
    assert log.floor == 20


def test_the_check_finds_a_lost_last_copy() -> None:
    log = new_log()
    assert log.check(10, BEGUN + 2.0) == Step([])

    step = log.check(15, BEGUN + 3.0)

    assert step == Step([], FetchRange(10, 15))
    assert delivered(fetched(log, step.fetch, 12, 15)) == [12, 15]


def test_beyond_the_bound_the_first_to_come_are_kept_and_the_rest_is_fetched() -> None:
    log = new_log(max_bytes=2 * (OVERHEAD_BYTES + 2))
    step = live(log, 13, 12)
    for offset in (14, 15, 16):
        assert live(log, offset, offset - 1) == Step([])

    step = fetched(log, step.fetch, 12)

    assert delivered(step) == [12, 13, 14]
    assert step.fetch == FetchRange(14, 16)
    assert live(log, 17, 16) == Step([])  # there is room again
    assert live(log, 18, 17) == Step([])
    assert delivered(fetched(log, step.fetch, 15, 16)) == [15, 16, 17, 18]


def test_what_waits_counts_once_and_no_longer_than_it_waits() -> None:
    log = new_log(max_bytes=2 * (OVERHEAD_BYTES + 2))
    step = live(log, 13, 12)
    live(log, 13, 12)

    assert live(log, 14, 13) == Step([])
    assert fetched(log, step.fetch, 12) == Step([stored(12), stored(13), stored(14)])
    assert log._held is None


def test_before_the_baseline_too() -> None:
    log = TopicLog(RETENTION, max_bytes=OVERHEAD_BYTES + 2)
    live(log, 11, 10)
    live(log, 12, 11)

    step = log.baseline(10, BEGUN)

    assert delivered(step) == [11]
    assert step.fetch == FetchRange(11, 12)


@pytest.mark.parametrize(
    ("found", "doubtful"),
    [
        ((12, 13), False),
        ((13,), False),  # a quiet stretch looks like this
        ((12,), True),  # 13 was stored: the copy at 15 has said so
        ((), True),
        ((8, 9, 11, 12, 13), True),  # with the one that waits, more than the rule keeps
    ],
)
def test_a_step_is_doubtful_if_the_store_may_have_given_up_what_was_missing(
    found: tuple[int, ...], doubtful: bool
) -> None:
    log = new_log()
    step = live(log, 15, 13)

    assert fetched(log, step.fetch, *found).doubtful == doubtful


def test_a_topics_last_message_that_is_gone_makes_it_doubtful() -> None:
    log = new_log()

    assert fetched(log, log.check(20, BEGUN + 3.0).fetch, 12).doubtful
    assert not fetched(log, log.check(30, BEGUN + 4.0).fetch, 30).doubtful


@pytest.mark.parametrize(
    ("away", "doubtful"), [(30.0, False), (KEPT - 2.0, False), (KEPT + 1.0, True)]
)
def test_a_check_after_too_long_is_doubtful_once(away: float, doubtful: bool) -> None:
    log = new_log()
    log.check(10, BEGUN + 10.0)

    step = log.check(0, BEGUN + 10.0 + away)

    assert step.doubtful == doubtful
    assert not log.check(0, BEGUN + 11.0 + away).doubtful


def test_so_is_a_look_after_too_long() -> None:
    log = new_log()
    late = BEGUN + KEPT + 20.0
    step = live(log, 15, 0, time=late)
    assert step.fetch is not None

    assert log.fetched(step.fetch, [], upto=14, time=late).doubtful


def test_live_copies_confirm_as_checks_do() -> None:
    log = new_log()
    live(log, 15, 10, time=BEGUN + 150.0)

    assert not log.check(15, BEGUN + 200.0).doubtful


def test_where_one_stands_moves_with_messages_and_checks() -> None:
    log = new_log()
    began = BEGUN + 1.0
    assert log.standing(began + 5.0) == (10, began + 5.0)
    assert log.standing(began - 0.5) == (10, began)  # never before its message
    assert log.standing(began + 500.0) == (10, began + CONFIRMED_SECONDS)

    live(log, 15, 10, time=began + 60.0)
    assert log.standing(began + 70.0) == (15, began + 70.0)
    assert log.standing(began + 500.0) == (15, began + 60.0 + CONFIRMED_SECONDS)

    log.check(15, began + 480.0)
    assert log.standing(began + 500.0) == (15, began + 500.0)


def test_one_stands_still_while_something_is_missing() -> None:
    log = new_log()
    began = BEGUN + 1.0
    step = log.check(20, began + 30.0)
    assert step.fetch is not None
    log.check(20, began + 60.0)

    assert log.standing(began + 90.0) == (10, began + CONFIRMED_SECONDS)

    log.check(0, began + 61.0)  # the answer of a server that lags

    assert log.standing(began + 90.0) == (10, began + CONFIRMED_SECONDS)

    log.fetched(step.fetch, [], upto=20, time=began + 61.0)

    assert log.standing(began + 90.0)[0] == 10  # not at another topic's message


@pytest.mark.parametrize("way", ["said", "seen by the check", "seen by the next copy"])
def test_the_ring_forgets_what_was_erased(way: str) -> None:
    log = new_log()
    for offset in (11, 12, 13):
        live(log, offset, offset - 1)
    assert log.ring.since(10) is not None

    if way == "said":
        log.erased()
    elif way == "seen by the check":
        log.check(0, BEGUN + 5.0)
    else:
        fetched(log, live(log, 20, 0).fetch)

    assert log.ring.since(10) is None
    assert log.ring.since(13) == ([stored(20)] if way == "seen by the next copy" else [])


def test_an_answer_that_lags_does_not_erase() -> None:
    log = new_log()
    live(log, 11, 10)

    log.check(0, BEGUN + 1.5)

    assert log.ring.since(10) == [stored(11)]


def test_erasing_before_the_baseline_is_nothing() -> None:
    log = TopicLog(RETENTION, 1000)
    log.erased()
    log.reset(BEGUN)

    assert log.floor is None
    assert delivered(log.baseline(10, BEGUN)) == []


LATER = BEGUN + 60.0


def copy(log: TopicLog, offset: int, previous: int, *, epoch_age: float | None = None) -> Step:
    """A copy from after the offsets began anew, or from before."""
    time = LATER + offset / 10 if epoch_age is None else epoch_age
    return log.live(offset, previous, time, b"new %d" % offset)


def test_an_offset_that_comes_again_much_later_is_a_new_beginning() -> None:
    log = new_log()
    live(log, 14, 10)

    step = copy(log, 1, 0)

    assert step.restarted
    assert [message.body for message in step.deliver] == [b"new 1"]
    assert [m.body for m in copy(log, 2, 1).deliver] == [b"new 2"]
    assert not copy(log, 3, 2).restarted
    assert log.standing(LATER)[0] == 3


def test_a_repeated_or_late_copy_is_no_new_beginning() -> None:
    log = new_log()
    live(log, 14, 10)

    for offset in (3, 10, 14):
        assert live(log, offset, 1) == NOTHING
    assert live(log, 12, 10, time=BEGUN + 2.3) == NOTHING  # clocks that differ a little


def test_a_store_that_lost_its_end_goes_on_without_gap_or_repeat() -> None:
    """The store lost 13 and 14, and gave their offsets to others."""
    log = new_log()
    for offset in (12, 13, 14):
        live(log, offset, offset - 1 if offset > 12 else 10)

    step = copy(log, 14, 13)

    assert step.restarted
    assert step.fetch == FetchRange(0, 13)
    assert not ready(log)
    new = Stored(13, LATER + 1.3, b"new 13")
    step = log.fetched(
        step.fetch, [stored(9), stored(11), stored(12), new], upto=13, time=LATER + 2.0
    )
    assert [message.body for message in step.deliver] == [b"new 13", b"new 14"]
    assert not step.doubtful
    assert ready(log)
    assert log.ring.since(12) == list(step.deliver)
    assert log.ring.since(11) is None  # 12 is in the store, and not in the ring any more


def test_a_reset_delivers_what_the_new_store_has() -> None:
    log = new_log()
    live(log, 14, 10)
    live(log, 29, 27)
    log.reset(LATER)
    assert not ready(log)
    assert log.retry().fetch is None  # what waited belongs to the old store

    step = log.check(3, LATER)

    assert step.fetch == FetchRange(0, 3)
    new = [Stored(offset, LATER + offset, b"") for offset in (1, 3)]
    assert log.fetched(step.fetch, new, upto=3, time=LATER + 3.0).deliver == new
    assert ready(log)
    assert log.ring.since(0) == new
    assert delivered(copy(log, 27, 3)) == [27]  # and nothing that had waited in the old store


def test_after_a_reset_an_empty_store_is_soon_ready() -> None:
    log = new_log()
    live(log, 14, 10)
    log.reset(LATER)

    assert log.check(0, LATER) == Step([])
    assert ready(log)
    assert log.ring.since(0) == []
    assert log.standing(LATER) == (0, LATER)


def test_a_reset_after_the_log_found_out_by_itself_repeats_nothing() -> None:
    log = new_log()
    live(log, 14, 10)
    copy(log, 1, 0)
    copy(log, 2, 1)
    log.reset(LATER + 1.0)

    step = log.check(3, LATER + 1.0)

    assert step.fetch is not None
    new = [Stored(offset, LATER + offset / 10, b"new %d" % offset) for offset in (1, 2, 3)]
    assert log.fetched(step.fetch, new, upto=3, time=LATER + 2.0).deliver == new[2:]


def test_it_is_ready_only_when_all_that_is_old_was_passed() -> None:
    log = new_log()
    live(log, 14, 10)
    log.reset(LATER)
    step = log.check(16, LATER)
    assert step.fetch is not None

    step = log.fetched(step.fetch, [stored(3)], upto=3, time=LATER)

    assert not ready(log)
    assert step.fetch is not None
    log.fetched(step.fetch, [stored(11), stored(12)], upto=16, time=LATER)
    assert ready(log)
    assert log.ring.since(12) == []


def test_late_copies_and_fetches_of_the_old_store_are_passed_over() -> None:
    log = new_log()
    live(log, 14, 10)
    old = live(log, 19, 17)
    log.reset(LATER)

    assert fetched(log, old.fetch, 17, 19) == NOTHING
    assert live(log, 12, 11, time=BEGUN + 1.2) == NOTHING
    assert [message.body for message in copy(log, 1, 0).deliver] == [b"new 1"]


def test_a_log_vouches_for_positions_from_its_own_time() -> None:
    log = new_log()
    assert log.vouches(BEGUN + 1.0)
    assert not log.vouches(BEGUN)

    live(log, 14, 10)
    copy(log, 1, 0)

    assert not log.vouches(LATER)
    assert log.vouches(LATER + 1.0)


def test_an_idle_topic_takes_little_memory() -> None:
    count = 1000
    tracemalloc.start()
    logs = [TopicLog(RETENTION, 1 << 20) for _ in range(count)]
    for number, log in enumerate(logs):
        log.baseline(100_000 + number, BEGUN + number)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken / count < 400
