"""A backend that the gateway calls, on loopback, in the test's own process."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.ports import free_port

SECRET = "whsec_" + base64.b64encode(b"a webhook secret of 32 bytes....").decode()

Answer = Callable[[dict[str, Any]], "web.StreamResponse | Awaitable[web.StreamResponse]"]


class Call:
    """One request: its headers, the raw body, and what it says."""

    def __init__(self, headers: dict[str, str], raw: bytes) -> None:
        self.headers = headers
        self.raw = raw
        self.body: dict[str, Any] = json.loads(raw)
        self.type: str = headers.get("ce-type", "")


class UpstreamServer:
    """Answers 204 to everything, if it is not told otherwise.

    Attributes:
        calls: All requests so far, in order of their arrival.
        answers: By ``ce-type``: given the body, the response.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.calls: list[Call] = []
        self.answers: dict[str, Answer] = {}
        self._runner: web.AppRunner | None = None
        self._answering: set[asyncio.Task[web.StreamResponse]] = set()

    @property
    def url(self) -> str:
        """What to configure as ``upstream.url``."""
        return f"http://127.0.0.1:{self.port}/gateway"

    def section(self, **more: Any) -> dict[str, Any]:
        """``[upstream]`` of a gateway that calls it."""
        return {"url": self.url, "secrets": [SECRET]} | more

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the calls of one type."""
        return [call.body for call in self.calls if call.type == kind]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/gateway", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for task in self._answering:
                task.cancel()
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(headers, await request.read())
        self.calls.append(call)
        answer = self.answers.get(call.type)
        if answer is None:
            return web.Response(status=204)
        response = answer(call.body)
        if not isinstance(response, Awaitable):
            return response
        task = asyncio.ensure_future(response)
        self._answering.add(task)
        try:
            return await task
        finally:
            self._answering.discard(task)


def says(value: Any, status: int = 200) -> Answer:
    """Always the same JSON."""
    return lambda _: web.json_response(value, status=status)


def slowly(seconds: float, answer: Answer) -> Answer:
    """The same answer, later."""

    async def respond(body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        response = answer(body)
        return await response if isinstance(response, Awaitable) else response

    return respond
