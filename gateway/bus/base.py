"""The interface of a bus, which carries messages between replicas.

What every bus promises:

- A message is delivered to each subscription of its subject, the publisher's own among them, at most
  once.
- Messages one bus published to one subject arrive in the order of their publishing.
- Once ``subscribe`` returned, everything published afterwards by anybody is delivered, as long as the
  bus stays connected.
- What was refused with an error is never delivered, not even later.
- Handlers are called on the event loop, one after another, never from inside ``publish``. One that
  raises is logged and counted, and harms no other.

What no bus promises: that a message taken while the connection broke arrives.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from gateway.bus.stream_position import StreamPosition

Handler = Callable[[bytes, StreamPosition | None], None]
"""Called with each message's body, and its position in the history if it is kept there; must not wait."""

NoResponders: TypeAlias = asyncio.Future[None]
"""Done when a message met no subscriber."""

Listener = Callable[[bool], None]
"""Called with whether the bus is connected, each time that changes."""


FLUSH_SECONDS: Final = 0.1


class Subscription(Protocol):
    """One handler's interest in one subject."""

    @property
    def refusal(self) -> str:
        """The server's words while it delivers nothing and is asked again and again to; else empty."""

    def close(self) -> None:
        """Deliver nothing more, from this moment on; the server learns it soon after. Idempotent."""


class Bus(Protocol):
    """One replica's connection to all the others.

    A subject is non-empty tokens joined by dots, without blanks and wildcards;
    :class:`gateway.bus.subjects.Subjects` makes such. Anything else is a ``ValueError``.
    """

    @property
    def connected(self) -> bool:
        """Whether messages are taken and delivered: the server answers, and what replicas need stands."""

    @property
    def doubt(self) -> str | None:
        """Why this replica cannot do its work on the bus, as readiness shows it; None when it can."""

    @property
    def max_envelope_bytes(self) -> int:
        """The longest body :meth:`publish` takes; the server may change it at a reconnect."""

    async def start(self) -> asyncio.Task[None] | None:
        """Begin to connect, and return at once; a server that is away is tried for ever.

        Returns:
            What keeps it connected until :meth:`close`, to be watched; None where nothing has to.
        """

    async def close(self) -> None:
        """Send what was taken, for a few seconds at most, then leave for good. Idempotent."""

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Have every message published after this returns delivered to the handler.

        A subscription stands through any number of reconnects; one that the server takes away is asked for
        again until it is back or closed. When this raises or is cancelled there is none.

        Raises:
            BusUnavailable: Not connected, or not for long enough; the caller may try again when a
                listener says so.
            SubscriptionRefused: The server denies the subject.
        """

    def subscribe_now(self, subject: str, handler: Handler) -> Subscription | None:
        """:meth:`subscribe` where that waits for nobody; None where a server has to confirm it."""

    def deserted(self, subject: str) -> bool:
        """Whether certainly nobody is subscribed to a subject; False where only a server knows."""

    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None:
        """Hand a message to the server, which gets it from the event loop's next turn on.

        Args:
            no_responders: Done soon afterwards if nobody at all is subscribed to the subject, this bus
                included; never when somebody is, nor when the connection breaks. To be cancelled by whoever
                does not wait for it any more: the bus remembers the message until then.

        Raises:
            BusUnavailable: Not connected, or too much is waiting for a server that takes nothing; or
                it denied the subject before, and not yet allowed it again.
            EnvelopeTooLarge: The body is above :attr:`max_envelope_bytes`.
        """

    async def flush(self) -> None:
        """Wait until the server has taken all that was published before, and told what met no subscriber.

        Not longer than :data:`FLUSH_SECONDS`, if the server does not say so.

        Raises:
            BusUnavailable: Not connected.
        """

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        """Keep a value where it outlives this process, if the bus has such a place.

        Args:
            bucket: Letters, digits, ``_`` and ``-``.
            key: The same, and ``=``.
            keep_seconds: How long after its last writing; the same for all values of a bucket. One
                that somebody else made keeps its values as it was told to.

        Raises:
            NothingKept: There is no such place.
            BusUnavailable: It may not be kept.
        """

    async def get(self, bucket: str, key: str) -> bytes | None:
        """A value that was kept; None when there is none.

        Raises:
            NothingKept: There is no place for values.
            BusUnavailable: Nobody can say.
        """

    async def entries(self, bucket: str) -> dict[str, bytes]:
        """All that a bucket keeps, by key: every value whose :meth:`put` returned before this began.

        Raises:
            NothingKept: There is no place for values.
            BusUnavailable: Nobody can say, or not for certain.
        """

    async def server_time(self) -> float | None:
        """The server's clock now, in Unix seconds; None where there is none, or it does not say.

        Raises:
            BusError: There is no answer.
        """

    def listen(self, listener: Listener) -> None:
        """Tell the listener of every change from now on.

        True comes after all subscriptions were asked for anew and answered by the server, False at every
        loss. When a single subscription is back that the server had taken away, both come at once: what was
        published meanwhile was not heard.
        """


class BusConfig(Protocol):
    """The part of the configuration a bus is opened from.

    Attributes:
        url: ``memory://``, or NATS servers separated by commas: ``nats://host:4222,tls://host``. User
            and password, or a token, stand before an ``@`` and count for all of them.
        prefix: First token of every subject, those of answers included.
        credentials_file: Path of a NATS .creds file, or empty.
        tls_ca: Path of the certificates (PEM) that vouch for the servers', or empty for the system's.
        tls_certificate: Path of the certificate (PEM) shown to the servers, or empty for none.
        tls_key: Path of its private key.
    """

    @property
    def url(self) -> str: ...

    @property
    def prefix(self) -> str: ...

    @property
    def credentials_file(self) -> str: ...

    @property
    def tls_ca(self) -> str: ...

    @property
    def tls_certificate(self) -> str: ...

    @property
    def tls_key(self) -> str: ...
