"""What the operator configured: read from a file, the environment and flags, checked, explained."""

from gateway.config.channel import Channel
from gateway.config.load import Loaded, load_config, load_with_origins, resolve_replica
from gateway.config.sections import (
    Api,
    ApiKey,
    Auth,
    Bus,
    Config,
    Drain,
    Limits,
    Log,
    Server,
)

__all__ = [
    "Api",
    "ApiKey",
    "Auth",
    "Bus",
    "Channel",
    "Config",
    "Drain",
    "Limits",
    "Loaded",
    "Log",
    "Server",
    "load_config",
    "load_with_origins",
    "resolve_replica",
]
