"""Direct gets, which any server may answer, one that hangs among them."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from gateway.bus.requests import Reply
from gateway.errors import BusUnavailable, HistoryUnavailable, OutcomeUnknown
from gateway.history.jetstream.api import DIRECT_SECONDS, StreamApi

if TYPE_CHECKING:
    from gateway.bus.remote import RemoteBus

END = [Reply(204, b"", b"")]


class Bus:
    """Answers, or raises, what it was told to, in this order."""

    def __init__(self, *outcomes: list[Reply] | Exception) -> None:
        self._outcomes = iter(outcomes)
        self.asked: list[float] = []

    async def request_parts(self, subject: str, body: bytes, *, seconds: float) -> list[Reply]:
        assert (subject, body) == ("$JS.API.DIRECT.GET.G", b'{"seq":1}')
        self.asked.append(seconds)
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def direct(bus: Bus) -> list[Reply]:
    """What comes of a direct get."""
    return asyncio.run(StreamApi(cast("RemoteBus", bus), "G").direct(seq=1))


@pytest.mark.parametrize("silent", range(len(DIRECT_SECONDS)))
def test_what_a_server_does_not_answer_another_is_asked(silent: int) -> None:
    bus = Bus(*[OutcomeUnknown("no answer in time")] * silent, END)
    assert direct(bus) == END
    assert bus.asked == list(DIRECT_SECONDS[: silent + 1])


def test_it_is_not_asked_for_ever() -> None:
    bus = Bus(*[OutcomeUnknown("no answer in time")] * len(DIRECT_SECONDS))
    with pytest.raises(HistoryUnavailable, match="no answer in time"):
        direct(bus)
    assert bus.asked == list(DIRECT_SECONDS)


def test_without_a_connection_nobody_is_asked_again() -> None:
    bus = Bus(OutcomeUnknown("the connection was lost"), BusUnavailable("not connected"), END)
    with pytest.raises(HistoryUnavailable, match="not connected"):
        direct(bus)
