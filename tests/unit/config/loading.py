"""Loading a configuration for tests that do not ask where its values come from."""

from typing import Any

from gateway.config import Config
from gateway.config import load_config as load


def load_config(*args: Any, **keys: Any) -> Config:
    """The configuration alone."""
    return load(*args, **keys).config
