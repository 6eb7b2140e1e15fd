"""Every error the gateway raises on purpose, in one tree.

    GatewayError
     ├── ConfigError             the operator's: what was configured cannot work
     ├── TokenError              the client's: a token that proves nothing, with a metric label
     ├── FetchError              the identity provider's: no key set came from its address
     ├── TooManyTails            the operator's: so many look on already
     ├── BusError                the carrier's
     │    ├── BusUnavailable     not connected; certainly nothing was sent
     │    │    ├── NothingKept   connected, to a bus that has no place to keep values
     │    │    └── HistoryUnavailable  no history to be had; certainly nothing was stored
     │    ├── EnvelopeTooLarge   above what the bus server takes; nothing was sent
     │    ├── OutcomeUnknown     sent, and not answered: it may have been done
     │    └── SubscriptionRefused  the server denies the subject; its own words
     └── UpstreamError           the backend's
          ├── UpstreamRefused    it said no, in its own words
          ├── UpstreamTimeout    no answer in time; it may have acted all the same
          └── UpstreamUnavailable  no answer that can be used, with a metric label

Bugs stay plain exceptions. Reasons sent to clients are in :mod:`gateway.protocol.reasons`.
"""

from typing import Literal, TypeAlias

HistoryProblem: TypeAlias = Literal["unavailable", "no_jetstream", "server_too_old", "stream_unfit"]
"""
Why there is no history: the server does not answer or refuses for now; it has no JetStream, or none for
this user; its release lacks what is needed; the stream of that name is sealed, somebody else's, or does not
become as it has to be.
"""


class GatewayError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(GatewayError):
    """The configuration cannot work.

    Attributes:
        problems: One line each, naming the key, the value and what is allowed.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TokenError(GatewayError):
    """A token that does not prove who its bearer is.

    Attributes:
        reason: Stable label for logs and metrics; never a part of the token.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FetchError(GatewayError):
    """An address did not answer with what was asked of it; the text holds nothing of address or answer."""


class TooManyTails(GatewayError):
    """As many tails are open on this replica as may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} tails are open on this replica, which is as many as may be")


class BusError(GatewayError):
    """The bus did not take what it was given."""


class BusUnavailable(BusError):
    """Not connected: certainly nothing was sent."""


class NothingKept(BusUnavailable):
    """The bus has no place to keep values, for this replica at least; trying again is of no use."""


class HistoryUnavailable(BusUnavailable):
    """The history cannot be written or read: certainly nothing was stored.

    Attributes:
        reason: Stable label, as readiness shows it.
        code: JetStream's number for what is wrong (``err_code``); 0 where it did not say.
    """

    def __init__(self, reason: HistoryProblem, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.reason: HistoryProblem = reason
        self.code = code


class OutcomeUnknown(BusError):
    """Something was sent and its answer did not come: it may have been done, and may still be."""


class EnvelopeTooLarge(BusError):
    """A message above what the bus server accepts; nothing was sent.

    Attributes:
        size: Bytes of body and headers.
        limit: The server's ``max_payload`` in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes exceed the bus limit of {limit}")
        self.size = size
        self.limit = limit


class SubscriptionRefused(BusError):
    """The bus server denies a subscription to this replica (NATS permissions)."""


class UpstreamError(GatewayError):
    """A callback did not succeed."""


class UpstreamRefused(UpstreamError):
    """The backend said no.

    Attributes:
        status: The HTTP status, 400 to 499.
        body: The JSON object it sent, for the client; ``{}`` where it sent none. Not in the text.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body


class UpstreamTimeout(UpstreamError):
    """No answer in time; the backend may have acted on the callback all the same."""


class UpstreamUnavailable(UpstreamError):
    """No answer that can be used.

    Attributes:
        reason: Stable label: ``unreachable``, ``answer`` (of another shape than agreed),
            ``breaker_open``, ``busy``, or the HTTP status, such as ``503``.
        detail: What is wrong with it, quoting nothing of it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
