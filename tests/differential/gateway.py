"""A gateway whose rules are what ``reference.exs`` has channels for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.gateway import GatewayProcess

RULE = {"join": "authenticated", "push": "broadcast", "echo": True}


@contextmanager
def conforming(directory: Path) -> Iterator[str]:
    """The URL of its socket."""
    channels = [
        {"pattern": "room:private", "join": "token"},
        {"pattern": "room:*", **RULE},
        {"pattern": "lobby:*", **RULE, "presence": True},
    ]
    process = GatewayProcess(
        directory, {"presence": {"gather_milliseconds": 0}, "channels": channels}
    )
    process.start()
    try:
        yield f"{process.public_url}/socket"
    finally:
        process.kill()
