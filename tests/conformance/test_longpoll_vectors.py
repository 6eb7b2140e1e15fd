"""What a real Phoenix server answered clients that poll, replayed against the gateway.

``vectors/longpoll.json`` was captured from Phoenix 1.7.24, like its sister for WebSockets. The cases of one
version stand on each other, so they are replayed in order, as one session after the other.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conformance.test_vectors import (
    ANSWERED,
    APPLICATION,
    BROADCAST,
    event_of,
    ref_of,
    response_of,
)
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors/longpoll.json").read_text()
)

EXCLUDED = {
    "presence": "presence is not a matter of frames alone and has its own tests",
    "session left alone for 31 s, then GET and POST with its token": "tests/system has it, in less time",
}

DIFFERENT = {
    "ndjson with a trailing newline",
    "POST with a bad token; GET with a bad token",
    "bad body: not JSON",
    "binary reply whose data is not UTF-8",
    "binary: base64 of a V2 binary push as an ndjson line; the binary reply",
}
"""Each has its own test in ``test_differences.py``."""

V1_BATCH = (
    "join by POST, content-type application/json; then GET; then a batch as ndjson (500: only lines"
    " starting with [ are text, the rest is taken for base64); then GET"
)
"""Different from where its batch begins, which the gateway takes."""


def kind(case: dict[str, Any]) -> str:
    """How a case is treated."""
    section = case["section"]
    return (
        "excluded" if section in EXCLUDED else "different" if section in DIFFERENT else "replayed"
    )


def tracing() -> aiohttp.TraceConfig:
    """Has a request tell when it was sent."""
    config = aiohttp.TraceConfig()

    async def sent(_: object, context: Any, __: object) -> None:
        if context.trace_request_ctx:
            context.trace_request_ctx.set()

    config.on_request_headers_sent.append(sent)
    return config


class Replay:
    """The cases of one version against one gateway."""

    def __init__(self, gateway: GatewayProcess, http: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.http = http
        self.tickets: dict[str, str] = {}
        self.under_way: dict[str, asyncio.Task[tuple[int, dict[str, str], Any]]] = {}
        self.asked: dict[str, str] = {}
        self.unanswered: set[str] = set()
        self.sent: list[asyncio.Event] = []

    async def run(self, case: dict[str, Any]) -> None:
        """All steps of a case in order."""
        for step in case["events"]:
            who, text = step["who"], step["http"]
            head, _, body = text.partition("\r\n\r\n")
            if step["dir"] == "<":
                if who in self.under_way:
                    await self.answered(who, head, body)
            elif who == "http":
                async with Backend(self.gateway) as backend:
                    assert (await backend.post("/v1/publish", json.loads(body)))[0] == 202
            else:
                if case["section"] == V1_BATCH and "ndjson" in head:
                    return
                await self.arrived()
                self.send(who, head, body)

    async def arrived(self) -> None:
        """Wait until the gateway has what was sent before: requests on two connections may overtake."""
        for sent in self.sent:
            await sent.wait()
        if self.sent:
            for _ in range(
                2
            ):  # one turn of its event loop to accept a connection, another to read from it
                await asyncio.to_thread(self.gateway.get, "/livez")
        self.sent.clear()

    def send(self, who: str, head: str, body: str) -> None:
        """What a client asks for, with the token of its session here."""
        event = event_of(json.loads(body)) if body[:1] in {"[", "{"} and "\n" not in body else None
        if event in APPLICATION:
            return
        for line in body.splitlines():
            message = json.loads(line)
            if event_of(message) in BROADCAST:
                self.unanswered.add(ref_of(message))
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        recorded = target.rpartition("token=")[2] if "token=SFMyNTY" in target else ""
        if recorded:
            target = target.replace(recorded, self.tickets[recorded])
        headers = dict(line.split(": ", 1) for line in lines)
        del headers["Host"]
        headers.pop("Content-Length", None)
        # "POST with no content-type" is just that
        skip = [] if "Content-Type" in headers else ["Content-Type"]
        self.asked[who] = recorded
        sent = asyncio.Event()
        self.sent.append(sent)
        self.under_way[who] = asyncio.create_task(
            self.request(method, target, headers, body.encode(), skip, sent=sent)
        )

    async def request(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes,
        skip: list[str],
        *,
        sent: asyncio.Event | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """HTTP status, headers and decoded body of an answer."""
        url = f"{self.gateway.public_url}{target}"
        async with self.http.request(
            method,
            url,
            headers=headers,
            data=body or None,
            skip_auto_headers=skip,
            trace_request_ctx=sent,
        ) as response:
            data = await response.read()
            found = {name.lower(): value for name, value in response.headers.items()}
            return response.status, found, json.loads(data) if data else None

    async def answered(self, who: str, head: str, body: str) -> None:
        """What the server is to answer."""
        recorded = self.asked[who]
        status, headers, got = await self.under_way.pop(who)
        line, *lines = head.split("\r\n")
        assert status == int(line.split(" ")[1])
        wanted_headers = dict(line.split(": ", 1) for line in lines)
        for name, value in wanted_headers.items():
            if name.startswith("access-control-") or (name == "content-type" and body):
                assert headers[name] == value
        if not body:
            assert got is None
            return
        wanted = json.loads(body)
        assert got.keys() == wanted.keys()
        if "token" not in wanted:
            assert got == wanted
            return
        self.tickets[wanted["token"]] = got["token"]
        messages = self.expected(wanted["messages"])
        found = self.comparable(got["messages"])
        assert got["status"] == wanted["status"]
        while len(found) < len(messages):
            # what comes in one answer is a matter of time
            target = f"/socket/longpoll?token={self.tickets[recorded]}"
            _, _, more = await self.request("GET", target, {}, b"", [])
            assert more["status"] == 200, (found, messages)
            self.tickets[recorded] = more["token"]
            found += self.comparable(more["messages"])
        assert found == messages

    def expected(self, texts: list[str]) -> list[Any]:
        """Messages of the capture, with the application's answers made the rules'."""
        messages = [json.loads(text) for text in texts]
        for message in messages:
            if event_of(message) == "phx_reply" and response_of(message)["status"] == "ok":
                response_of(message)["response"] = {}
        return [m for m in messages if event_of(m) != "phx_error"]  # of the application's crash

    def comparable(self, texts: list[str]) -> list[Any]:
        """Messages of the gateway, without what its rules say and the application did not."""
        messages = [json.loads(text) for text in texts]
        return [
            message
            for message in messages
            if event_of(message) not in ANSWERED
            and not (event_of(message) == "phx_reply" and ref_of(message) in self.unanswered)
        ]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0", None])
async def test_the_gateway_answers_polls_as_phoenix_does(
    vsn: str | None, polled: GatewayProcess
) -> None:
    async with aiohttp.ClientSession(trace_configs=[tracing()]) as http:
        replay = Replay(polled, http)
        for case in CASES:
            if case["vsn"] != vsn or kind(case) != "replayed":
                continue
            for step in case["events"]:
                # a session that a case left out began
                recorded = step["http"].partition("token=SFMyNTY")[2].partition(" ")[0]
                if step["dir"] == ">" and recorded:
                    await begun(replay, f"SFMyNTY{recorded}", vsn)
            try:
                await replay.run(case)
            except (AssertionError, KeyError) as problem:
                raise AssertionError(case["section"]) from problem


async def begun(replay: Replay, recorded: str, vsn: str | None) -> None:
    """Begin a session in the place of a recorded one, if there is none yet."""
    if recorded not in replay.tickets:
        query = "" if vsn is None else f"?vsn={vsn}"
        _, _, answer = await replay.request("GET", f"/socket/longpoll{query}", {}, b"", [])
        replay.tickets[recorded] = answer["token"]


def test_most_cases_are_replayed() -> None:
    sections = {case["section"] for case in CASES}
    kinds = [kind(case) for case in CASES]

    assert EXCLUDED.keys() | DIFFERENT | {V1_BATCH} <= sections
    assert (len(CASES), kinds.count("replayed")) == (39, 28), kinds.count("replayed")
