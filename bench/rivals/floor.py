"""The floor: a loop of ``send()`` of finished frames, without tokens, rules or a protocol.

A POST to ``/PATH`` sends its body, as one text message, to every client whose WebSocket request was for
``/PATH``. What the kernel does not take at once waits and is sent when it does.

    python floor.py PORT
"""

import base64
import contextlib
import hashlib
import select
import socket
import struct
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


def text_frame(payload: bytes) -> bytes:
    """One unmasked text frame of at most 65,535 bytes."""
    length = len(payload)
    header = struct.pack("!BB", 0x81, length)
    if length > 125:
        header = struct.pack("!BBH", 0x81, 126, length)
    return header + payload


class Floor:
    """All connections, and the loop."""

    def __init__(self, port: int) -> None:
        self._epoll = select.epoll()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._requests: dict[int, tuple[socket.socket, bytes]] = {}  # what came of a request
        self._clients: dict[int, socket.socket] = {}
        self._topics: dict[bytes, dict[int, socket.socket]] = {}
        self._waiting: dict[int, bytearray] = {}  # what the kernel did not take

    def run(self) -> None:
        """Serve until killed."""
        while True:
            for descriptor, events in self._epoll.poll(-1, 256):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._requests:
                    self._request(descriptor)
                elif descriptor in self._clients:
                    if events & select.EPOLLOUT:
                        self._go_on(descriptor)
                    if events & ~select.EPOLLOUT:
                        self._read(descriptor)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._requests[connection.fileno()] = (connection, b"")
                self._epoll.register(connection, select.EPOLLIN)

    def _request(self, descriptor: int) -> None:
        connection, before = self._requests[descriptor]
        try:
            data = connection.recv(65_536)
        except OSError:
            data = b""
        if not data:
            del self._requests[descriptor]
            self._epoll.unregister(descriptor)
            connection.close()
            return
        data = before + data
        while descriptor in self._requests:
            head, end, rest = data.partition(b"\r\n\r\n")
            fields = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
            }
            length = int(fields.get(b"content-length", 0))
            if not end or len(rest) < length:
                self._requests[descriptor] = (connection, data)
                return
            path = head.split(b" ", 2)[1]
            data = rest[length:]
            if b"sec-websocket-key" in fields:
                self._upgrade(connection, path, fields[b"sec-websocket-key"])
                return
            if head.startswith(b"POST"):
                self._publish(path, rest[:length])
            connection.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")

    def _upgrade(self, connection: socket.socket, path: bytes, key: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        del self._requests[connection.fileno()]
        self._clients[connection.fileno()] = connection
        self._topics.setdefault(path, {})[connection.fileno()] = connection

    def _publish(self, path: bytes, body: bytes) -> None:
        frame, waiting = text_frame(body), self._waiting
        size = len(frame)
        for descriptor, client in self._topics.get(path, {}).items():
            if waiting and descriptor in waiting:
                waiting[descriptor] += frame
                continue
            try:
                sent = client.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                continue  # it is read in a moment that the client is gone
            if sent < size:
                waiting[descriptor] = bytearray(frame[sent:])
                self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def _go_on(self, descriptor: int) -> None:
        rest = self._waiting[descriptor]
        with contextlib.suppress(BlockingIOError):
            del rest[: self._clients[descriptor].send(rest)]
        if not rest:
            del self._waiting[descriptor]
            self._epoll.modify(descriptor, select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        client = self._clients[descriptor]
        try:
            data = client.recv(4096)
        except OSError:
            data = b""
        if not data:
            for members in self._topics.values():
                members.pop(descriptor, None)
            del self._clients[descriptor]
            self._waiting.pop(descriptor, None)
            self._epoll.unregister(descriptor)
            client.close()
        elif data[0] & 0x0F == 9:  # a ping, which clients send without a payload
            client.send(b"\x8a\x00")


if __name__ == "__main__":
    Floor(int(sys.argv[1])).run()
