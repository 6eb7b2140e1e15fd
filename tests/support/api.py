"""The HTTP API, as a backend calls it."""

from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.gateway import API_KEY, GatewayProcess


class Backend:
    """A service with an API key, talking to one replica."""

    def __init__(self, gateway: GatewayProcess, key: str = API_KEY) -> None:
        self._url = gateway.internal_url
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """POST JSON; status and decoded answer."""
        async with self._session.post(f"{self._url}{path}", json=body) as response:
            return response.status, await response.json(content_type=None)

    async def publish(self, topic: str, event: str, payload: Any) -> int:
        """Publish one message; the status."""
        body = {"topic": topic, "event": event, "payload": payload}
        return (await self.post("/v1/publish", body))[0]

    async def get(self, path: str) -> tuple[int, Any]:
        """GET; status and decoded answer."""
        async with self._session.get(f"{self._url}{path}") as response:
            return response.status, await response.json(content_type=None)

    async def delete(self, path: str) -> tuple[int, Any]:
        """DELETE; status and decoded answer."""
        async with self._session.delete(f"{self._url}{path}") as response:
            return response.status, await response.json(content_type=None)
