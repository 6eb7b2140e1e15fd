"""The carrier between replicas: subjects, envelopes, and the memory and NATS buses."""

from gateway.bus.base import Bus, BusConfig
from gateway.bus.memory import MemoryBus
from gateway.metrics import Metrics

MEMORY_URL = "memory://"


def open_bus(config: BusConfig, *, metrics: Metrics, name: str, copies: int = 1) -> Bus:
    """The bus of a configuration, not yet started.

    Args:
        config: Its ``bus`` section.
        metrics: Told of what happens on the bus.
        name: The replica's, for the server's monitoring.
        copies: Servers that shall keep each value, where servers keep values.

    Raises:
        ConfigError: The addresses or the credentials cannot be used.
    """
    if config.url == MEMORY_URL:
        return MemoryBus(metrics=metrics)
    # only here, so that a gateway on the memory bus does not load it
    from gateway.bus.remote import RemoteBus  # noqa: PLC0415

    return RemoteBus(config, copies=copies, metrics=metrics, name=name)
