"""What the operator configured: read from a file, the environment and flags, checked, explained."""

from gateway.config.load import Loaded, load_config, load_with_origins, resolve_replica
from gateway.config.sections import AuthSettings, ChannelSettings, Config, LimitsSettings

__all__ = [
    "AuthSettings",
    "ChannelSettings",
    "Config",
    "LimitsSettings",
    "Loaded",
    "load_config",
    "load_with_origins",
    "resolve_replica",
]
