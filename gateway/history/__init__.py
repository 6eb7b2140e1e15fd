"""What was published before: kept messages, in one order for all topics."""

import time

from gateway.bus.base import Bus
from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.history.base import History, HistoryConfig, HistoryLimits
from gateway.history.memory import Limits, MemoryHistory, MemoryStore


def open_history(
    bus: Bus, subjects: Subjects, *, limits: Limits, highest: HistoryLimits, config: HistoryConfig
) -> History:
    """The history that goes with a bus, not yet started.

    Args:
        limits: How much is kept of a topic.
        highest: The highest of all limits, for a store that has but one.
        config: The ``history`` section of the configuration.
    """
    if isinstance(bus, MemoryBus):
        return MemoryHistory(bus, subjects, MemoryStore(limits, config.max_bytes, time.time))
    # only here, so that a gateway on the memory bus does not load it
    from gateway.bus.remote import RemoteBus  # noqa: PLC0415
    from gateway.history.jetstream import JetStreamHistory  # noqa: PLC0415

    if not isinstance(bus, RemoteBus):
        raise TypeError(f"no history goes with a {type(bus).__name__}")
    return JetStreamHistory(bus, subjects, highest, config)
