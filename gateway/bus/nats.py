"""One connection to a NATS server, from the call to its loss. The only module that knows nats-py.

Each connection is one nats-py client, and a client is never used again: whatever ends a connection,
the answer is a new client on which everything is subscribed anew. nats-py's own way to reconnect is
off. It is one of several ways in which its connections end (others close the client for good, and one
waits for a server that hangs to take the last bytes), and it would send what was still waiting on the
old connection.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from gateway.bus.base import Unheard
from gateway.bus.buckets import Buckets
from gateway.bus.confirmation import Confirmations
from gateway.bus.subscription import RemoteSubscription
from gateway.bus.unheard import UnheardInbox
from gateway.errors import BusUnavailable, EnvelopeTooLarge

PING_SECONDS: Final = 3
"""A server that hangs is noticed after at most three of these."""

CONNECT_SECONDS: Final = 2
CONNECT_AGAIN_SECONDS: Final = 0.1

WATCH_SECONDS: Final = 0.25
"""nats-py does not tell of every end of a connection, so it is looked at this often."""

MAX_UNSENT_BYTES: Final = 32 * 1024 * 1024
"""What may wait for a server that takes nothing, until its silence is noticed."""

_PERMISSION: Final = re.compile(r'permissions violation for (subscription|publish) to "([^"]*)"')

_log = structlog.get_logger(__name__)


class _Transport(TcpTransport):
    """A connection that never waits for its server when it ends."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # nats-py has no annotation there

    def __bool__(self) -> bool:
        return True  # else the client would make its own

    @property
    def unsent_bytes(self) -> int:
        """Bytes the kernel has not taken yet."""
        writer = self._io_writer
        return 0 if writer is None else writer.transport.get_write_buffer_size()

    def close(self) -> None:
        # An ordinary close first sends what waits, which a server that hangs does not take: the
        # client would stay on that connection until the kernel gives it up after many minutes.
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    async def drain(self) -> None:
        # Raising for a connection that is gone would end nats-py's own clean-up half-way; its reader
        # notices the loss anyway.
        if self._io_writer is not None and not self._io_writer.transport.is_closing():
            await self._io_writer.drain()

    def write(self, payload: bytes) -> None:
        if self._io_writer is not None:
            self._io_writer.write(payload)


class _Client(Client):
    """A nats-py client that hands messages straight to subscriptions.

    nats-py's own subscriptions cost a task and a queue each, 4.4 KiB, and twice the CPU per message.

    Attributes:
        advertised: Addresses of other servers the server told of, ``host:port`` each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._transport = self._tcp = _Transport()
        self._listening: dict[int, RemoteSubscription] = {}
        self._unheard: UnheardInbox | None = None
        self.advertised: list[str] = []

    @property
    def clustered(self) -> bool:
        """Whether the server names a cluster it belongs to."""
        return bool(self._server_info.get("cluster"))

    @property
    def unsent_bytes(self) -> int:
        """Bytes taken and not yet in the kernel's hands."""
        return self._pending_data_size + self._tcp.unsent_bytes

    def listen(self, subscriptions: Iterable[RemoteSubscription]) -> None:
        """Send the SUBs at once; they may overtake messages that wait to be sent."""
        lines = []
        for subscription in subscriptions:
            self._sid += 1
            subscription.number = self._sid
            self._listening[self._sid] = subscription
            lines.append(f"SUB {subscription.subject}  {self._sid}\r\n")
        if lines:
            self._tcp.write("".join(lines).encode())

    def inbox(self, subject: str, unheard: Unheard) -> str:
        """Where the server is to say that nobody heard a message to this subject."""
        if self._unheard is None:
            self._unheard = UnheardInbox(subject.partition(".")[0])
            self._sid = self._unheard.number = self._sid + 1
            self._tcp.write(f"SUB {self._unheard.subject}  {self._sid}\r\n".encode())
        return self._unheard.expect(unheard)

    def forget(self, subscription: RemoteSubscription) -> None:
        """Send an UNSUB, if this connection ever heard of the subscription."""
        if self._listening.get(subscription.number) is subscription:
            del self._listening[subscription.number]
            if self.is_connected:
                self._tcp.write(f"UNSUB {subscription.number}\r\n".encode())

    def ping(self) -> "asyncio.Future[bool]":
        """Send a PING at once, behind all SUBs.

        nats-py's ``flush`` does so too, but its SUBs wait for another task, so the PING may overtake
        what it is to confirm. The future must not be cancelled: nats-py's reader ends when it wants to
        set the result of one that was.
        """
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._tcp.write(b"PING\r\n")
        return pong

    def abort(self) -> None:
        """End the connection now."""
        self._tcp.close()

    def _connect_command(self) -> bytes:
        server = self._current_server
        wanted = server is not None and server.uri.scheme == "tls"
        if wanted and not self._server_info.get("tls_required"):
            # nats-py encrypts if the server asks for it; a false one would get the password in clear
            raise errors.SecureConnWantedError
        return super()._connect_command()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # a server may change its mind while connected, which nats-py does not look at
        self._max_payload = info.get("max_payload", self._max_payload)
        self.advertised = info.get("connect_urls") or self.advertised
        await super()._process_info(info, initial_connection)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        subscription = self._listening.get(sid)
        if subscription is not None:
            subscription.deliver(data)
        elif self._unheard is not None and sid == self._unheard.number:
            self._unheard.answered(subject.decode(), headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)


class NatsLink:
    """A connection.

    Args:
        complain: Told what goes wrong: what it means, and the error.

    Attributes:
        up: Whether everything is subscribed and confirmed on it.
        lost: Set when it has ended, or must.
        reason: Why, for the log.
    """

    def __init__(self, complain: Callable[[str, BaseException], None]) -> None:
        self._client = _Client()
        self.confirmations = Confirmations(self._client)
        self.buckets = Buckets(self._client)
        self.up = False
        self.lost = asyncio.Event()
        self.reason = ""
        self._closed = asyncio.Event()
        self._complain = complain
        self._watcher: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether messages can be sent, as far as is known."""
        return self.up and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes of the longest message the server takes, headers included."""
        return self._client.max_payload

    @property
    def advertised(self) -> list[str]:
        """Addresses of the cluster's other servers, ``host:port`` each."""
        return self._client.advertised

    def describe(self) -> dict[str, str | int | bool]:
        """What the log should say of the server."""
        url = self._client.connected_url
        return {
            "server": url.netloc if url else "",
            "clustered": self._client.clustered,
            "max_payload": self._client.max_payload,
        }

    async def open(
        self,
        servers: list[str],
        login: dict[str, str],
        name: str,
        pending: Callable[[int], None],
    ) -> None:
        """Connect to one of the servers; each is tried twice at most.

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
            "reconnect_time_wait": CONNECT_AGAIN_SECONDS,
            "connect_timeout": CONNECT_SECONDS,
            "ping_interval": PING_SECONDS,
            "max_outstanding_pings": 2,
            "pending_size": 0,  # else it would take messages while disconnected and send them later
            "skip_subject_validation": True,  # done by the bus
            **login,
        }
        await self._client.connect(**options)
        self._watcher = asyncio.create_task(self._watch(pending), name="nats-bus-watch")

    async def publish(self, subject: str, body: bytes, unheard: Unheard | None) -> None:
        """Hand a message to the client, which sends it in the event loop's next turn.

        Raises:
            BusUnavailable: Nothing was taken: disconnected, or too much waits.
            EnvelopeTooLarge: The server would close the connection over it.
        """
        client = self._client
        if len(body) > client.max_payload:
            raise EnvelopeTooLarge(len(body), client.max_payload)
        if client.unsent_bytes > MAX_UNSENT_BYTES:
            raise BusUnavailable("the NATS server takes no messages at the moment")
        try:
            reply = "" if unheard is None else client.inbox(subject, unheard)
            await client.publish(subject, body, reply)
        except errors.Error as problem:  # nats-py raises before it takes anything
            raise BusUnavailable(str(problem)) from problem

    def forget(self, subscription: RemoteSubscription) -> None:
        """Tell the server that a subscription has ended."""
        self._client.forget(subscription)

    def fail(self, reason: str) -> None:
        """Have done with this connection: its subscribers are told, its transport is closed."""
        if self.lost.is_set():
            return
        self.reason = reason
        self.up = False
        self.lost.set()
        self.confirmations.stop()
        self._client.abort()

    async def close(self) -> None:
        """End what is left of the client."""
        self.fail("closed")
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            await self._client.close()
            # it may be closing by itself already, in a task of its own
            async with asyncio.timeout(WATCH_SECONDS):
                await self._closed.wait()
        except Exception as problem:  # noqa: BLE001 - its transport is closed; nothing else counts
            _log.debug("nats client did not close well", problem=type(problem).__name__)

    async def drain(self) -> None:
        """Wait until the server has read all that was taken."""
        # nats-py tells nobody when it has handed its bytes to the kernel
        while self._client.pending_data_size and self._client.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if self._client.is_connected:
            await asyncio.shield(self._client.ping())

    async def _watch(self, pending: Callable[[int], None]) -> None:
        while self._client.is_connected and not self.lost.is_set():
            pending(self._client.unsent_bytes)
            await asyncio.sleep(WATCH_SECONDS)
        self.fail(str(self._client.last_error or "connection lost"))

    async def _on_error(self, problem: Exception) -> None:
        denied = _PERMISSION.search(str(problem))
        if denied is None:
            self._complain("bus error", problem)
            return
        self.buckets.denied(denied[2])
        if denied[1] == "publish":
            self._complain("bus refused a message", problem)
        elif not self.confirmations.refuse(denied[2]):
            self._complain("bus took a subscription away", problem)

    async def _on_disconnected(self) -> None:
        self.fail(str(self._client.last_error or "disconnected"))

    async def _on_closed(self) -> None:
        self.fail(str(self._client.last_error or "closed"))
        self._closed.set()

    async def _on_lame_duck(self) -> None:
        _log.info("bus server is about to shut down")

    async def _on_discovered(self) -> None:
        _log.info("bus server told of others", servers=self._client.advertised)
