"""What waits for the next poll: parcels, receipts, and who is woken."""

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.longpoll.mailbox import PARCEL_BYTES, Mailbox, entry


def made() -> tuple[Mailbox, list[None]]:
    """A mailbox, and a list that grows when it is given up."""
    ends: list[None] = []
    return Mailbox(lambda: ends.append(None)), ends


@given(st.lists(st.integers(0, 3), max_size=60))
def test_whatever_answers_are_lost_each_message_arrives_once_and_in_order(does: list[int]) -> None:
    """0 and 1 write one message or three, 2 is a poll, 3 a poll whose answer is lost."""
    mailbox, _ = made()
    written = received = 0
    got: list[int] = []
    for do in [*does, 2, 2]:
        if do < 2:
            for _ in range(1 + 2 * do):
                mailbox.write(entry(json.dumps(written).encode()))
                written += 1
            continue
        parcel = mailbox.parcel(received)
        if do == 2 and parcel:
            got += [int(text) for text in json.loads(b"[%b]" % parcel[:-1])]
            received = mailbox.number

    assert got == list(range(written))
    assert mailbox.parcel(received) == b""
    assert mailbox.get_write_buffer_size() == 0


def test_what_may_be_lost_still_counts() -> None:
    mailbox, _ = made()
    mailbox.write(b'"x",')
    assert mailbox.parcel(0) == b'"x",'
    assert mailbox.get_write_buffer_size() == 4

    mailbox.write(b'"yy",')
    assert mailbox.get_write_buffer_size() == 9
    assert mailbox.parcel(1) == b'"yy",'
    assert mailbox.get_write_buffer_size() == 5


def test_a_parcel_has_a_bound_and_at_least_one_message() -> None:
    mailbox, _ = made()
    big = b"x" * (PARCEL_BYTES + 1)
    for data in (big, b"a", b"b", b"c" * PARCEL_BYTES):
        mailbox.write(data)

    assert [mailbox.parcel(number) for number in range(3)] == [big, b"ab", b"c" * PARCEL_BYTES]


def test_an_outdated_receipt_takes_nothing() -> None:
    mailbox, _ = made()
    for number in range(3):
        mailbox.write(b"%d" % number)
        mailbox.parcel(number)

    assert mailbox.parcel(0) == b""
    assert mailbox.parcel(7) == b""
    assert mailbox.parcel(2) == b"2"


async def test_a_poll_is_woken_by_mail_and_its_place_is_taken_by_the_next() -> None:
    mailbox, _ = made()
    first = asyncio.create_task(mailbox.filled(60))
    await asyncio.sleep(0)
    second = asyncio.create_task(mailbox.filled(60))
    assert await first is False
    mailbox.write(b"x")
    assert await second is True


async def test_a_poll_goes_home_when_its_time_is_up_or_the_session_ends() -> None:
    mailbox, ends = made()
    assert await mailbox.filled(0) is True

    waiting = asyncio.create_task(mailbox.filled(60))
    await asyncio.sleep(0)
    mailbox.abort()
    mailbox.abort()
    assert await waiting is True
    assert (mailbox.is_closing(), mailbox.parcel(0), ends) == (True, b"", [None])
