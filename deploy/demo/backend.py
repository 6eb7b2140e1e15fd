"""A stateless REST backend: rooms, messages, images, and the questions of the gateway.

Nothing stays in the process between two requests, so any number of these may stand behind a load balancer,
and whichever is asked can answer. No WebSocket comes here.
"""

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import jwt
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from deploy.demo.store import Post, Store

USERS: Final = {"ada": "Ada", "bob": "Bob", "eve": "Eve"}
PHOENIX: Final = "node_modules/phoenix/priv/static/phoenix.mjs"
PAGE: Final = {"/rooms": "rooms.html", "/phoenix.mjs": PHOENIX} | {
    f"/{name}": name for name in ("rooms.js", "theme.css")
}
LOGIN_SECONDS: Final = 8 * 3600
MAX_BODY_BYTES: Final = 5 * 2**20
ID: Final = re.compile(r"[!-~]{1,64}")
IMAGE_TYPES: Final = {"image/png", "image/jpeg", "image/gif", "image/webp"}
"""No SVG: it can carry scripts, which would run as ours."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a process is told by its environment, as ``DEMO_DATABASE`` and so on.

    Attributes:
        database: Path of the SQLite file.
        listen: ``host:port`` of this process.
        api: Base URL of the internal listeners of the gateways; whichever answers will do.
        api_key: Its API key, to publish and manage.
        token_secret: Signs users' tokens; the gateway has it in ``auth.secrets``.
        webhook_secret: Signs the gateway's callbacks; the gateway has it in ``upstream.secrets``.
        socket: URL clients connect to.
    """

    database: str
    listen: str
    api: str
    api_key: str
    token_secret: str
    webhook_secret: str
    socket: str

    @classmethod
    def from_environment(cls) -> "Settings":
        """Raises KeyError with the name of a variable that is missing."""
        return cls(**{each.name: os.environ[f"DEMO_{each.name.upper()}"] for each in fields(cls)})


class Backend:
    """The handlers."""

    def __init__(self, settings: Settings, http: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._http = http
        self._store = Store(Path(settings.database))
        self._webhook = Webhook(settings.webhook_secret)

    def routes(self) -> list[web.RouteDef]:
        """What is answered where."""
        return [
            web.post("/login", self.login),
            web.get("/rooms/{room}/messages", self.messages),
            web.post("/rooms/{room}/messages", self.post_message),
            web.post("/rooms/{room}/images", self.post_image),
            web.get("/images/{id}", self.image),
            web.put("/rooms/{room}/members/{user}", self.add_member),
            web.delete("/rooms/{room}/members/{user}", self.remove_member),
            web.post("/gateway", self.callback),
        ]

    async def login(self, request: web.Request) -> web.Response:
        """A token, good for these calls and for the socket. The demo asks for no password."""
        match await read_json(request):
            case {"user": str(user), "device": "laptop" | "phone" as kind} if user in USERS:
                now = int(time.time())
                device = {"id": f"{user}-{kind}", "name": f"{USERS[user]}'s {kind}", "type": kind}
                claims = {"sub": user, "iat": now, "exp": now + LOGIN_SECONDS, "device": device}
                token = jwt.encode(claims, self._settings.token_secret, algorithm="HS256")
                return web.json_response({"token": token, "socket": self._settings.socket})
        raise refusal(web.HTTPForbidden, "no such user or device")

    async def messages(self, request: web.Request) -> web.Response:
        """The recent past. Who asks after her join hears all that comes later, and knows repeats by id."""
        room, _ = await self._member(request)
        return web.json_response(await self._store.recent(room))

    async def post_message(self, request: web.Request) -> web.Response:
        """A message by REST; by the socket it comes to :meth:`callback`."""
        room, user = await self._member(request)
        match await read_json(request):
            case {"text": str(text)} if text.strip():
                post = await self._store.keep(
                    room, "message", uuid.uuid4().hex, user=user, text=text
                )
                return await self._publish(room, "message", post)
        raise refusal(web.HTTPUnprocessableEntity, "no text")

    async def post_image(self, request: web.Request) -> web.Response:
        """An image: the bytes stay here, one event tells all devices where."""
        room, user = await self._member(request)
        if request.content_type not in IMAGE_TYPES:
            raise refusal(web.HTTPUnsupportedMediaType, "not an image")
        image = uuid.uuid4().hex
        await self._store.keep_image(image, request.content_type, await request.read())
        post = await self._store.keep(room, "image", image, user=user, url=f"/images/{image}")
        return await self._publish(room, "image", post)

    async def image(self, request: web.Request) -> web.Response:
        """The bytes, for who knows the id: an ``<img>`` sends no token."""
        found = await self._store.image(request.match_info["id"])
        if found is None:
            raise refusal(web.HTTPNotFound, "no such image")
        headers = {"X-Content-Type-Options": "nosniff"}
        return web.Response(content_type=found[0], body=found[1], headers=headers)

    async def add_member(self, request: web.Request) -> web.Response:
        """The gateway need not be told: it asks when she joins."""
        room, _ = await self._member(request)
        user = request.match_info["user"]
        if user not in USERS:
            raise refusal(web.HTTPNotFound, "no such user")
        await self._store.add_member(room, user)
        return web.Response(status=204)

    async def remove_member(self, request: web.Request) -> web.Response:
        """First what would let her in again, then what she has open, on all devices."""
        room, _ = await self._member(request)
        user = request.match_info["user"]
        await self._store.remove_member(room, user)
        path = f"/v1/topics/{quote(f'room:{room}', safe='')}/users/{quote(user, safe='')}"
        answer = await self._gateway("DELETE", path)
        if not answer or not answer["complete"]:  # she may still hear; to repeat it does no harm
            raise refusal(web.HTTPBadGateway, "not off all devices yet: repeat")
        return web.Response(status=204)

    async def callback(self, request: web.Request) -> web.Response:
        """The gateway asks who may join, and hands over what is pushed: see docs/backends.md."""
        try:
            call = self._webhook.verify(await request.read(), dict(request.headers))
        except (WebhookVerificationError, ValueError):  # ValueError: no base64, no UTF-8, no JSON
            raise refusal(web.HTTPUnauthorized, "bad signature") from None
        room, user = call.get("topic", "").removeprefix("room:"), call.get("user", "")
        match call:
            case {"type": "gateway.join" | "gateway.push"} if not await self._store.is_member(
                room, user
            ):
                raise refusal(web.HTTPForbidden, "not a member")
            case {"type": "gateway.join"}:
                replica = request.headers["ce-source"].removeprefix("urn:gateway:")
                presence = {"name": USERS[user]}
                return web.json_response({"response": {"replica": replica}, "presence": presence})
            case {
                "type": "gateway.push",
                "event": "message",
                "payload": {"text": str(text), **more},
            }:
                # Who had no answer repeats it with its id, so it is kept once, here and in the history.
                name = more.get("id", request.headers["webhook-id"])
                if not (isinstance(name, str) and ID.fullmatch(name)):
                    raise refusal(web.HTTPUnprocessableEntity, "an id is 1 to 64 characters")
                post = await self._store.keep(room, "message", name, user=user, text=text)
                if post["user"] != user:
                    raise refusal(web.HTTPConflict, "that is another one's post")
                broadcast = [{"event": "message", "payload": post, "id": name}]
                return web.json_response({"response": {"id": name}, "broadcast": broadcast})
            case {"type": "gateway.push"}:
                raise refusal(web.HTTPUnprocessableEntity, "unknown event")
        return web.Response(status=204)

    async def _member(self, request: web.Request) -> tuple[str, str]:
        """The room asked for and the user who asks, who must belong to it."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(
                token,
                self._settings.token_secret,
                algorithms=["HS256"],
                options={"require": ["sub", "exp"]},
            )
        except jwt.InvalidTokenError:
            raise refusal(web.HTTPUnauthorized, "bad token") from None
        room, user = request.match_info["room"], claims["sub"]
        if not await self._store.is_member(room, user):
            raise refusal(web.HTTPForbidden, "not a member")
        return room, user

    async def _publish(self, room: str, event: str, post: Post) -> web.Response:
        """Tell all who are there. Who misses it finds the post in :meth:`messages` at her next join."""
        message = {"topic": f"room:{room}", "event": event, "payload": post, "id": post["id"]}
        await self._gateway("POST", "/v1/publish", message)
        return web.json_response(post, status=201)

    async def _gateway(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the gateway's API; None, and a line in the log, when it did not do it."""
        url, key = self._settings.api + path, self._settings.api_key
        headers = {"Authorization": f"Bearer {key}"}
        try:
            async with self._http.request(method, url, json=body, headers=headers) as response:
                if response.ok:
                    return await response.json()
                problem = f"status {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = type(error).__name__  # its text may have our headers, and so the key
        logger.warning("the gateway did not %s %s: %s", method, path, problem)
        return None


async def read_json(request: web.Request) -> Any:
    """The body, as whatever JSON it is."""
    try:
        return json.loads(await request.read())
    except ValueError:
        raise refusal(web.HTTPBadRequest, "not JSON") from None


def refusal(kind: type[web.HTTPError], reason: str) -> web.HTTPError:
    """An error with a reason, in the form the gateway hands on to clients."""
    return kind(text=json.dumps({"reason": reason}), content_type="application/json")


def page(name: str) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    """A file of this folder."""

    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(__file__).parent / name, headers={"Cache-Control": "no-cache"})

    return answer


async def to_rooms(_: web.Request) -> web.Response:
    """Where there is no page that shows several devices."""
    raise web.HTTPFound("/rooms")


async def application(settings: Settings) -> web.Application:
    """The backend and its page."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))

    async def close(_: web.Application) -> None:
        await http.close()

    app.on_cleanup.append(close)
    app.add_routes(Backend(settings, http).routes())
    app.add_routes([web.get(path, page(name)) for path, name in PAGE.items()])
    app.router.add_get("/", to_rooms)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    told = Settings.from_environment()
    host, _, port = told.listen.rpartition(":")
    web.run_app(application(told), host=host, port=int(port), print=None, shutdown_timeout=2)
