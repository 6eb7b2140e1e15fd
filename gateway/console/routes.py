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
from gateway.console.guard import REFUSED, SIGN_IN, Guard, Turned, audit
from gateway.console.pages import ROOT, Pages
from gateway.console.sign_in import SignIns
from gateway.console.sources import Sources
from gateway.console.tailing import TailFeed
from gateway.console.trend import SAMPLE_SECONDS, Trend
from gateway.console.viewer import LiveTopic, Viewer
from gateway.console.views import NOTHING, Views, counted, number
from gateway.log import background_error, teardown
from gateway.protocol.reasons import CloseCode, Reason
from gateway.transport.rate import RateLimit

MAX_VIEWERS: Final = 200
"""Pages that may be open at once."""

MAX_FRAME_BYTES: Final = 4096
"""Of what a page sends: joins and heartbeats."""

FRAMES_PER_SECOND: Final = 10
"""Of one page: what is above waits. A page joins a topic or two, and sends a heartbeat twice a minute."""

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
        self._tail_feeds: dict[str, TailFeed] = {}
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
        app.router.add_get("/", pages.with_slash)
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
        """Take a sample if it is time for one, and send what changed to whoever looks.

        What fails is counted and logged. It ends nothing else: a replica is worth more than its console.
        """
        teardown(
            "console",
            self._sample,
            self._views.tick,
            self._end_sign_ins,
            *(feed.tick for feed in self.feeds.values()),
        )

    def _sample(self) -> None:
        sources = self._sources
        if self._ticks % SAMPLE_SECONDS == 0:
            self._trend.take(
                sources.metrics,
                connections=sources.connections(),
                topics=len(sources.registry),
                now=sources.clock(),
            )
        self._ticks += 1

    def _end_sign_ins(self) -> None:
        for viewer in [each for each in self._viewers if not self.sign_ins.holds(each.sign_in)]:
            viewer.sign_out()

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
        viewer = Viewer(request[SIGN_IN], partial(self._find, request), transport, time.monotonic)
        rate = RateLimit(FRAMES_PER_SECOND, time.monotonic())
        self._viewers.add(viewer)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    viewer.receive(message.data)
                if wait := rate.spend(time.monotonic()):
                    await asyncio.sleep(wait)
        except Exception as problem:  # noqa: BLE001 -- there is no other answer than the end of the socket
            background_error("console", problem)
            viewer.close(CloseCode.INTERNAL_ERROR)
        finally:
            self._viewers.discard(viewer)
            viewer.gone()
        return socket

    def _find(self, request: web.Request, name: str) -> LiveTopic | Reason:
        """A topic of the console for who may look at it, or why not."""
        tailed = name.startswith(tailing.TOPIC)
        feed = next((feed for feed in self.feeds.values() if feed.topic == name), None)
        if feed is None and not tailed:
            return Reason.UNMATCHED_TOPIC
        scope = "read" if feed is None else feed.scope
        topic = name.removeprefix(tailing.TOPIC)
        if scope is not None and scope not in request[SIGN_IN].scopes:
            audit(request, REFUSED, f"scope {scope}", topic=topic)
            return Reason.UNAUTHORIZED
        if feed is not None:
            return feed
        audit(request, "tail", "done", topic=topic)
        return self._tail_feed(topic)

    def _tail_feed(self, topic: str) -> TailFeed:
        """A tail's; it is made when somebody comes, and goes with the last."""
        found = self._tail_feeds.get(topic)
        if found is None:
            found = self._tail_feeds[topic] = TailFeed(
                topic, self._sources.tails, self._tailed, partial(self._tail_feeds.pop, topic, None)
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
