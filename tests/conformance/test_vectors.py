"""What a real Phoenix server said, replayed against the gateway.

``vectors/websocket.json`` was captured from Phoenix 1.7.24. Its channel module is application code, which
the gateway has rules for instead. So a case is replayed with a few declared changes, see :data:`ANSWERED`,
:data:`BROADCAST` and :data:`APPLICATION`; a case that is about the application alone is left out, with the
reason; and one in which the gateway differs on purpose has its own test in ``test_differences.py``.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conformance.wire import BINARY, CLOSE, PING, TEXT, Received, Wire
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors/websocket.json").read_text()
)

ANSWERED = {"ping", "bare_ok"}
"""Pushes the captured application replies to, with the payload; a rule replies ``{}``."""

BROADCAST = {"shout", "shout_from"}
"""Pushes it broadcasts as ``shout`` without a reply; a rule broadcasts all and replies ``{}``."""

APPLICATION = {"err", "push_me", "crash"}
"""Pushes only an application can answer: left out of a case, with what follows from them."""

EXCLUDED = {
    "channel stops: {:stop, :normal}, with and without a reply": "an application ends its channel",
    "channel crashes: raise; unknown event; then rejoin": "an application crashes",
    "presence": "presence is not a matter of frames alone and has its own tests",
}

DIFFERENT = {
    "server-reserved events pushed by the client (phx_reply, phx_error, phx_close)",
    "bad frame: not JSON",
    "bad frame: empty text frame",
    "bad frame: JSON of the other version",
    "bad frame: JSON null",
    "bad frame: too few elements / keys",
    "bad frame: missing payload",
    "bad binary: kind 1; truncated",
    "leave with a null join_ref after a join that had one",
    "ping non-map payloads to a joined channel",
    (
        "POST /publish with a payload that is not a map (this subscriber present),"
        " with missing keys, with no JSON"
    ),
    ("1.0.0", "broadcast of a binary payload to this version"),
}

STALE = {"push whose join_ref is not the current one": "2", "duplicate join": "7"}
"""Pushes for an earlier join, which the captured server answered; from 1.8.3 on they are dropped."""

RACES = {
    # Phoenix joins while the old channel still works through its queue. Which of the old channel's
    # answers come out, and when, is a race there; the gateway takes messages up one by one.
    "leave and rejoin in one TCP segment",
    "join, push, join again, push in one TCP segment",
    "join, three pushes, leave, push in one TCP segment",
}


def kind(case: dict[str, Any]) -> str:
    """How a case is treated."""
    section = case["section"]
    if section in EXCLUDED:
        return "excluded"
    if section in DIFFERENT or (case["vsn"], section) in DIFFERENT:
        return "different"
    if section == "handshake refusals and variants":
        return "handshakes"
    return "race" if section in RACES else "replayed"


def of_kind(*kinds: str) -> list[Any]:
    """Parameters for the cases of some kinds."""
    return [
        pytest.param(case, id=f"{case['vsn']} {case['section'][:60]}")
        for case in CASES
        if kind(case) in kinds
    ]


def event_of(message: Any) -> Any:
    """Event of a decoded frame of either version."""
    if isinstance(message, dict):
        return message.get("event")
    return message[3] if isinstance(message, list) and len(message) > 3 else None


def ref_of(message: Any) -> Any:
    """Ref of a decoded frame of either version."""
    return message["ref"] if isinstance(message, dict) else message[1]


def response_of(message: Any) -> Any:
    """Payload of a decoded frame of either version."""
    return message["payload"] if isinstance(message, dict) else message[4]


def sent_event(step: dict[str, Any]) -> Any:
    """Event of what a client sends in a step, text or binary push."""
    if "hex" in step:
        data = bytes.fromhex(step["hex"])
        if data[:1] == b"{":
            return json.loads(data).get("event")
        _, join_ref, ref, topic, event = data[:5]
        start = 5 + join_ref + ref + topic
        return data[start : start + event].decode()
    try:
        return event_of(json.loads(step["text"]))
    except ValueError:
        return None


def without_application(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A case's steps but for pushes only an application can answer, and their answers."""
    kept, skipping = [], False
    for step in steps:
        if step.get("dir") == ">":
            skipping = ("text" in step or "hex" in step) and sent_event(step) in APPLICATION
        if not skipping:
            kept.append(step)
    return kept


def expected_of(step: dict[str, Any]) -> tuple[int, Any]:
    """Opcode and value of what the server is to send, with the application's answers made the rules'."""
    if "close" in step:
        return CLOSE, step["close"]
    if "pong" in step:
        return 0xA, step["pong"]
    if "tcp" in step:
        return 0, ""
    if "hex" in step:
        data = bytes.fromhex(step["hex"])
        if data[0] != 1:
            return BINARY, step["hex"]
        # a reply in binary repeats the data of a binary push; the rule's reply is the usual one
        lengths = data[1:5]
        ends = [5 + sum(lengths[: index + 1]) for index in range(4)]
        join_ref, ref, topic = (
            data[start:end].decode() for start, end in zip([5, *ends], ends[:3], strict=False)
        )
        return TEXT, [join_ref, ref, topic, "phx_reply", {"response": {}, "status": "ok"}]
    message = json.loads(step["text"])
    if event_of(message) == "phx_reply" and response_of(message)["status"] == "ok":
        response_of(message)["response"] = {}
    return TEXT, message


class Replay:
    """One case against one gateway."""

    def __init__(self, gateway: GatewayProcess, vsn: str) -> None:
        self.gateway = gateway
        self.vsn = vsn
        self.wires: dict[str, Wire] = {}
        self.answers: list[int] = []
        self.unanswered: set[str] = set()

    async def wire(self, who: str) -> Wire:
        """A client's connection, made when it first does something."""
        if who not in self.wires:
            vsn = "2.0.0" if who == "V2" else self.vsn
            self.wires[who] = await Wire.connect(self.gateway.public_port, f"vsn={vsn}")
            assert self.wires[who].status == 101
        return self.wires[who]

    async def send(self, step: dict[str, Any]) -> None:
        """What a client does."""
        wire = await self.wire(step["who"])
        if "close" in step:
            code = step["close"]
            data = b"" if code is None else code.to_bytes(2, "big") + step["reason"].encode()
            wire.send(CLOSE, data)
        elif "ping" in step:
            wire.send(PING, bytes.fromhex(step["ping"]))
        elif "hex" in step:
            wire.send(BINARY, bytes.fromhex(step["hex"]))
        elif "\ufffd" in step["text"]:
            wire.send(TEXT, b"\xff\xfe\x22")  # what the capture says these stand for
        else:
            wire.send(TEXT, step["text"].encode())
        if ("text" in step or "hex" in step) and sent_event(step) in BROADCAST:
            # the refs of the capture's two binary shouts are 4 and 2
            refs = {ref_of(json.loads(step["text"]))} if "text" in step else {"4", "2"}
            self.unanswered |= refs

    def is_extra(self, frame: Received) -> bool:
        """What the rules say and the captured application did not: replies to shouts, echoes of pings."""
        if frame.opcode == BINARY:
            return frame.data[:1] == b"\x02" and b"ping" in frame.data
        if frame.opcode != TEXT:
            return False
        message = frame.value
        if event_of(message) in ANSWERED:
            return True
        return event_of(message) == "phx_reply" and ref_of(message) in self.unanswered

    async def expect(self, step: dict[str, Any]) -> None:
        """What the server is to do next on a connection."""
        opcode, value = expected_of(step)
        wire = await self.wire(step["who"])
        for other in self.wires.values():
            other.flush()
        while True:
            frame = await wire.receive()
            if (frame.opcode, frame.value) == (opcode, value):
                return
            assert self.is_extra(frame), f"got {frame}, expected {value}"

    async def say(self, who: str, join_ref: str | None, ref: str, topic: str, event: str) -> None:
        """Queue a message of no case, in the connection's version."""
        fields = {"topic": topic, "event": event, "payload": {}, "ref": ref}
        two = self.vsn.startswith("2") or who == "V2"
        message: Any = [join_ref, ref, topic, event, {}] if two else fields
        (await self.wire(who)).send(TEXT, json.dumps(message).encode())

    async def rest(self, who: str) -> list[Received]:
        """All that comes before the answer to a heartbeat sent now, or before the end."""
        await self.say(who, None, "end", "phoenix", "heartbeat")
        frames: list[Received] = []
        while True:
            frame = await self.wires[who].receive()
            if frame.opcode == 0 or (frame.opcode == TEXT and ref_of(frame.value) == "end"):
                return frames
            frames.append(frame)

    async def silence(self) -> None:
        """Nothing more is on its way."""
        for who in self.wires:
            for frame in await self.rest(who):
                assert self.is_extra(frame), f"{who} got {frame} at the end"

    async def publish(self, request: str) -> None:
        """``POST /publish`` of the capture."""
        body = json.loads(request.split("\r\n\r\n", 1)[1])
        async with Backend(self.gateway) as backend:
            self.answers.append((await backend.post("/v1/publish", body))[0])

    async def run(self, steps: list[dict[str, Any]]) -> None:
        """All steps in order."""
        for step in steps:
            if "note" in step:
                continue
            if "http" in step:
                if step["who"] == "http" and step["dir"] == ">":
                    await self.publish(step["http"])
                elif step["who"] == "http":
                    assert self.answers.pop() == int(step["http"].split(" ", 2)[1])
                elif step["dir"] == "<":
                    wire = await self.wire(step["who"])
                    assert wire.header("sec-websocket-extensions") is None
                    assert wire.header("sec-websocket-protocol") is None
            elif step["dir"] == ">":
                await self.send(step)
            else:
                await self.expect(step)
        await self.silence()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for wire in self.wires.values():
            await wire.close()


def gateway_for(
    case: dict[str, Any], loud: GatewayProcess, quiet: GatewayProcess
) -> GatewayProcess:
    """``broadcast!`` reaches its author, ``broadcast_from!`` does not."""
    sent = {
        sent_event(s) for s in case["events"] if s.get("dir") == ">" and ("text" in s or "hex" in s)
    }
    return loud if "shout" in sent else quiet


def adapted(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a case as the gateway is to see them."""
    steps = without_application(case["events"])
    if stale := STALE.get(case["section"]):
        steps = [
            step
            for step in steps
            if step["dir"] == ">" or ref_of(json.loads(step["text"])) != stale
        ]
    text = json.dumps(steps).replace("shout_from", "shout")
    renamed: list[dict[str, Any]] = json.loads(text)
    return renamed


@pytest.mark.parametrize("case", of_kind("replayed"))
async def test_the_gateway_answers_as_phoenix_does(
    case: dict[str, Any], loud: GatewayProcess, quiet: GatewayProcess
) -> None:
    async with Replay(gateway_for(case, loud, quiet), case["vsn"] or "1.0.0") as replay:
        if case["section"].startswith("101 channels"):
            for number in range(1, 100):
                ref = str(number)
                await replay.say("A", ref, ref, f"room:{number}", "phx_join")
                assert (await (await replay.wire("A")).receive()).opcode == TEXT
        await replay.run(adapted(case))


@pytest.mark.parametrize("case", of_kind("race"))
async def test_where_phoenix_races_the_gateway_sends_at_least_as_much(
    case: dict[str, Any], quiet: GatewayProcess
) -> None:
    """All that Phoenix let out comes, and what else comes is the answer to a message sent."""
    steps = adapted(case)
    async with Replay(quiet, case["vsn"]) as replay:
        for step in steps:
            if step["dir"] == ">":
                await replay.send(step)
        got = [frame.value for frame in await replay.rest("A")]
    sent = {ref_of(json.loads(step["text"])) for step in steps if step["dir"] == ">"}
    wanted = [expected_of(step)[1] for step in steps if step["dir"] == "<"]
    # a broadcast that its author's own leave overtakes is not one of its channel's answers
    wanted = [message for message in wanted if event_of(message) not in BROADCAST]

    assert all(message in got for message in wanted)
    for message in got:
        assert event_of(message) in {"phx_reply", "phx_close"}
        assert ref_of(message) in sent


def handshakes() -> list[Any]:
    """Each handshake of the capture: the note, the request, the status."""
    (case,) = (case for case in CASES if kind(case) == "handshakes")
    found, note = [], ""
    for step in case["events"]:
        if "note" in step:
            note = step["note"]
        elif step["dir"] == ">":
            request = step["http"]
        else:
            status = int(step["http"].split(" ", 2)[1])
            found.append(pytest.param(request, status, id=note))
    return found


@pytest.mark.parametrize(("request_text", "status"), handshakes())
async def test_handshakes_have_phoenix_status(
    request_text: str, status: int, loud: GatewayProcess
) -> None:
    # the captured server took any token, the word "secret" here; the gateway wants a real one
    real = base64.b64encode(token().encode()).decode().rstrip("=")
    wire = await Wire.request(loud.public_port, request_text.replace("c2VjcmV0", real))
    await wire.close()

    assert wire.status == status


def test_every_case_is_replayed_excluded_or_different() -> None:
    """Names in the tables above are names of cases; most cases are replayed."""
    sections = {case["section"] for case in CASES}
    named = EXCLUDED.keys() | RACES | {name for name in DIFFERENT if isinstance(name, str)}
    kinds = [kind(case) for case in CASES]

    assert named <= sections
    assert kinds.count("replayed") >= 55, kinds.count("replayed")
    assert kinds.count("excluded") == 6


def test_the_capture_is_what_it_was() -> None:
    assert len(CASES) == 90
    assert {case["vsn"] for case in CASES} == {"1.0.0", "2.0.0", None}
    assert all(re.search(r"\S", case["section"]) for case in CASES)
