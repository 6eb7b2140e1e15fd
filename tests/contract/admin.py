"""An operator's view of the stream."""

from typing import Any

import msgspec
from nats.aio.client import Client

STREAM = "T"


class Admin:
    """An operator with nats-py."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, operation: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        """What JetStream's API says of the stream."""
        body = b"" if query is None else msgspec.json.encode(query)
        answer = await self._client.request(f"$JS.API.{operation}.{STREAM}", body, timeout=5)
        found: dict[str, Any] = msgspec.json.decode(answer.data)
        return found

    async def config(self) -> dict[str, Any]:
        """The stream's configuration."""
        config: dict[str, Any] = (await self.ask("STREAM.INFO"))["config"]
        return config

    async def leader(self) -> str:
        """Name of the server that leads the stream."""
        return str((await self.ask("STREAM.INFO"))["cluster"]["leader"])
