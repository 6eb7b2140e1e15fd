"""What is no request is answered plainly on both listeners, and counted and logged on the public one."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from gateway import api
from gateway.app.listeners import BadRequest, HttpListener, hide_server, listen, open_address
from gateway.metrics import Metrics
from gateway.transport.entrance import Entrance
from gateway.transport.listener import Descriptors
from gateway.transport.peer import PeerAddress
from tests.support.ports import free_port

MOST = 16_384

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"

BAD = {
    "no HTTP": b"hello\r\n\r\n",
    "a method of another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a header without a colon": GET + b"hunter2\r\n\r\n",
    "a long cookie": GET + b"Cookie: %b\r\n\r\n" % (b"c" * 2 * MOST),
    "a long query": b"GET /?%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"q" * 2 * MOST),
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "many headers": GET + b"%b\r\n" % (b"X: 1\r\n" * 200),
}


class Listener:
    """A listener of an application with one page."""

    def __init__(self, bad_request: BadRequest, *, public: bool = True) -> None:
        self._public = public
        self._bad_request = bad_request

    async def start(self) -> HttpListener:
        """Listen."""
        app = web.Application()
        app.router.add_get("/", self._page)
        app.on_response_prepare.append(hide_server)
        self._port = free_port()
        return await listen(
            app,
            open_address(f"127.0.0.1:{self._port}", public=self._public),
            descriptors=Descriptors(8, Metrics()) if self._public else None,
            max_header_bytes=MOST,
            bad_request=self._bad_request,
        )

    async def ask(self, request: bytes) -> tuple[list[bytes], bytes]:
        """The lines of the answer's head, and its body; the connection has to end with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.split(b"\r\n"), body

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text="here")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def public(metrics: Metrics) -> AsyncIterator[Listener]:
    unused: Any = None
    entrance = Entrance(unused, PeerAddress([]), metrics)
    listener = Listener(entrance.bad_request)
    running = await listener.start()
    yield listener
    await running.close()


def refused(metrics: Metrics) -> float:
    """How many requests were counted as bad."""
    name, labels = "gateway_connects_total", {"result": "refused", "reason": "bad_request"}
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("request_bytes", BAD.values(), ids=BAD.keys())
async def test_what_is_no_request_is_counted_and_answered_plainly(
    public: Listener, metrics: Metrics, request_bytes: bytes
) -> None:
    head, body = await public.ask(request_bytes)

    assert head[0] == b"HTTP/1.1 400 Bad Request"
    assert not any(line.lower().startswith(b"server:") for line in head)
    assert b"Connection: close" in head
    assert body == b""
    assert refused(metrics) == 1


async def test_it_is_logged_now_and_then_and_without_its_bytes(
    public: Listener, metrics: Metrics
) -> None:
    with capture_logs() as lines:
        for _ in range(5):
            await public.ask(BAD["a header without a colon"])

    told = [line for line in lines if line["event"] == "connect refused"]
    line = {
        "event": "connect refused",
        "log_level": "info",
        "reason": "bad_request",
        "peer": "127.0.0.1",
        "throttle": "bad_request",
    }
    assert told == [line] * 5, "of which the log takes one a second"
    assert "hunter2" not in str(lines)
    assert refused(metrics) == 5


async def test_headers_up_to_the_bound_are_taken(public: Listener, metrics: Metrics) -> None:
    """Browsers send the cookies of a whole domain."""
    head, body = await public.ask(GET + b"Cookie: %b\r\n\r\n" % (b"c" * (MOST - 100)))

    assert (head[0], body) == (b"HTTP/1.1 200 OK", b"here")
    assert refused(metrics) == 0


async def test_on_the_internal_port_it_is_a_problem_document() -> None:
    listener = Listener(api.bad_request, public=False)
    running = await listener.start()
    head, body = await listener.ask(BAD["no HTTP"])
    await running.close()

    assert head[0] == b"HTTP/1.1 400 Bad Request"
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body) == {"type": "about:blank", "title": "Bad Request", "status": 400}


@pytest.mark.parametrize("encoding", [b"br", b"zstd"])
async def test_a_body_that_aiohttp_cannot_decompress_is_415(encoding: bytes) -> None:
    listener = Listener(api.bad_request, public=False)
    running = await listener.start()
    head, body = await listener.ask(
        b"POST /%b\r\nContent-Encoding: %b\r\nContent-Length: 3\r\n\r\nabc"
        % (GET.removeprefix(b"GET /").rstrip(), encoding)
    )
    await running.close()

    assert head[0] == b"HTTP/1.1 415 Unsupported Media Type"
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["type"] == "urn:gateway:problem:unsupported-media-type"
    assert "gzip" in json.loads(body)["detail"]
