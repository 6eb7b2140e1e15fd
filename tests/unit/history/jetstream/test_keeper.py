"""Watching a stream that cannot become as it has to be, or is gone: nothing makes the tries come faster."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import structlog

from gateway.bus.base import Listener
from gateway.bus.remote import RemoteBus
from gateway.bus.subjects import Subjects
from gateway.config.sections import HistorySettings
from gateway.errors import HistoryUnavailable
from gateway.history.jetstream import stream
from gateway.history.jetstream.api import (
    JsonObject,
    StreamApi,
    StreamGroup,
    StreamInfo,
    StreamState,
)
from gateway.history.jetstream.stream import ServerClock, StreamKeeper, stream_config
from gateway.retention import Retention

NOW = "2026-08-06T00:29:27.587861324Z"
WANTED = stream_config(Subjects("gateway"), Retention(10, 300), HistorySettings())


class Server:
    """A stream, its API, and a bus on which its advisories come at once."""

    def __init__(self, config: JsonObject) -> None:
        self.config = config
        self.obeys = True
        self.there = True
        self.creates = 0
        self.looks = 0
        self.updates = 0
        self.advised: Any = None
        self.tell: Listener = lambda _: None
        self.connected = True
        self.server_version = "2.15.0"

    def listen(self, listener: Listener) -> None:
        self.tell = listener

    async def subscribe(self, _: str, handler: Any) -> None:
        self.advised = handler

    async def info(self) -> StreamInfo | None:
        self.looks += 1
        await asyncio.sleep(0)
        return self._found() if self.there else None

    async def create(self, config: JsonObject) -> StreamInfo:
        self.creates += 1
        self.config, self.there = config, True
        return self._found()

    def _found(self) -> StreamInfo:
        state = StreamState(0, 0, NOW, 0, NOW)
        return StreamInfo(dict(self.config), NOW, state, NOW, StreamGroup("s1"))

    async def update(self, config: JsonObject) -> StreamInfo:
        self.updates += 1
        if self.obeys:
            self.config = config
        self.advised(b"", None)
        return self._found()


class Kept:
    """A keeper and its server."""

    def __init__(self, config: JsonObject) -> None:
        self.server = Server(config)
        bus, api = cast("RemoteBus", self.server), cast("StreamApi", self.server)
        self.keeper = StreamKeeper(bus, api, WANTED, ServerClock(lambda: 0.0))

    async def turns(self) -> None:
        for _ in range(50):
            self.server.advised(b"", None)
            self.keeper.look()
            await asyncio.sleep(0)


@pytest.fixture
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    made = Kept(WANTED | request.param)
    made.keeper.start()
    await asyncio.sleep(0)
    yield made
    await made.keeper.close()


UNFIT = pytest.mark.parametrize(
    "kept", [{"sealed": True, "discard": "new"}, {"subjects": ["orders.>"]}], indirect=True
)


@UNFIT
async def test_a_stream_that_cannot_be_used_is_looked_at_once_whatever_happens(kept: Kept) -> None:
    with structlog.testing.capture_logs() as logs:
        await kept.turns()

    assert (kept.server.looks, kept.server.updates) == (1, 0)
    assert kept.keeper.problem == "stream_unfit"
    assert [entry["event"] for entry in logs] in ([], ["no history"])
    with pytest.raises(HistoryUnavailable) as caught:
        kept.keeper.require()
    assert caught.value.reason == "stream_unfit"


@UNFIT
async def test_a_new_connection_is_reason_to_look_again(kept: Kept) -> None:
    await kept.turns()
    kept.server.config = WANTED
    kept.server.tell(False)
    kept.server.tell(True)
    await kept.turns()

    assert kept.keeper.problem is None


@UNFIT
async def test_it_is_looked_at_again_after_a_while_that_grows(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def passed(seconds: float) -> Any:
        pauses.append(seconds)
        if len(pauses) == 6:
            kept.server.config = WANTED
        return timeout(0 if kept.keeper.problem else 60)

    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", passed)
    kept.server.tell(True)
    for _ in range(200):
        await asyncio.sleep(0.001)
        if kept.keeper.problem is None:
            break

    assert kept.keeper.problem is None
    assert pauses[:6] == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


@pytest.mark.parametrize("kept", [{"max_msgs_per_subject": 2}], indirect=True)
async def test_a_stream_that_was_narrowed_is_widened_at_once(kept: Kept) -> None:
    await kept.turns()

    assert kept.keeper.problem is None
    assert kept.server.updates == 1
    assert kept.server.config["max_msgs_per_subject"] == WANTED["max_msgs_per_subject"]
    assert kept.server.config["metadata"]["gateway.narrowed"].startswith("2 ")


async def test_a_server_that_leaves_the_stream_as_it_is_is_not_asked_again_and_again() -> None:
    kept = Kept(WANTED | {"max_msgs_per_subject": 2})
    kept.server.obeys = False
    kept.keeper.start()
    await asyncio.sleep(0)
    await kept.turns()

    assert kept.server.updates == 1
    assert kept.keeper.problem == "stream_unfit"
    await kept.keeper.close()


@pytest.mark.parametrize("kept", [{}], indirect=True)
async def test_while_a_server_may_still_be_deleting_no_stream_of_that_name_is_made(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.turns()
    monkeypatch.setattr(stream, "DELETED_SECONDS", 3600)
    kept.server.there = False
    await kept.turns()

    assert kept.server.creates == 0
    assert kept.keeper.problem == "unavailable"


@pytest.mark.parametrize("kept", [{}], indirect=True)
async def test_after_that_it_is_made_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept.turns()
    monkeypatch.setattr(stream, "DELETED_SECONDS", 0)
    kept.server.there = False
    await kept.turns()

    assert kept.server.creates == 1
    assert kept.keeper.problem is None


async def test_a_stream_that_never_was_is_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "DELETED_SECONDS", 3600)
    made = Kept(WANTED)
    made.server.there = False
    made.keeper.start()
    await asyncio.sleep(0)
    await made.turns()
    await made.keeper.close()

    assert made.server.creates == 1
    assert made.keeper.problem is None
