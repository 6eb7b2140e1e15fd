"""One NATS connection, from connecting until it is lost; a lost one is replaced by a new client.

Each connection is one nats-py client, and a client is never used again: whatever ends a connection,
the answer is a new client on which everything is subscribed anew. nats-py's own way to reconnect is
off. It is one of several ways in which its connections end (others close the client for good, and one
waits for a server that hangs to take the last bytes), and it would send what was still waiting on the
old connection.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from nats import errors

from gateway.bus.base import NoResponders
from gateway.bus.buckets import Buckets
from gateway.bus.client import NatsClient
from gateway.bus.confirmation import Confirmations
from gateway.bus.requests import Reply
from gateway.bus.stream_position import unix_seconds
from gateway.errors import BusUnavailable, EnvelopeTooLarge
from gateway.log import background_error

PING_SECONDS: Final = 2
"""
A server that hangs is noticed after at most three of these.

The other replicas must not take this one for dead meanwhile: they give it ten seconds, of which up to two had
gone by in silence already.
"""

CONNECT_SECONDS: Final = 2
CONNECT_AGAIN_SECONDS: Final = 0.1

WATCH_SECONDS: Final = 0.25
"""nats-py does not tell of every end of a connection, so it is looked at this often."""

MAX_UNSENT_BYTES: Final = 32 * 1024 * 1024
"""What may wait for a server that takes nothing, until its silence is noticed."""

_PERMISSION: Final = re.compile(r'permissions violation for (subscription|publish) to "([^"]*)"')

_USER_INFO: Final = "$SYS.REQ.USER.INFO"
"""Answered to every user by the server it is connected to; like all its answers it says the time."""

TIME_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class _Server(msgspec.Struct):
    time: str


class _Info(msgspec.Struct):
    server: _Server


_decode_info: Final = msgspec.json.Decoder(_Info).decode


class NatsLink:
    """A connection.

    Args:
        prefix: First token of the subjects it makes for itself.
        copies: Servers that shall keep each bucket.
        complain: Told what goes wrong: what it means, and the error.

    Attributes:
        client: What knows the server.
        up: Whether everything is subscribed and confirmed on it.
        lost: Set when it has ended, or must.
        reason: Why, for the log.
    """

    def __init__(
        self, prefix: str, copies: int, complain: Callable[[str, BaseException], None]
    ) -> None:
        self.client = NatsClient(prefix)
        self._prefix = prefix
        self.confirmations = Confirmations(self.client)
        self.buckets = Buckets(self.client, copies)
        self.up = False
        self._tells_no_time = False
        self.lost = asyncio.Event()
        self.reason = ""
        self._closed = asyncio.Event()
        self._complain = complain
        self._watcher: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether messages can be sent, as far as is known."""
        return self.up and self.client.sends

    async def open(
        self,
        servers: list[str],
        login: dict[str, str],
        name: str,
        pending: Callable[[int], None],
    ) -> None:
        """Connect to one of the servers, in this order; each is tried twice at most.

        One that takes the connection and then says nothing ends the attempt.

        Raises:
            OSError: Or any error of nats-py: there is no connection.
        """
        options: dict[str, Any] = {
            "servers": servers,
            "name": name,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "closed_cb": self._on_closed,
            "lame_duck_mode_cb": self._on_lame_duck,
            "discovered_server_cb": self._on_discovered,
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "dont_randomize": True,
            "reconnect_time_wait": CONNECT_AGAIN_SECONDS,
            "connect_timeout": CONNECT_SECONDS,
            "ping_interval": PING_SECONDS,
            "max_outstanding_pings": 2,
            "pending_size": 0,  # else it would take messages while disconnected and send them later
            "skip_subject_validation": True,  # done by the bus
            "inbox_prefix": f"{self._prefix}.inbox",
            **login,
        }
        await self.client.connect(**options)
        self._watcher = asyncio.create_task(self._watch(pending), name="nats-bus-watch")

    def publish(self, subject: str, body: bytes, no_responders: NoResponders | None) -> None:
        """Hand a message to the client, which sends it in the event loop's next turn.

        Raises:
            BusUnavailable: Nothing was taken: disconnected, or too much waits.
            EnvelopeTooLarge: The server would close the connection over it.
        """
        client = self.client
        self._require_room(len(body))
        try:
            reply = "" if no_responders is None else client.inbox(subject, no_responders)
            client.send(subject, reply, body)
        except errors.Error as problem:
            raise BusUnavailable(str(problem)) from problem

    async def request(
        self, subject: str, body: bytes, headers: bytes, seconds: float, *, many: bool
    ) -> list[Reply]:
        """Send a request and wait for its answer.

        Raises:
            BusUnavailable: Nothing was sent, or the server denied it.
            EnvelopeTooLarge: The server would close the connection over it.
            OutcomeUnknown: No answer in time, or the connection was lost.
        """
        self._require_room(len(headers) + len(body))
        requests = self.client.requests
        number, reply = requests.open(subject, seconds, many=many)
        try:
            self.client.ask(subject, headers, body, reply)
            return await requests.wait(number)
        except errors.Error as problem:
            raise BusUnavailable(str(problem)) from problem
        finally:
            requests.close(number)

    async def server_time(self) -> float | None:
        """See :meth:`gateway.bus.base.Bus.server_time`; one that denied it is not asked again."""
        if self._tells_no_time:
            return None
        try:
            [answer] = await self.request(_USER_INFO, b"", b"", TIME_SECONDS, many=False)
            return unix_seconds(_decode_info(answer.body).server.time.encode())
        except (BusUnavailable, ValueError):  # the permissions deny it, or the server is too old
            self._tells_no_time = True
            return None

    def _require_room(self, size: int) -> None:
        # nats-py's own check forgets the headers, and the server closes the connection over such a one
        if size > self.client.max_payload:
            raise EnvelopeTooLarge(size, self.client.max_payload)
        if self.client.unsent_bytes > MAX_UNSENT_BYTES:
            raise BusUnavailable("the NATS server takes no messages at the moment")

    def fail(self, reason: str) -> None:
        """Have done with this connection: its subscribers are told, its transport is closed."""
        if self.lost.is_set():
            return
        self.reason = reason
        self.up = False
        self.lost.set()
        self.confirmations.stop()
        self.client.requests.stop()
        self.buckets.stop()
        self.client.abort()

    async def close(self) -> None:
        """End what is left of the client."""
        self.fail("closed")
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            await self.client.close()
            # it may be closing by itself already, in a task of its own
            async with asyncio.timeout(WATCH_SECONDS):
                await self._closed.wait()
        except Exception as problem:  # noqa: BLE001 - its transport is closed; nothing else counts
            _log.debug("nats client did not close well", problem=type(problem).__name__)

    async def drain(self) -> None:
        """Wait until the server has read all that was taken."""
        # nats-py tells nobody when it has handed its bytes to the kernel
        while self.client.pending_data_size and self.client.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if self.client.is_connected:
            await asyncio.shield(self.client.ping())

    async def _watch(self, pending: Callable[[int], None]) -> None:
        try:
            while self.client.works and not self.lost.is_set():
                pending(self.client.unsent_bytes)
                self.client.requests.expire()
                await asyncio.sleep(WATCH_SECONDS)
        except Exception as problem:  # noqa: BLE001 -- a connection that nobody watches is given up
            background_error("bus", problem)
        self.fail(str(self.client.last_error or "connection lost"))

    async def _on_error(self, problem: Exception) -> None:
        denied = _PERMISSION.search(str(problem))
        if denied is None:
            self._complain("bus error", problem)
            return
        if denied[1] == "publish" and self.client.requests.refused(denied[2]):
            return  # who asked is told
        self.buckets.denied(denied[2])
        if denied[1] == "publish":
            self._complain("bus refused a message", problem)
        elif not self.confirmations.refuse(denied[2]):
            self._complain("bus took a subscription away", problem)

    async def _on_disconnected(self) -> None:
        self.fail(str(self.client.last_error or "disconnected"))

    async def _on_closed(self) -> None:
        self.fail(str(self.client.last_error or "closed"))
        self._closed.set()

    async def _on_lame_duck(self) -> None:
        _log.info("bus server is about to shut down")

    async def _on_discovered(self) -> None:
        _log.info("bus server told of others", servers=self.client.advertised)
