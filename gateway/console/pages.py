"""Answers the console's pages and forms."""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from gateway.api.problem import Refusal
from gateway.api.publish import PublishCalls
from gateway.api.query import name_in
from gateway.console.feeds import Feed
from gateway.console.guard import FORM, REFUSED, SIGN_IN, Turned, audit, page
from gateway.console.lookup import (
    SHOWN,
    TopicView,
    UserView,
    ask_for_topic,
    ask_for_user,
    names_like,
    topic_view,
    user_view,
)
from gateway.console.sign_in import COOKIE, HOURS, SignIns
from gateway.console.sources import Sources
from gateway.console.views import Views
from gateway.protocol.messages import is_object
from gateway.protocol.reserved import name_fits

ROOT: Final = "/console"

EXAMPLE: Final = '{\n  "body": "hello"\n}'
"""Payload that a publish form begins with."""


class Pages:
    """The pages.

    Args:
        feeds: The overview's, that of the topics, and the replica's, by name.
    """

    def __init__(
        self, sources: Sources, sign_ins: SignIns, views: Views, feeds: dict[str, Feed]
    ) -> None:
        self._sources = sources
        self._sign_ins = sign_ins
        self._views = views
        self._feeds = feeds
        self._publish = PublishCalls(
            sources.publisher,
            sources.rules,
            sources.personal,
            max_payload_bytes=sources.config.limits.max_message_bytes,
        )

    async def with_slash(self, _: web.Request) -> web.Response:
        """``GET /console/``, as one may type it."""
        return _to("")

    async def overview(self, request: web.Request) -> web.Response:
        """``GET /console``."""
        return page(request, "overview", live=self._feeds["overview"].html())

    async def sign_in_form(self, request: web.Request) -> web.StreamResponse:
        """``GET /console/sign-in``."""
        if SIGN_IN in request:
            return _to("")
        return page(request, "sign_in", wrong=False)

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """``POST /console/sign-in``."""
        begun = self._sign_ins.begin(request[FORM].get("key", "").strip())
        if begun is None:
            audit(request, REFUSED, "unknown key", status=403)
            response = page(request, "sign_in", wrong=True)
            response.set_status(403)
            return response
        cookie, request[SIGN_IN] = begun
        audit(request, "sign in", "done")
        answer = _to("")
        answer.set_cookie(
            COOKIE,
            cookie,
            path=ROOT,
            max_age=HOURS * 3600,
            httponly=True,
            samesite="Strict",
            # the browser's word for how it came here; a proxy's is not needed
            secure=request.headers.get("Origin", "").startswith("https:"),
        )
        return answer

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """``POST /console/sign-out``."""
        self._sign_ins.end(request[SIGN_IN])
        audit(request, "sign out", "done")
        answer = _to("/sign-in")
        answer.del_cookie(COOKIE, path=ROOT, httponly=True, samesite="Strict")
        return answer

    async def users(self, request: web.Request) -> web.StreamResponse:
        """``GET /console/users``: those whose names begin with the query's ``name``."""
        beginning = request.query.get("name", "")
        names, more = names_like(self._sources.sessions.users, beginning)
        found = [(name, len(self._sources.sessions.users[name].clients)) for name in names]
        return page(request, "users", beginning=beginning, found=found, more=more)

    async def user(self, request: web.Request) -> web.Response:
        """``GET /console/users/{user}``: what this replica knows of her."""
        return self._user(request, user_view(self._sources, name_in(request, "user")))

    async def ask_for_user(self, request: web.Request) -> web.Response:
        """``POST /console/users/{user}/ask``: what all replicas know of her."""
        view = await ask_for_user(self._sources, name_in(request, "user"))
        audit(request, "look up user", "done", missing=len(view.missing))
        return self._user(request, view)

    async def close_sessions(self, request: web.Request) -> web.Response:
        """``POST /console/users/{user}/close``: the session that is named, or all, on all replicas."""
        user, session = name_in(request, "user"), request[FORM].get("session", "")
        closed, cover = await self._sources.directory.close(
            user, only=(session,) if session else ()
        )
        audit(
            request,
            "close sessions",
            "done",
            session=session or "all",
            closed=closed,
            missing=len(cover.missing),
        )
        notice = f"{closed} closed."
        if cover.missing:
            notice += f" No answer from {', '.join(cover.missing)}."
        return self._user(request, await ask_for_user(self._sources, user), notice)

    async def topics(self, request: web.Request) -> web.StreamResponse:
        """``GET /console/topics``: the busiest, and those whose names begin with the query's ``name``."""
        beginning = request.query.get("name", "")
        names: list[str] = []
        more = False
        if beginning:
            names, more = names_like(self._sources.registry.names(), beginning)
        return page(
            request,
            "topics",
            beginning=beginning,
            found=names,
            more=more,
            asked=False,
            missing=(),
            live=self._feeds["topics"].html(),
        )

    async def topic(self, request: web.Request) -> web.Response:
        """``GET /console/topics/{topic}``."""
        view = topic_view(self._sources, name_in(request, "topic"))
        return self._topic(request, view, tail="tail" in request.query)

    async def ask_for_topics(self, request: web.Request) -> web.Response:
        """``POST /console/topics/ask``: those of all replicas whose names begin with the form's ``name``."""
        beginning = request[FORM].get("name", "")
        if not name_fits(beginning):
            raise Turned(422, "name too long", "No topic has a name that long.")
        found, following, cover = await self._sources.topics.topics(beginning, None, SHOWN)
        audit(request, "look up topics", "done", missing=len(cover.missing))
        return page(
            request,
            "topics",
            beginning=beginning,
            found=list(found),
            more=following is not None,
            asked=True,
            missing=cover.missing,
            live=self._feeds["topics"].html(),
        )

    async def ask_for_topic(self, request: web.Request) -> web.Response:
        """``POST /console/topics/{topic}/ask``: what all replicas know of it."""
        view = await ask_for_topic(self._sources, name_in(request, "topic"))
        audit(request, "look up topic", "done", missing=len(view.missing))
        return self._topic(request, view, tail="tail" in request[FORM])

    async def publish_form(self, request: web.Request) -> web.Response:
        """``GET /console/publish``."""
        form = {"topic": request.query.get("topic", ""), "event": "message", "payload": EXAMPLE}
        return page(request, "publish", form=form, outcome=None)

    async def publish(self, request: web.Request) -> web.Response:
        """``POST /console/publish``: one message to one topic."""
        form = {name: request[FORM].get(name, "") for name in ("topic", "event", "payload")}
        word, sentence = await self._send(**form)
        audit(request, "publish", word, topic=form["topic"], event_name=form["event"])
        outcome = (word, sentence)
        if request[FORM].get("from") == "topic" and "read" in request[SIGN_IN].scopes:
            view = topic_view(self._sources, form["topic"])
            return self._topic(request, view, form, outcome, tail="tail" in request[FORM])
        return page(request, "publish", form=form, outcome=outcome)

    async def replica(self, request: web.Request) -> web.Response:
        """``GET /console/replica``."""
        return page(
            request,
            "replica",
            live=self._feeds["replica"].html(),
            sections=self._views.configuration(),
        )

    async def start_drain(self, request: web.Request) -> web.StreamResponse:
        """``POST /console/drain``."""
        self._sources.drain.start()
        audit(request, "start drain", "done", clients=self._sources.drain.connections)
        return _to("/replica")

    async def abort_drain(self, request: web.Request) -> web.StreamResponse:
        """``POST /console/drain/abort``."""
        aborted = self._sources.drain.abort()
        audit(request, "abort drain", "done" if aborted else "process is ending")
        if not aborted:
            raise Turned(409, "ending", "The process is ending; the drain cannot be aborted.")
        return _to("/replica")

    async def keys(self, request: web.Request) -> web.Response:
        """``GET /console/keys``."""
        return page(request, "keys", keys=self._views.keys())

    async def _send(self, topic: str, event: str, payload: str) -> tuple[str, str]:
        """Publish; returns the outcome in a word, and in a sentence."""
        raw = payload.strip().encode(errors="surrogateescape")
        if not is_object(raw):
            return "invalid", "The payload is no JSON object."
        text = msgspec.json.encode({"topic": topic, "event": event, "payload": msgspec.Raw(raw)})
        try:
            sent = await self._publish.send(text)
        except Refusal as refused:
            problem = refused.problem
            fields = "; ".join(f"{error.field} {error.message}" for error in problem.errors)
            return problem.type.rpartition(":")[2], f"{problem.title}. {problem.detail} {fields}"
        [result] = sent.results
        return "done", f"Sent with id {sent.id}" + (
            f", stored at {result.position}." if result.position else "."
        )

    def _user(self, request: web.Request, view: UserView, notice: str = "") -> web.Response:
        return page(request, "user", user=view, notice=notice)

    def _topic(
        self,
        request: web.Request,
        view: TopicView,
        form: Mapping[str, str] | None = None,
        outcome: tuple[str, str] | None = None,
        *,
        tail: bool = False,
    ) -> web.Response:
        if tail:
            audit(request, "tail", "done", topic=view.name)
        form = form or {"topic": view.name, "event": "message", "payload": EXAMPLE}
        return page(request, "topic", topic=view, form=form, outcome=outcome, tail=tail)


def _to(path: str) -> web.Response:
    """Have the browser go on to another page of the console."""
    return web.Response(status=303, headers={"Location": ROOT + path})
