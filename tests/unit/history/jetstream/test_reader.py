"""Reading completely where the server that answers may lag behind the leader."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.requests import Reply
from gateway.bus.subjects import Subjects
from gateway.errors import HistoryUnavailable
from gateway.history.jetstream import reader
from gateway.history.jetstream.api import StoredMessage, StreamApi
from gateway.history.jetstream.reader import StreamReader

SUBJECTS = Subjects("p")
TIME = "2026-08-06T00:29:27.5Z"


class FakeStream:
    """A stream and a copy of it that lags.

    Attributes:
        messages: Subject of each message, from offset 1 on; None where it was erased.
        copied: Of how many of them the copies know.
        asked: How often the leader was asked.
        direct_reads: Called before each answer of a copy.
    """

    max_query_bytes = 10_000

    def __init__(self, topics: Iterable[str], lag: int = 0) -> None:
        self.messages: list[str | None] = [SUBJECTS.stored(topic) for topic in topics]
        self.copied = max(0, len(self.messages) - lag)
        self.asked = 0
        self.most = 1000  # messages in an answer
        self.direct_reads: Callable[[], None] = lambda: None

    def offsets(self, subject: str, start: int = 1, upto: int | None = None) -> list[int]:
        """Where the messages of a subject stand."""
        kept = enumerate(self.messages[:upto], 1)
        return [offset for offset, at in kept if at == subject and offset >= start]

    async def message(self, **query: Any) -> StoredMessage | None:
        """One message, from the leader."""
        self.asked += 1
        if "last_by_subj" in query:
            found = self.offsets(query["last_by_subj"])[-1:]
        else:
            found = self.offsets(query["next_by_subj"], query["seq"])[:1]
        return StoredMessage(found[0], TIME, b"%d" % found[0]) if found else None

    async def direct(self, **query: Any) -> list[Reply]:
        """Some messages, from a copy."""
        self.direct_reads()
        if "multi_last" in query:
            lasts = (self.offsets(subject, 1, self.copied)[-1:] for subject in query["multi_last"])
            found = sorted(offset for last in lasts for offset in last)
        else:
            found = self.offsets(query["next_by_subj"], query["seq"], self.copied)
        part = found[: min(query.get("batch", 1000), self.most)]
        status = 204 if found else 404
        end = f"NATS/1.0 {status}\r\nNats-Num-Pending: {len(found) - len(part)}\r\n\r\n"
        return [*map(self._reply, part), Reply(status, end.encode(), b"")]

    def _reply(self, offset: int) -> Reply:
        headers = (
            f"NATS/1.0\r\nNats-Subject: {self.messages[offset - 1]}\r\nNats-Sequence: {offset}\r\n"
            f"Nats-Time-Stamp: {TIME}\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 0\r\n\r\n"
        )
        return Reply(0, headers.encode(), b"%d" % offset)


def reader_of(stream: FakeStream, *, replicated: bool = True) -> StreamReader:
    return StreamReader(cast("StreamApi", stream), SUBJECTS, lambda: replicated)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is asked again without waiting."""
    monkeypatch.setattr(reader, "AGAIN_SECONDS", (0, 0))


streams = st.builds(
    FakeStream, st.lists(st.sampled_from("abc"), max_size=40).map("".join), st.integers(0, 40)
)


@given(
    stream=streams,
    offset=st.integers(0, 45),
    limit=st.integers(0, 20),
    ahead=st.integers(0, 45),
    most=st.integers(1, 10),
    catches_up=st.integers(0, 10),
)
def test_all_up_to_an_offset_is_read_however_far_a_copy_lags(
    *, stream: FakeStream, offset: int, limit: int, ahead: int, most: int, catches_up: int
) -> None:
    stream.most = most
    upto = min(ahead, len(stream.messages))
    copied = stream.copied

    def copy_more() -> None:
        stream.copied = min(len(stream.messages), stream.copied + catches_up)

    stream.direct_reads = copy_more
    found = asyncio.run(reader_of(stream).after("a", offset, limit, upto))
    wanted = stream.offsets(SUBJECTS.stored("a"), offset + 1, upto)[:limit]
    assert [stored.offset for stored in found] == wanted
    assert [stored.body for stored in found] == [b"%d" % at for at in wanted]
    stream.copied = copied
    stream.direct_reads = lambda: None
    found = asyncio.run(reader_of(stream).after("a", offset, limit, None))
    assert [stored.offset for stored in found] == stream.offsets(
        SUBJECTS.stored("a"), offset + 1, copied
    )[:limit]


@given(stream=streams, count=st.integers(0, 50), most=st.integers(1, 10))
def test_the_newest_are_read_however_far_a_copy_lags(
    stream: FakeStream, count: int, most: int
) -> None:
    stream.most = most
    found = asyncio.run(reader_of(stream).newest("a", count))
    wanted = stream.offsets(SUBJECTS.stored("a"))[-count:] if count else []
    assert [stored.offset for stored in found] == wanted


async def test_one_server_is_never_asked_twice() -> None:
    stream = FakeStream("abcabc")
    alone = reader_of(stream, replicated=False)
    assert [stored.offset for stored in await alone.after("a", 0, 9, 6)] == [1, 4]
    assert [stored.offset for stored in await alone.newest("b", 1)] == [5]
    assert stream.asked == 0


async def test_a_copy_that_shows_what_was_asked_for_needs_no_leader() -> None:
    stream = FakeStream("abab")
    assert [stored.offset for stored in await reader_of(stream).after("a", 0, 9, 3)] == [1, 3]
    assert [stored.offset for stored in await reader_of(stream).after("a", 0, 1, 4)] == [1]
    assert stream.asked == 0
    assert [stored.offset for stored in await reader_of(stream).after("a", 0, 9, 4)] == [1, 3]
    assert stream.asked == 1


async def test_what_was_erased_is_not_waited_for() -> None:
    stream = FakeStream("aaa")
    stream.messages[1:] = [None, None]
    assert [stored.offset for stored in await reader_of(stream).after("a", 0, 9, 3)] == [1]
    assert stream.asked <= 2


async def test_the_last_offsets_of_many_topics_come_in_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "SUBJECTS_AT_A_TIME", 3)
    monkeypatch.setattr(reader, "READ_BYTES", 1)  # so that each answer counts as cut short
    stream = FakeStream("abcdefgabc")
    stream.most = 2
    found = await reader_of(stream).last_offsets("abcdefghijk")
    assert found == {"a": 8, "b": 9, "c": 10, "d": 4, "e": 5, "f": 6, "g": 7}


async def test_an_answer_that_was_not_asked_for_is_none() -> None:
    stream = FakeStream("ab")
    stream.offsets = lambda *_: [1]  # type: ignore[method-assign]
    with pytest.raises(HistoryUnavailable):
        await reader_of(stream).last_offsets("b")
