"""Asking a real backend, and all that backends do wrong."""

import asyncio
import base64
import gzip
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import structlog
from standardwebhooks.webhooks import Webhook

from gateway import __version__
from gateway.errors import UpstreamError, UpstreamRefused, UpstreamTimeout, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.upstream import call as calls
from gateway.upstream import exchange
from gateway.upstream.answers import ConnectAnswer, JoinAnswer, PushAnswer, TopicMessage
from gateway.upstream.breaker import FAILURES, PROVEN_SECONDS
from gateway.upstream.call import Call
from gateway.upstream.client import Upstream
from gateway.upstream.exchange import MAX_ANSWER_BYTES
from tests.support.clock import Clock
from tests.support.ports import free_port
from tests.unit.upstream.scripted import Request, closing, serving

SECRETS = tuple("whsec_" + base64.b64encode(key * 32).decode() for key in (b"1", b"2"))
JOIN = Call(calls.JOIN, session="s", user="42", topic="room:1", params=b"{}")
PUSH = Call(calls.PUSH, session="s", user="42", topic="room:1", event="e", payload=b'{"a": 1}')


def of(user: str) -> Call:
    """The join of another user."""
    return msgspec.structs.replace(JOIN, user=user)


class Settings(msgspec.Struct):
    """The section, with a timeout no test waits for."""

    url: str
    secrets: tuple[str, ...] = SECRETS
    timeout_seconds: float = 10
    max_in_flight: int = 100
    max_state_bytes: int = 4096


class Counted(Metrics):
    """What was counted, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self.under_way: list[int] = []
        itself: Any = self
        self.upstream_request = itself
        self.upstream_in_flight = itself
        self.set = self.under_way.append

    def labels(self, kind: str, status: str) -> "Counted":
        self.requests.append((kind, status))
        return self

    def observe(self, seconds: float) -> None:
        assert seconds >= 0

    @property
    def statuses(self) -> list[str]:
        return [status for _, status in self.requests]


class Moved:
    """Monotonic seconds a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def upstream(
    url: str, counted: Counted | None = None, clock: Callable[[], float] | None = None, **keys: Any
) -> AbstractAsyncContextManager[Upstream]:
    """An upstream with these keys set."""
    return closing(
        Upstream(
            Settings(url, **keys),
            replica="a",
            max_user_bytes=255,
            metrics=counted or Counted(),
            **({} if clock is None else {"clock": clock}),
        )
    )


def answering(status: int = 200, body: bytes = b"", *fields: str) -> Callable[..., Awaitable[None]]:
    """A script that always answers the same."""

    async def script(request: Request) -> None:
        await request.answer(status, body, *fields)

    return script


async def hold(_: Request) -> None:
    await asyncio.Event().wait()


async def turns(check: Callable[[], bool]) -> None:
    """Let the loop turn until something is so, however the clock stands."""
    for _ in range(1_000_000):
        if check():
            return
        await asyncio.sleep(0)
    raise AssertionError(check)


async def test_answers_come_back_as_they_are() -> None:
    bodies = iter(
        [
            b'{"user":"7"}',
            b'{"response":{"a": 1}}',
            b'{"broadcast":[{"event":"e","payload":{ }}]}',
        ]
    )

    async def script(request: Request) -> None:
        await request.answer(200, next(bodies))

    async with serving(script) as backend, upstream(backend.url) as client:
        assert await client.connect(Call(calls.CONNECT)) == ConnectAnswer("7")
        assert await client.join(JOIN) == JoinAnswer(b'{"a": 1}')
        assert await client.push(PUSH) == PushAnswer(broadcast=(TopicMessage("e", b"{ }"),))


async def test_the_request_is_what_the_documents_say() -> None:
    async with serving(answering(204)) as backend, upstream(backend.url) as client:
        await client.join(JOIN)

    (request,) = backend.requests
    assert request.line == "POST /gateway?key=1 HTTP/1.1"
    assert request.body == calls.body(JOIN)
    for secret in SECRETS:
        assert Webhook(secret).verify(request.body, request.headers)
    assert request.headers["user-agent"] == f"gateway/{__version__}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["ce-source"] == "urn:gateway:a"
    assert request.headers["ce-subject"] == "42"
    assert len(request.fields) == len(request.headers)


async def test_every_callback_has_an_id_of_its_own() -> None:
    async with serving(answering()) as backend, upstream(backend.url) as client:
        await client.join(JOIN)
        await client.join(JOIN)

    assert len({request.headers["webhook-id"] for request in backend.requests}) == 2


async def test_an_event_that_is_told_again_keeps_id_and_time_and_is_signed_afresh() -> None:
    counted = Counted()
    wall = Moved()
    async with serving(answering(404)) as backend, serving(answering(204)) as other:
        client = Upstream(
            Settings(backend.url),
            replica="a",
            max_user_bytes=255,
            metrics=counted,
            wall_clock=wall,
        )
        async with closing(client):
            online = Call("gateway.user.online", user="42")
            with pytest.raises(UpstreamRefused):
                await client.tell(online, "abc", 1000.0)
            wall.now += 60
            backend.script = other.script
            await client.tell(online, "abc", 1000.0)

    first, second = (request.headers for request in backend.requests)
    assert first["webhook-id"] == second["webhook-id"] == first["ce-id"] == "abc"
    assert first["ce-time"] == second["ce-time"] == "1970-01-01T00:16:40.000Z"
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1000", "1060")
    assert first["webhook-signature"] != second["webhook-signature"]
    assert counted.statuses == ["404", "204"]


async def test_a_channel_rules_own_backend_is_asked() -> None:
    async with serving(answering()) as common, serving(answering()) as own:
        async with upstream(common.url) as client:
            await client.join(JOIN, own.url)

        assert (len(common.requests), len(own.requests)) == (0, 1)


async def test_connections_are_kept() -> None:
    async with serving(answering(200, b"{}")) as backend, upstream(backend.url) as client:
        for _ in range(10):
            await client.join(JOIN)

    assert backend.connections == 1


async def test_connections_are_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "KEEP_SECONDS", 0)
    async with serving(answering(200, b"{}")) as backend, upstream(backend.url) as client:
        for _ in range(3):
            await client.join(JOIN)

    assert backend.connections == 3


@pytest.mark.parametrize(
    ("status", "body", "passed_on"),
    [
        (403, b'{"reason": "muted"}', b'{"reason": "muted"}'),
        (404, b"<html>", b"{}"),
        (422, b"x" * (MAX_ANSWER_BYTES + 1), b"{}"),
    ],
)
async def test_a_refusal_is_raised_with_its_body(
    status: int, body: bytes, passed_on: bytes
) -> None:
    counted = Counted()
    async with (
        serving(answering(status, body)) as backend,
        upstream(backend.url, counted) as client,
    ):
        with pytest.raises(UpstreamRefused) as caught:
            await client.push(PUSH)

    assert (caught.value.status, caught.value.body) == (status, passed_on)
    assert passed_on.decode() not in str(caught.value)
    assert counted.requests == [("gateway.push", str(status))]


async def drip(request: Request) -> None:
    """A valid answer, one byte at a time, without an end."""
    await request.send(b"HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n{")
    while True:
        await request.send(b" ")
        await asyncio.sleep(0.001)


async def drip_head(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 X\r\nx: ")
    while True:
        await request.send(b"x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("script", [hold, drip, drip_head])
async def test_who_does_not_answer_in_time_is_left(script: Callable[..., Awaitable[None]]) -> None:
    counted = Counted()
    async with (
        serving(script) as backend,
        upstream(backend.url, counted, timeout_seconds=0.2) as client,
    ):
        with pytest.raises(UpstreamTimeout):
            await client.join(JOIN)

    assert counted.requests == [("gateway.join", "timeout")]


async def large_and_said(request: Request) -> None:
    """Announces 10 MB, and sends nothing of it before the client hangs up."""
    await request.send(b"HTTP/1.1 200 X\r\ncontent-length: 10000000\r\n\r\n")
    await request.hung_up()


async def endless(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await request.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")


async def close_mid_body(request: Request) -> None:
    await request.send(b'HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{"user":"1"}')
    request.writer.close()


async def close_mid_chunk(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
    request.writer.close()


async def speak_otherwise(request: Request) -> None:
    await request.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    request.writer.close()


async def answer_gzip(request: Request) -> None:
    await request.answer(200, gzip.compress(b"{}"), "content-encoding: gzip")


@pytest.mark.parametrize(
    "script",
    [
        large_and_said,
        endless,
        close_mid_body,
        close_mid_chunk,
        speak_otherwise,
        answer_gzip,
        answering(200, b"<html>"),
        answering(200, b'{"state":"' + b"x" * 4095 + b'"}'),
        answering(200, b" " * MAX_ANSWER_BYTES + b" "),
    ],
)
async def test_an_answer_of_another_shape_is_none(script: Callable[..., Awaitable[None]]) -> None:
    counted = Counted()
    async with serving(script) as backend, upstream(backend.url, counted) as client:
        with pytest.raises(UpstreamUnavailable) as caught:
            await client.join(JOIN)
        backend.script = answering(204)
        await client.join(JOIN)

    assert caught.value.reason == "answer"
    assert counted.statuses == ["unusable", "204"]


async def test_the_longest_answer_is_read() -> None:
    longest = answering(200, b" " * (MAX_ANSWER_BYTES - 2) + b"{}")
    async with serving(longest) as backend, upstream(backend.url) as client:
        assert await client.join(JOIN) == JoinAnswer()


async def test_a_large_message_is_sent() -> None:
    large = msgspec.structs.replace(PUSH, payload=b'{"a":"' + b"x" * 2_000_000 + b'"}')
    async with serving(answering()) as backend, upstream(backend.url) as client:
        await client.push(large)

    assert backend.requests[0].body == calls.body(large)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    counted = Counted()
    async with serving(answering()) as elsewhere:
        script = answering(status, b"", f"location: {elsewhere.url}")
        async with serving(script) as backend, upstream(backend.url, counted) as client:
            with pytest.raises(UpstreamUnavailable, match=str(status)):
                await client.join(JOIN)

        assert (len(backend.requests), len(elsewhere.requests)) == (1, 0)
    assert counted.statuses == [str(status)]


async def test_cookies_are_not_kept() -> None:
    script = answering(200, b"", "set-cookie: a=b; Path=/")
    async with serving(script) as backend, upstream(backend.url) as client:
        # jars keep cookies of names, not of addresses
        by_name = backend.url.replace("127.0.0.1", "localhost")
        await client.join(JOIN, by_name)
        await client.join(JOIN, by_name)

    assert "cookie" not in backend.requests[1].headers


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with serving(answering()) as backend, upstream(backend.url) as client:
        await client.join(JOIN)

    assert len(backend.requests) == 1


async def hang_up(request: Request) -> None:
    request.writer.close()


async def test_a_callback_is_never_sent_twice() -> None:
    counted = Counted()
    async with serving(answering()) as backend, upstream(backend.url, counted) as client:
        await client.push(PUSH)
        backend.script = hang_up  # as if the kept connection ended in that moment
        with pytest.raises(UpstreamUnavailable, match="unreachable"):
            await client.push(PUSH)

    assert len(backend.requests) == 2
    assert counted.statuses == ["200", "unreachable"]


async def test_a_backend_that_is_down_is_unreachable() -> None:
    counted = Counted()
    async with upstream(f"http://127.0.0.1:{free_port()}/", counted) as client:
        with pytest.raises(UpstreamUnavailable, match="unreachable"):
            await client.connect(Call(calls.CONNECT))

    assert counted.requests == [("gateway.connect", "unreachable")]


async def test_no_more_than_allowed_are_under_way() -> None:
    counted = Counted()
    release = asyncio.Event()

    async def wait(request: Request) -> None:
        await release.wait()
        await request.answer()

    async with serving(wait) as backend, upstream(backend.url, counted, max_in_flight=3) as client:
        tasks = [asyncio.create_task(client.join(of(str(n)))) for n in range(12)]
        await turns(lambda: backend.active == 3)
        release.set()
        await asyncio.gather(*tasks)

    assert len(backend.requests) == 12
    assert backend.most == 3
    assert (max(counted.under_way), counted.under_way[-1]) == (3, 0)


async def test_one_user_leaves_room_for_others_and_they_go_first() -> None:
    served: list[str] = []
    gates = {user: asyncio.Event() for user in ("42", "43")}

    async def wait(request: Request) -> None:
        user = request.headers["ce-subject"]
        served.append(user)
        await gates[user].wait()
        await request.answer()

    async with serving(wait) as backend, upstream(backend.url, max_in_flight=2) as client:
        mine = [asyncio.create_task(client.push(PUSH)) for _ in range(5)]
        await turns(lambda: backend.active == 1)
        others = [asyncio.create_task(client.join(of("43"))) for _ in range(2)]
        await turns(lambda: backend.active == 2)
        gates["43"].set()
        await asyncio.gather(*others)
        assert served == ["42", "43", "43"]
        gates["42"].set()
        await asyncio.gather(*mine)


async def test_what_is_told_of_a_user_does_not_wait_for_what_she_asks() -> None:
    release = asyncio.Event()

    async def wait(request: Request) -> None:
        if request.headers["ce-type"] == calls.PUSH:
            await release.wait()
        await request.answer()

    async with serving(wait) as backend, upstream(backend.url, max_in_flight=4) as client:
        mine = [asyncio.create_task(client.push(PUSH)) for _ in range(8)]
        await turns(lambda: backend.active == 1)
        await client.tell(Call("gateway.user.offline", user="42"), "abc", 0.0)
        release.set()
        await asyncio.gather(*mine)


async def test_who_would_wait_too_long_is_sent_away_at_once() -> None:
    counted = Counted()
    async with serving(hold) as backend, upstream(backend.url, counted, max_in_flight=1) as client:
        tasks = [asyncio.create_task(client.join(of(str(n)))) for n in range(11)]
        await turns(lambda: backend.active == 1)
        with pytest.raises(UpstreamUnavailable, match="busy"):
            await client.join(JOIN)
        # one that no longer waits makes room for another
        tasks[10].cancel()
        await asyncio.gather(tasks[10], return_exceptions=True)
        tasks[10] = asyncio.create_task(client.join(JOIN))
        await asyncio.sleep(0)

        assert not tasks[10].done()
        assert counted.statuses == ["busy"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert counted.under_way[-1] == 0


async def test_waiting_for_a_turn_counts_towards_the_deadline() -> None:
    keys: dict[str, Any] = {"max_in_flight": 1, "timeout_seconds": 5}
    async with serving(hold) as backend, upstream(backend.url, **keys) as client:
        clock = Clock()
        first = asyncio.create_task(client.join(JOIN))
        await turns(lambda: backend.active == 1)
        await clock.run(3)
        second = asyncio.create_task(client.join(JOIN))
        await clock.run()
        await clock.run(2)
        await turns(first.done)
        await turns(lambda: len(backend.requests) == 2)
        assert not second.done()
        await clock.run(3)
        await turns(second.done)

    for task in (first, second):
        assert isinstance(task.exception(), UpstreamTimeout)


async def test_whose_turn_does_not_come_in_time_is_told_that_nothing_was_sent() -> None:
    counted = Counted()
    keys: dict[str, Any] = {"max_in_flight": 1, "timeout_seconds": 5}
    async with serving(hold) as backend, upstream(backend.url, counted, **keys) as client:
        clock = Clock()
        tasks = [asyncio.create_task(client.join(JOIN)) for _ in range(2)]
        await turns(lambda: backend.active == 1)
        await clock.run(5)
        await turns(lambda: all(task.done() for task in tasks))

    assert isinstance(tasks[0].exception(), UpstreamTimeout)
    assert isinstance(tasks[1].exception(), UpstreamUnavailable)
    assert sorted(counted.statuses) == ["busy", "timeout"]
    assert len(backend.requests) == 1


async def fail(client: Upstream, times: int = FAILURES, url: str = "", call: Call = JOIN) -> None:
    """So many callbacks in a row that fail."""
    for _ in range(times):
        with pytest.raises(UpstreamError):
            await client.join(call, url)


@pytest.mark.parametrize(
    "script", [answering(500), answering(503), answering(200, b"["), hang_up, close_mid_body]
)
async def test_a_backend_that_fails_is_left_alone_until_a_probe_succeeds(
    script: Callable[..., Awaitable[None]],
) -> None:
    counted = Counted()
    clock = Moved()
    async with serving(script) as backend, upstream(backend.url, counted, clock) as client:
        await fail(client)
        with pytest.raises(UpstreamUnavailable, match="breaker_open"):
            await client.join(JOIN)
        assert len(backend.requests) == FAILURES
        clock.now += 1
        backend.script = answering()
        await client.join(JOIN)
        await client.join(JOIN)

    assert counted.statuses[FAILURES:] == ["breaker_open", "200", "200"]


async def reset(request: Request) -> None:
    """Neither FIN nor answer."""
    request.writer.transport.abort()


@pytest.mark.parametrize(
    "script",
    [
        *map(answering, (302, 500, 502, 503, 504)),
        answering(200, b"["),
        answering(200, b" " * MAX_ANSWER_BYTES + b" "),
        close_mid_body,
        hang_up,
        reset,
        hold,
    ],
)
@pytest.mark.parametrize("call", [PUSH, Call(calls.CONNECT, ip="192.0.2.1")])
async def test_who_makes_the_backend_fail_is_cut_off_alone(
    script: Callable[..., Awaitable[None]], call: Call
) -> None:
    """Also who connects anew each time, as another session: there is one address."""
    counted = Counted()
    seconds = 0.05 if script is hold else 10
    async with (
        serving(script) as backend,
        upstream(backend.url, counted, timeout_seconds=seconds) as client,
    ):
        for number in range(2 * FAILURES):
            with pytest.raises(UpstreamError):
                await client.push(msgspec.structs.replace(call, session=str(number)))
        backend.script = answering()
        await client.push(of("43"))

    assert counted.statuses[FAILURES:] == ["breaker_open"] * FAILURES + ["200"]


async def test_a_backend_that_fails_many_is_left_alone_by_all() -> None:
    clock = Moved()
    async with serving(answering(502)) as backend, upstream(backend.url, clock=clock) as client:
        await fail(client, 1)
        clock.now += PROVEN_SECONDS
        for number in range(FAILURES):
            await fail(client, 1, call=of(str(number)))
        with pytest.raises(UpstreamUnavailable, match="breaker_open"):
            await client.join(of("new"))
        clock.now += 1
        backend.script = answering()
        await client.join(of("new"))
        await client.join(of("0"))


async def test_timeouts_open_the_breaker() -> None:
    async with serving(hold) as backend, upstream(backend.url, timeout_seconds=0.05) as client:
        await fail(client)
        with pytest.raises(UpstreamUnavailable, match="breaker_open"):
            await client.join(JOIN)


async def test_refusals_are_answers_to_the_breaker() -> None:
    async with serving(answering(403)) as backend, upstream(backend.url) as client:
        await fail(client, 2 * FAILURES)
        for _ in range(2 * FAILURES):
            with pytest.raises(UpstreamRefused):
                await client.tell(Call("gateway.user.online", user="1"), "abc", 0.0)

    assert len(backend.requests) == 4 * FAILURES


async def test_each_url_has_a_breaker_of_its_own() -> None:
    async with serving(answering()) as backend, upstream(backend.url) as client:
        down = f"http://127.0.0.1:{free_port()}/"
        await fail(client, url=down)
        with pytest.raises(UpstreamUnavailable, match="breaker_open"):
            await client.join(JOIN, down)

        assert await client.join(JOIN) == JoinAnswer()


async def test_a_probe_nobody_waits_for_leaves_its_place_to_the_next() -> None:
    clock = Moved()
    async with serving(answering(500)) as backend, upstream(backend.url, clock=clock) as client:
        await fail(client)
        clock.now += 1
        backend.script = hold
        probe = asyncio.create_task(client.join(JOIN))
        await turns(lambda: backend.active == 1)
        with pytest.raises(UpstreamUnavailable, match="breaker_open"):
            await client.join(JOIN)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        backend.script = answering()

        assert await client.join(JOIN) == JoinAnswer()


async def test_a_backend_that_is_left_alone_is_not_waited_for() -> None:
    down = f"http://127.0.0.1:{free_port()}/"
    async with serving(hold) as backend, upstream(backend.url, max_in_flight=1) as client:
        await fail(client, url=down)
        task = asyncio.create_task(client.join(JOIN))
        await turns(lambda: backend.active == 1)
        with pytest.raises(UpstreamUnavailable, match="breaker_open"):
            await client.join(JOIN, down)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_who_waited_while_the_breaker_opened_is_not_sent() -> None:
    counted = Counted()
    script = answering(500)
    async with (
        serving(script) as backend,
        upstream(backend.url, counted, max_in_flight=4) as client,
    ):
        tasks = [asyncio.create_task(client.join(JOIN)) for _ in range(FAILURES + 3)]
        await asyncio.gather(*tasks, return_exceptions=True)

    assert counted.statuses == ["500"] * FAILURES + ["breaker_open"] * 3
    assert len(backend.requests) == FAILURES


async def test_a_bug_harms_nothing_but_its_own_callback() -> None:
    half = msgspec.structs.replace(JOIN, user="\ud83d")  # no text UTF-8 can carry
    async with serving(answering()) as backend, upstream(backend.url, max_in_flight=1) as client:
        for _ in range(2 * FAILURES):
            with pytest.raises(UnicodeEncodeError):
                await client.join(half)

        assert await client.join(JOIN) == JoinAnswer()


async def test_closing_ends_what_is_under_way_and_takes_nothing_more() -> None:
    async with serving(hold) as backend, upstream(backend.url) as client:
        task = asyncio.create_task(client.join(JOIN))
        await turns(lambda: backend.active == 1)
        await client.close()
        for call in (task, client.join(JOIN)):
            with pytest.raises(UpstreamUnavailable, match="unreachable"):
                await call


async def test_trouble_is_logged_once_in_a_while_and_nothing_private_with_it() -> None:
    clock = Moved()
    private = msgspec.structs.replace(PUSH, payload=b'{"private":1}', topic="private")
    async with serving(answering(200, b'{"response":"private"}')) as backend:
        url = backend.url + "&private=1"
        with structlog.testing.capture_logs() as logs:
            async with upstream(url, clock=clock) as client:
                await fail(client, call=private)
                clock.now += 1
                backend.script = answering()
                await client.join(private)

    assert [entry["event"] for entry in logs] == [
        "callback failed",
        "upstream is left alone",
        "upstream works again",
    ]
    assert logs[0]["detail"] == "response is no object"
    assert [entry["client"] for entry in logs[1:]] == ["user 42"] * 2
    assert "private" not in str(logs)
    assert SECRETS[0] not in str(logs)


async def test_metrics_tell_types_and_what_came_of_them() -> None:
    metrics = Metrics()
    async with serving(answering(200)) as backend:
        client = Upstream(
            Settings(backend.url),
            replica="a",
            max_user_bytes=255,
            metrics=metrics,
        )
        async with closing(client):
            await client.join(JOIN)
            backend.script = answering(500)
            await fail(client, 1)

    text = metrics.exposition()[0].decode()
    for status in ("200", "500"):
        labels = f'{{status="{status}",type="gateway.join"}}'
        assert f"gateway_upstream_request_seconds_count{labels} 1.0" in text
    assert "gateway_upstream_in_flight 0.0" in text
