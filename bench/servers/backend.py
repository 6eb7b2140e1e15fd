"""A customer's backend that does nothing: what a callback costs beside it is the gateway's."""

import sys
from pathlib import Path

from bench.servers.base import Server, post
from bench.servers.rivals import RIVALS


class Backend(Server):
    """aiohttp on uvloop; answers every callback ``{}``."""

    @property
    def url(self) -> str:
        """What to configure as ``upstream.url``."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def slow_url(self) -> str:
        """The same, but every answer takes three seconds."""
        return f"{self.url}slow"

    def command(self, directory: Path) -> list[str]:
        del directory
        return [sys.executable, str(RIVALS / "backend.py"), str(self.port)]

    def callback(self, body: bytes) -> bytes:
        """A request as the gateway sends them, headers of the same length."""
        headers = b"".join(
            b"%b: %b\r\n" % (name, b"x" * length)
            for name, length in (
                (b"ce-id", 36),
                (b"ce-type", 12),
                (b"ce-source", 30),
                (b"ce-time", 24),
                (b"webhook-id", 36),
                (b"webhook-timestamp", 10),
                (b"webhook-signature", 47),
            )
        )
        return post("/", body, headers)
