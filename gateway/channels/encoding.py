"""How messages are encoded for sockets: by protocol version, with what the transport puts around each."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.hub.broadcast import Broadcast
from gateway.protocol.messages import NULL, Outgoing
from gateway.protocol.serializer import Serializer
from gateway.protocol.v1 import V1
from gateway.protocol.v2 import V2


class Carrier(NamedTuple):
    """What a transport puts around messages.

    Attributes:
        name: Of the transport, as sessions and metrics have it.
        text: Around JSON.
        binary: Around anything else; None where the transport carries text alone.
        farewell: What tells the client that the gateway ends its socket, made of code and reason.
        compress: Makes a broadcast smaller, once it is put in its form; None where clients cannot read that.
    """

    name: str
    text: Callable[[bytes], bytes]
    binary: Callable[[bytes], bytes] | None
    farewell: Callable[[int, str], bytes]
    compress: Callable[[bytes], bytes] | None = None


class SocketEncoding:
    """A protocol version on a transport: one object for all sockets that speak it.

    Attributes:
        positions: Whether broadcasts come with their position.
        with_positions: The same form, with them.
    """

    def __init__(
        self, serializer: Serializer, version: str, carrier: Carrier, *, positions: bool = False
    ) -> None:
        self.serializer = serializer
        self.version = version
        self.carrier = carrier
        self.positions = positions
        self.with_positions: SocketEncoding = (
            self if positions else SocketEncoding(serializer, version, carrier, positions=True)
        )

    def outgoing(self, message: Outgoing) -> bytes:
        """One message for one client."""
        return self.carrier.text(self.serializer.encode(message))

    def broadcast(self, message: Broadcast, *, shared: bool = True) -> bytes | None:
        """One message for many clients; None for binary data where there is no form for it.

        Args:
            shared: Whether many get these bytes: only then it pays to compress them.
        """
        carrier, serializer = self.carrier, self.serializer
        if not message.binary:
            ref = (message.position or NULL) if self.positions else NULL
            payload = serializer.broadcast(message.topic, message.event, message.payload, ref)
            data = carrier.text(payload)
        else:
            binary = serializer.broadcast_binary(message.topic, message.event, message.payload)
            if binary is None or carrier.binary is None:
                return None
            data = carrier.binary(binary)
        return carrier.compress(data) if carrier.compress is not None and shared else data


Encodings = dict[str, SocketEncoding]
"""By major protocol version."""


def encodings(carrier: Carrier) -> Encodings:
    """All forms on one transport."""
    return {
        "1": SocketEncoding(V1(), "1.0.0", carrier),
        "2": SocketEncoding(V2(), "2.0.0", carrier),
    }
