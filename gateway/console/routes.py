"""The console as an application below the internal listener's: its URLs, its socket, and its clock."""

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiohttp_jinja2
import jinja2
from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler

from gateway import __version__, live
from gateway.config.fields import Scope
from gateway.console import tailing
from gateway.console.feeds import TICK_SECONDS, Feed
from gateway.console.guard import SIGN_IN, Guard, Turned
from gateway.console.pages import ROOT, Pages
from gateway.console.sign_in import SignIns
from gateway.console.sources import Sources
from gateway.console.tailing import TailFeed
from gateway.console.trend import SAMPLE_SECONDS, Trend
from gateway.console.viewer import LiveTopic, Viewer
from gateway.console.views import NOTHING, Views, counted, number
from gateway.protocol.reasons import CloseCode

MAX_VIEWERS: Final = 200
"""Pages that may be open at once."""

MAX_FRAME_BYTES: Final = 4096
"""Of what a page sends: joins and heartbeats."""

PING_SECONDS: Final = 30.0

_STATIC: Final = Path(__file__).parent / "static"


class Console:
    """The operator's pages.

    Attributes:
        app: To be served below :data:`~gateway.console.pages.ROOT`.
        sign_ins: Reads its cookies.
        feeds: What moves, by page.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.sign_ins = SignIns(sources.config.api.keys, sources.clock)
        self._trend = Trend()
        self._ticks = 0
        self._viewers: set[Viewer] = set()
        app = self.app = web.Application()
        environment = aiohttp_jinja2.setup(
            app,
            loader=jinja2.PackageLoader("gateway.console"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "segment": _segment,
            "when": _when,
            "number": number,
            "counted": counted,
        }
        environment.globals |= {
            "replica": sources.config.server.replica,
            "root": ROOT,
            "version": __version__,
            "any_key": bool(sources.config.api.keys),
        }
        views = self._views = Views(environment, sources, self._trend)
        self.feeds = {
            "overview": Feed("console:overview", None, views.overview),
            "topics": Feed("console:topics", "read", views.topics),
            "replica": Feed("console:replica", "read", views.replica),
        }
        self._by_topic: dict[str, LiveTopic] = {feed.topic: feed for feed in self.feeds.values()}
        self._tailed = environment.get_template("live/tailed.html")
        pages = Pages(sources, self.sign_ins, views, self.feeds)
        table: tuple[tuple[str, str, Handler, Scope | None], ...] = (
            ("GET", "", pages.overview, None),
            ("POST", "/sign-out", pages.sign_out, None),
            ("GET", "/users", pages.users, "read"),
            ("GET", "/users/{user}", pages.user, "read"),
            ("POST", "/users/{user}/ask", pages.ask_for_user, "read"),
            ("POST", "/users/{user}/close", pages.close_sessions, "manage"),
            ("GET", "/topics", pages.topics, "read"),
            ("POST", "/topics/ask", pages.ask_for_topics, "read"),
            ("GET", "/topics/{topic}", pages.topic, "read"),
            ("POST", "/topics/{topic}/ask", pages.ask_for_topic, "read"),
            ("GET", "/publish", pages.publish_form, "publish"),
            ("POST", "/publish", pages.publish, "publish"),
            ("GET", "/replica", pages.replica, "read"),
            ("POST", "/drain", pages.start_drain, "manage"),
            ("POST", "/drain/abort", pages.abort_drain, "manage"),
            ("GET", "/keys", pages.keys, "read"),
            ("GET", "/socket/websocket", self._socket, None),
        )
        guard = Guard(
            self.sign_ins,
            {handler: scope for _, _, handler, scope in table},
            max_payload_bytes=sources.config.limits.max_message_bytes,
        )
        app.middlewares.append(guard.middleware())
        for method, path, handler, _ in table:
            app.router.add_route(method, path.replace("}", ":[^/]+}"), handler)
        app.router.add_get("/sign-in", pages.sign_in_form)
        app.router.add_post("/sign-in", pages.sign_in)
        for file in _STATIC.iterdir():
            app.router.add_get(f"/{file.name}", partial(_file, file))
        app.add_routes(live.routes())
        app.on_shutdown.append(self._shut_down)

    async def next_tick(self) -> None:
        """Wait a moment, then sample, and send what changed to whoever looks."""
        await asyncio.sleep(TICK_SECONDS)
        self.tick()

    def tick(self) -> None:
        """Take a sample if it is time for one, and send what changed to whoever looks."""
        sources = self._sources
        if self._ticks % SAMPLE_SECONDS == 0:
            self._trend.take(
                sources.metrics,
                connections=sources.connections(),
                topics=len(sources.registry),
                now=sources.clock(),
            )
        self._ticks += 1
        self._views.tick()
        for viewer in [each for each in self._viewers if not self.sign_ins.holds(each.sign_in)]:
            viewer.sign_out()
        for feed in self.feeds.values():
            feed.tick()

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """``GET /console/socket/websocket``: Phoenix Channels for the console's own pages."""
        if len(self._viewers) >= MAX_VIEWERS:
            raise Turned(503, "too many pages", f"{MAX_VIEWERS} pages are open already.")
        socket = web.WebSocketResponse(
            heartbeat=PING_SECONDS, max_msg_size=MAX_FRAME_BYTES, compress=False
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        viewer = Viewer(request[SIGN_IN], self._find, transport, time.monotonic)
        self._viewers.add(viewer)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    viewer.receive(message.data)
        finally:
            self._viewers.discard(viewer)
            viewer.gone()
        return socket

    def _find(self, name: str) -> LiveTopic | None:
        """A topic of the console; one for a tail is made when somebody comes, and goes with the last."""
        found = self._by_topic.get(name)
        if found is None and name.startswith(tailing.TOPIC):
            topic = name.removeprefix(tailing.TOPIC)
            found = self._by_topic[name] = TailFeed(
                topic, self._sources.tails, self._tailed, lambda: self._by_topic.pop(name, None)
            )
        return found

    async def _shut_down(self, _: web.Application) -> None:
        for viewer in list(self._viewers):
            viewer.close(CloseCode.SERVICE_RESTART)


async def _file(path: Path, _: web.Request) -> web.FileResponse:
    return web.FileResponse(path)


def _segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _when(unix_seconds: float) -> str:
    """A time, in UTC."""
    if not unix_seconds:
        return NOTHING
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M:%S}"
