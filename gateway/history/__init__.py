"""Message history: the stores of published messages, and how clients and replicas catch up with them."""

import time
from collections.abc import Callable, Iterable

from gateway.bus.base import Bus
from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.config.sections import HistorySettings
from gateway.history.base import MessageHistory
from gateway.history.memory import MemoryHistory, MemoryStore
from gateway.history.no_history import NoHistory
from gateway.retention import Retention


def open_history(
    bus: Bus,
    subjects: Subjects,
    *,
    rules: Iterable[Retention],
    retention: Callable[[str], Retention | None],
    config: HistorySettings,
) -> MessageHistory:
    """The history that goes with a bus, not yet started.

    Args:
        rules: What each rule keeps that keeps anything.
        retention: What is kept of a topic.
        config: The ``history`` section of the configuration.
    """
    kept = list(rules)
    if not kept:
        return NoHistory()
    widest = Retention(max(r.messages for r in kept), max(r.seconds for r in kept))
    if isinstance(bus, MemoryBus):
        store = MemoryStore(lambda topic: retention(topic) or widest, config.max_bytes, time.time)
        return MemoryHistory(bus, subjects, store)
    # only here, so that a gateway on the memory bus does not load it
    from gateway.bus.remote import RemoteBus  # noqa: PLC0415
    from gateway.history.jetstream import JetStreamHistory  # noqa: PLC0415

    if not isinstance(bus, RemoteBus):
        raise TypeError(f"no history goes with a {type(bus).__name__}")
    return JetStreamHistory(bus, subjects, widest, config)
