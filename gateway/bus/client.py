"""nats-py's client, reduced: messages go straight to subscriptions and requests.

nats-py's own subscriptions cost a task and a queue each, 4.4 KiB, and twice the CPU per message; its own
requests a timer and a decoded header each. Beside :mod:`gateway.bus.nats` and :mod:`gateway.bus.buckets`
the only module that knows nats-py.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from gateway.bus.confirmation import Listening
from gateway.bus.no_responders import NoRespondersInbox
from gateway.bus.requests import Requests


class Transport(TcpTransport):
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
        if (writer := self._open_writer()) is not None:
            await writer.drain()

    def write(self, payload: bytes) -> None:
        if (writer := self._open_writer()) is not None:
            writer.write(payload)

    def writelines(self, payload: Iterable[bytes]) -> None:
        if (writer := self._open_writer()) is not None:
            writer.writelines(payload)

    def _open_writer(self) -> asyncio.StreamWriter | None:
        # uvloop raises for a connection that is gone. That would end nats-py's own clean-up half-way,
        # and leave who subscribes without an answer; its reader notices the loss anyway.
        writer = self._io_writer
        return None if writer is None or writer.transport.is_closing() else writer


class NatsClient(Client):
    """A nats-py client that hands messages straight to subscriptions.

    Args:
        prefix: First token of the subjects it makes for itself.
        refused: Told the words of each ``-ERR``; says whether the connection goes on, as nats-py closes it
            otherwise.

    Attributes:
        advertised: Addresses of other servers the server told of, ``host:port`` each.
        requests: What the server has not answered yet.
        no_responders: What nobody may have listened to.
    """

    def __init__(self, prefix: str, refused: Callable[[str], bool]) -> None:
        super().__init__()
        self._transport = self._tcp = Transport()
        self._refused = refused
        self._listening: dict[int, Listening] = {}
        self.requests = Requests(prefix, time.monotonic)
        self.no_responders = NoRespondersInbox(prefix)
        self.advertised: list[str] = []

    @property
    def works(self) -> bool:
        """Whether it is connected and all of nats-py's tasks go on, whose ends it does not look at itself."""
        tasks = (self._reading_task, self._flusher_task, self._ping_interval_task)
        return self.is_connected and not any(task is None or task.done() for task in tasks)

    @property
    def clustered(self) -> bool:
        """Whether the server names a cluster it belongs to."""
        return bool(self._server_info.get("cluster"))

    @property
    def server(self) -> str:
        """Host and port of the server it reached, connected or not; empty if it reached none."""
        return "" if self._current_server is None else self._current_server.uri.netloc

    @property
    def version(self) -> str:
        """The server's; empty before a connection."""
        return str(self._server_info.get("version", ""))

    @property
    def sends(self) -> bool:
        """Whether it is connected and messages are sent."""
        flusher = self._flusher_task
        return self.is_connected and flusher is not None and not flusher.done()

    @property
    def unsent_bytes(self) -> int:
        """Bytes taken and not yet in the kernel's hands."""
        return self._pending_data_size + self._tcp.unsent_bytes

    def listen(self, subscriptions: Iterable[Listening]) -> None:
        """Send the SUBs at once; they may overtake messages that wait to be sent."""
        lines = []
        for subscription in subscriptions:
            self.forget(subscription)
            self._sid += 1
            subscription.number = self._sid
            self._listening[self._sid] = subscription
            lines.append(f"SUB {subscription.subject}  {self._sid}\r\n")
        if lines:
            self._tcp.write("".join(lines).encode())

    def send(self, subject: str, reply: str, body: bytes, headers: bytes = b"") -> None:
        """Send a message in the event loop's next turn.

        nats-py's ``publish`` does the same as a coroutine, which never waits with a ``pending_size`` of 0,
        and takes headers apart.

        Raises:
            Error: Of nats-py; the message is not sent, not even later.
        """
        waiting = self._flush_queue
        if waiting is None or not self.sends:
            raise errors.ConnectionClosedError
        size = len(headers) + len(body)
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {size}\r\n"
        else:
            head = f"PUB {subject} {reply} {size}\r\n"
        command = b"".join((head.encode(), headers, body, b"\r\n"))
        self._pending.append(command)
        self._pending_data_size += len(command)
        if waiting.empty():
            waiting.put_nowait(asyncio.get_running_loop().create_future())

    def try_send(self, subject: str, body: bytes) -> "asyncio.Future[bool]":
        """Send a message at once; done when the server has taken or denied it, as :meth:`ping` is."""
        self._tcp.write(b"PUB %b  %d\r\n%b\r\n" % (subject.encode(), len(body), body))
        return self.ping()

    def forget(self, subscription: Listening) -> None:
        """Send an UNSUB, if this connection ever heard of the subscription."""
        if self.hears(subscription):
            del self._listening[subscription.number]
            if self.is_connected:
                self._tcp.write(f"UNSUB {subscription.number}\r\n".encode())

    def hears(self, subscription: Listening) -> bool:
        """Whether the server was asked for it on this connection, and has not taken it away."""
        return self._listening.get(subscription.number) is subscription

    def taken(self, number: int) -> Listening | None:
        """The server took a subscription away; which one, unless it is nats-py's own or closed."""
        return self._listening.pop(number, None)

    def denied(self, subject: str) -> None:
        """The server denies a subscription: if it is nats-py's inbox, its next request asks for it anew."""
        if self._resp_sub_prefix is not None and subject == f"{self._resp_sub_prefix.decode()}*":
            self._resp_sub_prefix = None

    def ping(self) -> "asyncio.Future[bool]":
        """Send a PING at once, behind all SUBs and all messages.

        nats-py's ``flush`` does so too, but its SUBs wait for another task, so the PING may overtake
        what it is to confirm. The future must not be cancelled: nats-py's reader ends when it wants to
        set the result of one that was.
        """
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._pending:
            self._tcp.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0
        self._pongs.append(pong)
        self._tcp.write(b"PING\r\n")
        return pong

    def abort(self) -> None:
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
            subscription.receive(subject, headers, data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py gives it in lower case, while subjects differ by case; its parser still holds the line
        line = bytes(self._ps.buf[: self._ps.buf.index(b"\r\n")])
        if not self._refused(line.decode(errors="replace").partition(" ")[2].strip(" '")):
            await super()._process_err(err_msg)
