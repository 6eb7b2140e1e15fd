"""Messages that met no subscriber: who is told, who is not, and for how long one is remembered."""

import asyncio

from gateway.bus.no_responders import NoRespondersInbox

HEADERS = b"NATS/1.0 503\r\n\r\n"


def waiting() -> "asyncio.Future[None]":
    """A sender who wants to be told."""
    return asyncio.get_running_loop().create_future()


async def test_its_subjects_are_below_the_prefix_and_differ() -> None:
    inbox, other = NoRespondersInbox("gw"), NoRespondersInbox("gw")
    subjects = [inbox.expect(waiting()), inbox.expect(waiting()), other.expect(waiting())]

    assert len(set(subjects)) == 3
    assert inbox.subject != other.subject
    for subject in subjects[:2]:
        head, _, tail = subject.rpartition(".")
        assert f"{head}.*" == inbox.subject
        assert head.startswith("gw.unheard.")
        assert tail.isdigit()


async def test_the_sender_is_told_and_no_other() -> None:
    inbox, told, other = NoRespondersInbox("gw"), waiting(), waiting()
    subject = inbox.expect(told)
    inbox.expect(other)
    inbox.receive(subject.encode(), HEADERS, b"")
    inbox.receive(subject.encode(), HEADERS, b"")

    assert told.done()
    assert not other.done()


async def test_what_does_not_say_that_nobody_is_there_is_no_such_answer() -> None:
    for headers in (b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 408\r\n\r\n", b"x 503\r\n\r\n"):
        inbox, told = NoRespondersInbox("gw"), waiting()
        inbox.receive((inbox.expect(told)).encode(), headers, b"")

        assert not told.done()


async def test_a_message_is_forgotten_when_its_sender_does_not_wait_any_more() -> None:
    inbox, told, gone = NoRespondersInbox("gw"), waiting(), waiting()
    subjects = [inbox.expect(told), inbox.expect(gone), inbox.expect(gone)]
    inbox.expect(waiting())
    inbox.receive(subjects[0].encode(), HEADERS, b"")
    gone.cancel()
    await asyncio.sleep(0)
    assert len(inbox) == 1

    for subject in (*subjects, "gw.unheard.x.1"):
        inbox.receive(subject.encode(), HEADERS, b"")
    assert gone.cancelled()
