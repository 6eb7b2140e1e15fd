"""The configuration: read from a file, the environment and flags, checked, and documented."""

from gateway.config.load import Loaded, load_config, resolve_replica
from gateway.config.sections import AuthSettings, ChannelSettings, Config, LimitsSettings

__all__ = [
    "AuthSettings",
    "ChannelSettings",
    "Config",
    "LimitsSettings",
    "Loaded",
    "load_config",
    "resolve_replica",
]
