"""The whole URL table of the internal listener."""

import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.api import history_operations as of_history
from gateway.api import operations as known
from gateway.api import token_operations as of_tokens
from gateway.api import user_operations as of_users
from gateway.api.body import MAX_BODY_BYTES
from gateway.api.docs import page
from gateway.api.health import Exposition, Health, HealthState
from gateway.api.history import Archive, HistoryCalls
from gateway.api.keys import ApiKey, Keys, authentication
from gateway.api.openapi import document
from gateway.api.problem import problems
from gateway.api.publish import PublishCalls, Relay, Rules
from gateway.api.tokens import TokenCalls, TokenRevoker
from gateway.api.user_types import ReplicaReport
from gateway.api.users import UserCalls, UserDirectory
from gateway.auth.rules import PersonalTopic

_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
)


class ApiSection(Protocol):
    """``[api]`` of the configuration."""

    @property
    def keys(self) -> Iterable[ApiKey]: ...


class AuthSection(Protocol):
    """``[auth]`` of the configuration."""

    @property
    def leeway_seconds(self) -> float: ...


class LimitsSection(Protocol):
    """``[limits]`` of the configuration."""

    @property
    def max_message_bytes(self) -> int: ...


class Config(Protocol):
    """As much of the configuration as the API reads."""

    @property
    def api(self) -> ApiSection: ...
    @property
    def auth(self) -> AuthSection: ...
    @property
    def limits(self) -> LimitsSection: ...


class Count(Protocol):
    """A counter with the label ``status``."""

    def labels(self, status: str, /) -> "Count": ...
    def inc(self) -> None: ...


class Metrics(Exposition, Protocol):
    """What the API counts and shows."""

    @property
    def publish_requests(self) -> Count: ...


def build_api(
    *,
    config: Config,
    relay: Relay,
    rules: Rules,
    personal: PersonalTopic,
    directory: UserDirectory,
    revoker: TokenRevoker,
    archive: Archive,
    keeps: Callable[[str], bool],
    replicas: Callable[[], list[ReplicaReport]],
    readiness: HealthState,
    metrics: Metrics,
) -> web.Application:
    """The application of the internal listener."""
    publisher = PublishCalls(
        relay, rules, personal, max_payload_bytes=config.limits.max_message_bytes
    )
    users = UserCalls(directory, replicas)
    tokens = TokenCalls(revoker, leeway_seconds=config.auth.leeway_seconds, clock=time.time)
    history = HistoryCalls(archive, keeps)
    health = Health(readiness, metrics)
    table = (
        (known.PUBLISH, publisher.publish),
        (known.PUBLISH_BATCH, publisher.batch),
        (of_users.USER, users.user),
        (of_users.USERS_STATUS, users.status),
        (of_users.SESSIONS, users.sessions),
        (of_users.CLOSE_SESSIONS, users.close_all),
        (of_users.CLOSE_SESSION, users.close_one),
        (of_users.LEAVE_TOPIC, users.leave_topic),
        (of_users.REPLICAS, users.replicas),
        (of_tokens.REVOKE, tokens.revoke),
        (of_history.READ_HISTORY, history.read),
        (of_history.ERASE_HISTORY, history.erase),
        (known.LIVEZ, health.livez),
        (known.READYZ, health.readyz),
        (known.METRICS, health.metrics),
        (known.OPENAPI, _fixed(msgspec.json.encode(document()), "application/json")),
        (known.DOCS, _fixed(page().encode(), "text/html")),
    )
    scopes = {handler: each.scope for each, handler in table if each.scope is not None}
    app = web.Application(
        client_max_size=MAX_BODY_BYTES,
        middlewares=[
            problems(max_body_bytes=MAX_BODY_BYTES),
            authentication(Keys(config.api.keys), scopes),
        ],
    )
    add = {"GET": app.router.add_get, "POST": app.router.add_post, "DELETE": app.router.add_delete}
    for operation, handler in table:
        add[operation.method](operation.path, handler)
    app.on_response_prepare.append(_PublishCounter(metrics.publish_requests))
    return app


class _PublishCounter:
    """Counts publish requests by status, the refused ones too."""

    _paths: Final = frozenset({known.PUBLISH.path, known.PUBLISH_BATCH.path})

    def __init__(self, count: Count) -> None:
        self._count = count
        self._by_status: dict[int, Count] = {}

    async def __call__(self, request: web.Request, response: web.StreamResponse) -> None:
        if request.method == "POST" and request.path in self._paths:
            count = self._by_status.get(response.status)
            if count is None:
                count = self._by_status[response.status] = self._count.labels(str(response.status))
            count.inc()


def _fixed(body: bytes, media_type: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=body,
            content_type=media_type,
            charset="utf-8" if media_type.startswith("text/") else None,
            headers={"Content-Security-Policy": _PAGE_POLICY},
        )

    return answer
