"""The part ``polls``: what a replica keeps of long polls whose session another replica has."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from bench.beside import Row, compare
from bench.builds import Build
from bench.idle import await_replicas
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.base import post
from bench.servers.gateway import API_KEY, EquippedGateway
from bench.wire import LoadError, Wire

POLLS: Final = 400
WARM_UP: Final = 20
MESSAGE_BYTES: Final = 60_000
MESSAGES: Final = 3
"""Of one answer."""

SETTLE_SECONDS: Final = 5.0

_TOPIC: Final = "room:polled"
_KINDS: Final = {"home": "at home", "away": "through the other replica"}


class Poller:
    """One client that polls; its session stays with the replica where it began."""

    def __init__(self, home: EquippedGateway) -> None:
        self._path = home.path(0).replace("/websocket", "/longpoll")
        self._ticket = ""
        with closing(Wire(home.port)) as wire:
            self._ask(wire, "GET", 410)
            self._ask(wire, "POST", 200, b'["1","1","%b","phx_join",{}]' % _TOPIC.encode())
            (joined,) = self._ask(wire, "GET", 200)
        if json.loads(joined)[4]["status"] != "ok":
            raise LoadError(f"join refused: {joined}")

    def poll(self, wire: Wire) -> list[str]:
        """The messages there are."""
        return self._ask(wire, "GET", 200)

    def _ask(self, wire: Wire, method: str, status: int, body: bytes = b"") -> list[str]:
        path = self._path + (f"&token={self._ticket}" if self._ticket else "")
        wire.ask(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = json.loads(wire.answered())
        if answer["status"] != status:
            raise LoadError(f"a poll was answered {answer['status']}")
        self._ticket = answer.get("token", self._ticket)
        messages: list[str] = answer.get("messages", [])
        return messages


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the table."""
    polls = 50 if options.quick else POLLS
    rows = {
        f"{kind}_mb": Row(f"resident MB more of the replica that is polled, {label}", 1)
        for kind, label in _KINDS.items()
    }
    size = MESSAGES * MESSAGE_BYTES // 1000
    return compare(
        rows,
        lambda build: polled("home", build, cores, polls) | polled("away", build, cores, polls),
        builds,
        options,
        f"{polls} polls with {size} KB of messages each, one after another",
    )


def polled(kind: str, build: Build, cores: Cores, polls: int) -> Figures:
    """By how much the resident memory of the replica grows that is polled."""
    beside = Cores(server=cores.load, load=cores.load)
    with Nats(cores.load) as nats:
        asked, other = EquippedGateway(build, nats.url), EquippedGateway(build, nats.url)
        with (
            ServerProcess(other, beside),
            ServerProcess(asked, cores) as process,
            closing(Wire(other.publish_port)) as api,
            closing(Wire(asked.port)) as wire,
        ):
            await_replicas(api, 2)
            poller = Poller(asked if kind == "home" else other)
            _poll(poller, wire, api, WARM_UP)
            before = process.resident_bytes()
            _poll(poller, wire, api, polls)
            time.sleep(SETTLE_SECONDS)
            grown = process.resident_bytes() - before
    return {f"{kind}_mb": grown / 1e6}


def _poll(poller: Poller, wire: Wire, api: Wire, polls: int) -> None:
    """Poll so often for messages that were published before."""
    body = b'{"topic":"%b","event":"m","payload":{"pad":"%b"}}' % (
        _TOPIC.encode(),
        b"x" * MESSAGE_BYTES,
    )
    request = post("/v1/publish", body, b"Authorization: Bearer %b\r\n" % API_KEY.encode())
    for _ in range(polls):
        for _ in range(MESSAGES):
            api.ask(request)
            api.answered()
        got = 0
        while got < MESSAGES:  # a poll may be quicker than the bus
            got += len(messages := poller.poll(wire))
            if any(len(message) < MESSAGE_BYTES for message in messages):
                raise LoadError("a message that was not published")
