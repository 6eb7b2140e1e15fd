"""A gateway whose rules keep nothing has a history all the same, with nothing in it."""

import inspect

import pytest

from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.config.sections import HistorySettings
from gateway.errors import HistoryUnavailable
from gateway.history import open_history
from gateway.history.base import MessageHistory
from gateway.history.memory import MemoryHistory
from gateway.history.no_history import NoHistory
from gateway.retention import Retention
from tests.contract.clients import Counters


def opened(*rules: Retention) -> MessageHistory:
    return open_history(
        MemoryBus(metrics=Counters()),
        Subjects("p"),
        rules=rules,
        retention=lambda _: None,
        config=HistorySettings(),
    )


async def test_what_the_rules_keep_decides_whether_there_is_a_store() -> None:
    assert isinstance(opened(), NoHistory)
    assert isinstance(opened(Retention(1, 1)), MemoryHistory)


async def test_nothing_is_wrong_with_it() -> None:
    history: MessageHistory = NoHistory()
    history.listen(lambda: pytest.fail("nothing can have happened"))
    assert await history.start() is None
    assert history.problem is None
    await history.close()


async def test_it_refuses_to_store_and_to_read() -> None:
    history: MessageHistory = NoHistory()
    for asked in (
        history.append("t", b"", id="i"),
        history.after("t", 0, limit=1),
        history.newest("t", 1),
        history.tip(),
        history.time_at(1),
        history.last_offsets(["t"]),
        history.erase("t"),
    ):
        assert inspect.isawaitable(asked)
        with pytest.raises(HistoryUnavailable):
            await asked
