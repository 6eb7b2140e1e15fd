"""The configuration: read from a file, the environment and flags, checked, and documented."""

from gateway.config.load import Loaded, load_config, resolve_replica
from gateway.config.sections import (
    AuthSettings,
    ChannelSettings,
    CompressionSettings,
    Config,
    LimitsSettings,
)

__all__ = [
    "AuthSettings",
    "ChannelSettings",
    "CompressionSettings",
    "Config",
    "LimitsSettings",
    "Loaded",
    "load_config",
    "resolve_replica",
]
