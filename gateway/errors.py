"""Every error the gateway raises on purpose, in one tree.

    GatewayError
     ├── ConfigError             the operator's: what was configured cannot work
     ├── TokenError              the client's: a token that proves nothing, with a metric label
     └── BusError                the carrier's
          ├── BusUnavailable     not connected; certainly nothing was sent
          │    └── NothingKept   connected, to a bus that has no place to keep values
          ├── EnvelopeTooLarge   above what the bus server takes; nothing was sent
          └── SubscriptionRefused  the server denies the subject

Bugs stay plain exceptions. Reasons sent to clients are in :mod:`gateway.protocol.reasons`.
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


class BusError(GatewayError):
    """The bus did not take what it was given."""


class BusUnavailable(BusError):
    """Not connected: certainly nothing was sent."""


class NothingKept(BusUnavailable):
    """The bus has no place to keep values, for this replica at least; trying again is of no use."""


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
