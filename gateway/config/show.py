"""The configuration in force, as it may be shown."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.config.keys import KEYS
from gateway.config.load import Loaded
from gateway.config.masking import masked


def effective(loaded: Loaded) -> Iterator[tuple[str, Any, str]]:
    """Each key with its value, secrets masked, and where it comes from."""
    sections = msgspec.to_builtins(loaded.config)
    for path, key in KEYS.items():
        section, _, name = path.partition(".")
        value = sections[section][name] if name else sections[section]
        yield path, masked(value, key.shape), loaded.origins[path]
