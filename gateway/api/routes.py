"""Builds the application of the internal listener: its whole table of URLs."""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.api import operations as known
from gateway.api import topic_operations as asked
from gateway.api.asyncapi import async_document
from gateway.api.body import MAX_BODY_BYTES, bounded
from gateway.api.docs import page
from gateway.api.drain import DrainCalls, ReplicaDrain
from gateway.api.health import Health, HealthState
from gateway.api.history import Archive, HistoryCalls
from gateway.api.keys import Keys, authentication
from gateway.api.openapi import document
from gateway.api.operation import Operation
from gateway.api.problem import as_expected, expect, problems
from gateway.api.publish import PublishCalls, Publisher
from gateway.api.tail import TailCalls, TailOpener
from gateway.api.tokens import TokenCalls, TokenRevoker
from gateway.api.topics import TopicCalls, TopicQueries
from gateway.api.user_types import ReplicaReport
from gateway.api.users import UserCalls, UserDirectory
from gateway.api.whole import OF_THE_WHOLE, Whole
from gateway.auth.rules import PersonalTopic, Rules
from gateway.config import Config
from gateway.metrics import Metrics

_PUBLISH_PATHS: Final = frozenset({known.PUBLISH.path, known.PUBLISH_BATCH.path})
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
)


def build_api(
    *,
    config: Config,
    publisher: Publisher,
    rules: Rules,
    personal: PersonalTopic,
    directory: UserDirectory,
    topics: TopicQueries,
    revoker: TokenRevoker,
    archive: Archive,
    replicas: Callable[[], list[ReplicaReport]],
    drain: ReplicaDrain,
    tails: TailOpener,
    clock: Callable[[], float],
    readiness: HealthState,
    metrics: Metrics,
    whole: Whole | None = None,
) -> web.Application:
    """The application of the internal listener.

    Args:
        clock: Unix seconds, by the newest clock there is: what is revoked now is revoked by it.
        whole: Where this replica is one of several workers: who answers for all of them.
    """
    publish = PublishCalls(
        publisher, rules, personal, max_payload_bytes=config.limits.max_message_bytes
    )
    users = UserCalls(directory, replicas)
    tokens = TokenCalls(revoker, leeway_seconds=config.auth.leeway_seconds, clock=clock)
    draining = DrainCalls(drain)
    history = HistoryCalls(archive, rules)
    on_topics = TopicCalls(topics, archive, rules)
    health = Health(readiness, metrics)
    table: tuple[tuple[Operation, Handler], ...] = (
        (known.PUBLISH, publish.publish),
        (known.PUBLISH_BATCH, publish.batch),
        (known.USER, users.user),
        (known.USERS_STATUS, users.status),
        (known.SESSIONS, users.sessions),
        (known.CLOSE_SESSIONS, users.close_all),
        (known.CLOSE_SESSION, users.close_one),
        (known.LEAVE_TOPIC, users.leave_topic),
        (asked.TOPICS, on_topics.list),
        (asked.SHOW_TOPIC, on_topics.show),
        (asked.PRESENCE, on_topics.presence),
        (known.REPLICAS, users.replicas),
        (known.START_DRAIN, draining.start),
        (known.GET_DRAIN, draining.show),
        (known.ABORT_DRAIN, draining.abort),
        (known.TAIL, TailCalls(tails, drain).stream),
        (known.REVOKE, tokens.revoke),
        (known.READ_HISTORY, history.read),
        (known.ERASE_HISTORY, history.erase),
        (known.LIVEZ, health.livez),
        (known.READYZ, health.readyz),
        (known.METRICS, health.metrics),
        (known.OPENAPI, _fixed(msgspec.json.encode(document()), "application/json")),
        (known.ASYNCAPI, _fixed(msgspec.json.encode(async_document()), "application/json")),
        (known.DOCS, _fixed(page().encode(), "text/html")),
    )
    if whole is not None:
        table = tuple(
            (each, whole.answer(handler) if each in OF_THE_WHOLE else handler)
            for each, handler in table
        )
    scopes = {handler: each.scope for each, handler in table if each.scope is not None}
    app = web.Application(
        client_max_size=MAX_BODY_BYTES,
        middlewares=[
            problems(max_body_bytes=MAX_BODY_BYTES),
            authentication(Keys(config.api.keys), scopes),
            bounded(),
        ],
    )
    add = {"GET": app.router.add_get, "POST": app.router.add_post, "DELETE": app.router.add_delete}
    for operation, handler in table:
        # aiohttp's own pattern of a segment has no braces, and users may be named by GUIDs in them
        path = operation.path.replace("}", ":[^/]+}")
        add[operation.method](path, handler, expect_handler=expect)
    refused = _Unexpected("/")
    app.router.register_resource(refused)
    refused.add_route("*", _never, expect_handler=expect)
    app.on_response_prepare.append(partial(_count_publishes, metrics))
    return app


class _Unexpected(web.PlainResource):
    """Takes what expects the unknown where no operation is, which aiohttp would refuse in plain text."""

    async def resolve(
        self, request: web.Request
    ) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        """Called for any path, after the operations."""
        if as_expected(request):
            return None, set()
        return web.UrlMappingMatchInfo({}, next(iter(self))), set()


async def _never(_: web.Request) -> web.Response:
    raise web.HTTPExpectationFailed  # its expectation was refused before


async def _count_publishes(
    metrics: Metrics, request: web.Request, response: web.StreamResponse
) -> None:
    """Count publish requests by status, the refused ones too."""
    if request.method == "POST" and request.path in _PUBLISH_PATHS:
        metrics.publish_requests.labels(str(response.status)).inc()


def _fixed(body: bytes, media_type: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=body,
            content_type=media_type,
            charset="utf-8" if media_type.startswith("text/") else None,
            headers={"Content-Security-Policy": _PAGE_POLICY},
        )

    return answer
