"""One NATS connection, from connecting until it is lost; a lost one is replaced by a new client.

Each connection is one nats-py client, and a client is never used again: whatever ends a connection,
the answer is a new client on which everything is subscribed anew. nats-py's own way to reconnect is
off. It is one of several ways in which its connections end (others close the client for good, and one
waits for a server that hangs to take the last bytes), and it would send what was still waiting on the
old connection.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final, NoReturn

import msgspec
import structlog
from nats import errors

from gateway.bus.base import FLUSH_SECONDS, NoResponders
from gateway.bus.buckets import Buckets
from gateway.bus.client import NatsClient
from gateway.bus.confirmation import Confirmations, Listening
from gateway.bus.envelope import Control, encode_control
from gateway.bus.refusals import (
    TOO_MANY_SUBSCRIPTIONS,
    DeniedSubjects,
    RefusalKind,
    Refusals,
    denial_in,
    kind_of,
)
from gateway.bus.requests import Reply
from gateway.bus.stream_position import unix_seconds
from gateway.errors import BusUnavailable, EnvelopeTooLarge
from gateway.log import background_error

PING_SECONDS: Final = 2
"""
A server that hangs is noticed after at most three of these.

The other replicas must not take this one for dead meanwhile: they give it ten seconds, of which up to two had
gone by in silence already, or among a hundred replicas four.
"""

CONNECT_SECONDS: Final = 2
CONNECT_AGAIN_SECONDS: Final = 0.1

WATCH_SECONDS: Final = 0.25
"""nats-py does not tell of every end of a connection, so it is looked at this often."""

MAX_UNSENT_BYTES: Final = 32 * 1024 * 1024
"""What may wait for a server that takes nothing, until its silence is noticed."""

AGAIN_AT_ONCE: Final = 100
"""Subscriptions that were refused and are asked for at a time: the server logs each refusal as an error."""

STALE: Final = "Stale Connection"
"""An ``-ERR`` that refuses nothing: this process did not answer its PINGs in time."""

_QUOTED: Final = re.compile(r"'(.+)'")

_TRIAL: Final = encode_control(Control.PROBE, b"")
"""A message that every release passes over."""

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
        refusals: Told what the server refuses.
        dropped: Called for each message it refuses that nobody else is told of.
        deafened: Called when it takes a subscription away.

    Attributes:
        client: What knows the server.
        deaf: Subscriptions that the server refused or took away.
        denied: Subjects that it lets nothing be published to.
        up: Whether everything is subscribed and confirmed on it.
        lost: Set when it has ended, or must.
        reason: Why, for the log.
        refusal: The server's words, if it refused the whole connection.
    """

    def __init__(
        self,
        prefix: str,
        copies: int,
        complain: Callable[[str, BaseException], None],
        *,
        refusals: Refusals,
        dropped: Callable[[], None],
        deafened: Callable[[], None],
    ) -> None:
        self.client = NatsClient(prefix, self._refused)
        self._prefix = prefix
        # without these subjects there are no other replicas, no answers and no word of an absent receiver
        self._vital = (f"{prefix}.replica", f"{prefix}.inbox.", f"{prefix}.unheard.")
        self._refusals = refusals
        self._dropped = dropped
        self._deafened = deafened
        self.deaf: dict[Listening, None] = {}
        self._deaf_vital: dict[Listening, None] = {}  # those among them that are vital
        self.denied = DeniedSubjects(time.monotonic)
        self.refusal = ""
        self.confirmations = Confirmations(self.client)
        self.buckets = Buckets(self.client, copies, refusals)
        self.up = False
        self._tells_no_time = False
        self.lost = asyncio.Event()
        self.reason = ""
        self._closed = asyncio.Event()
        self._complain = complain
        self._watcher: asyncio.Task[None] | None = None
        self._flushing: asyncio.Future[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether messages can be sent, as far as is known."""
        return self.up and self.client.sends and not self._deaf_vital

    @property
    def hindrance(self) -> str:
        """The server's words where it denies this replica what it cannot do without; else empty."""
        return next((each.refusal for each in self._deaf_vital), "")

    def is_vital(self, subject: str) -> bool:
        """Whether a replica that is not subscribed to a subject of its own cannot do its work."""
        return subject.startswith(self._vital)

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

    async def listen(self, subscriptions: Iterable[Listening]) -> None:
        """Ask the server for subscriptions; :attr:`deaf` has those it refuses.

        Raises:
            BusUnavailable: The connection was lost first.
        """
        asked = tuple(subscriptions)
        refused = await self.confirmations.confirm_all(asked)
        for each in asked:
            words = refused.get(each.subject, "")
            if self.client.hears(each):  # else it was closed, or taken away meanwhile
                if words:
                    self.client.forget(each)
                self._mark(each, words)

    async def listen_again(self, *, to_all: bool) -> bool:
        """Ask once more for what was refused; whether some of it is back.

        Args:
            to_all: Or else to what is vital and some others.

        Raises:
            BusUnavailable: The connection was lost first.
        """
        others = (each for each in self.deaf if each not in self._deaf_vital)
        asked = [*self._deaf_vital, *islice(others, None if to_all else AGAIN_AT_ONCE)]
        await self.listen(asked)
        return any(self.client.hears(each) for each in asked)

    def forget(self, subscription: Listening) -> None:
        """Nobody wants a subscription any more."""
        self._mark(subscription, "")
        self.client.forget(subscription)

    def _mark(self, subscription: Listening, words: str) -> None:
        """Remember a subscription as refused in these words, or as not refused."""
        subscription.refusal = words
        self.deaf.pop(subscription, None)
        self._deaf_vital.pop(subscription, None)
        if words:
            self.deaf[subscription] = None  # at the end: the others come first the next time
            if self.is_vital(subscription.subject):
                self._deaf_vital[subscription] = None

    def publish(self, subject: str, body: bytes, no_responders: NoResponders | None) -> None:
        """Hand a message to the client, which sends it in the event loop's next turn.

        Raises:
            BusUnavailable: Nothing was taken: disconnected, or too much waits, or the subject is denied.
            EnvelopeTooLarge: The server would close the connection over it.
        """
        client = self.client
        self._require_room(len(body))
        if subject in self.denied.known:
            self._refuse(subject)
        try:
            reply = "" if no_responders is None else client.no_responders.expect(no_responders)
            client.send(subject, reply, body)
        except errors.Error as problem:
            raise BusUnavailable(str(problem)) from problem

    async def flush(self) -> None:
        """See :meth:`gateway.bus.base.Bus.flush`; all who ask in one turn of the event loop share a PING."""
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._flush, self._flushing)
        await asyncio.shield(self._flushing)  # others wait for it too

    def _flush(self, flushing: "asyncio.Future[None]") -> None:
        self._flushing = None

        def over(*_: object) -> None:
            if not flushing.done():
                flushing.set_result(None)

        self.client.ping().add_done_callback(over)
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, over)

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
            self.client.send(subject, reply, body, headers)
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

    def _refuse(self, subject: str) -> NoReturn:
        """Publish nothing to a denied subject, but find out from time to time whether it is one still."""
        words = self.denied.words(subject)
        if self.client.sends and self.denied.due(subject):
            answered = self.client.try_send(subject, _TRIAL)
            answered.add_done_callback(lambda _: self.denied.decided(subject))
        raise BusUnavailable(words)

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

    def _refused(self, words: str) -> bool:
        """The server refused something in these words; says whether the connection goes on."""
        if words == STALE:
            return False
        kind = kind_of(words)
        self._refusals.note(kind, words)
        denial = denial_in(words)
        if words == TOO_MANY_SUBSCRIPTIONS:
            self.confirmations.refuse_one(words)
        elif denial is None and kind not in {RefusalKind.PUBLISH, RefusalKind.SUBSCRIPTION}:
            self.refusal = words
            return False
        elif denial is not None:
            self._denied(denial.subject, denial.number, words, publish=denial.publish)
        return True

    def _denied(self, subject: str, number: int, words: str, *, publish: bool) -> None:
        self.buckets.denied(subject)
        if publish:
            if not self.client.requests.refused(subject, words):  # else who asked is told
                trial = self.denied.deny(subject, words)
                if not trial:
                    self._dropped()
            return
        self.client.denied(subject)
        if not number:
            self.confirmations.refuse(subject, words)
        elif (taken := self.client.taken(number)) is not None:
            self._mark(taken, words)
            self._deafened()

    async def _on_error(self, problem: Exception) -> None:
        # what a server says before it takes a connection does not come by way of _refused
        words = _QUOTED.search(str(problem))
        if words is None or (kind := kind_of(words[1])) is RefusalKind.OTHER:
            self._complain("bus error", problem)
        elif kind not in {RefusalKind.PUBLISH, RefusalKind.SUBSCRIPTION}:
            self.refusal = words[1]
            self._refusals.note(kind, words[1])

    async def _on_disconnected(self) -> None:
        self.fail(str(self.client.last_error or "disconnected"))

    async def _on_closed(self) -> None:
        self.fail(str(self.client.last_error or "closed"))
        self._closed.set()

    async def _on_lame_duck(self) -> None:
        _log.info("bus server is about to shut down")

    async def _on_discovered(self) -> None:
        _log.info("bus server told of others", servers=self.client.advertised)
