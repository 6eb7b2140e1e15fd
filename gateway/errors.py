"""Every error the gateway raises on purpose, in one tree.

    GatewayError
     ├── ConfigError             the operator's: what was configured cannot work
     ├── TokenError              the client's: a token that proves nothing, with a metric label
     └── BusError                the carrier's
          ├── BusUnavailable     not connected; certainly nothing was sent
          │    └── HistoryUnavailable  no history to be had; certainly nothing was stored
          ├── EnvelopeTooLarge   above what the bus server takes; nothing was sent
          ├── OutcomeUnknown     sent, and not answered: it may have been done
          └── SubscriptionRefused  the server denies the subject

Bugs stay plain exceptions. Reasons sent to clients are in :mod:`gateway.protocol.reasons`.
"""

from typing import Literal, TypeAlias

HistoryProblem: TypeAlias = Literal["unavailable", "no_jetstream", "server_too_old"]
"""
Why there is no history: the server does not answer or refuses for now; it has no JetStream, or none for
this user; its release lacks what is needed.
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


class HistoryUnavailable(BusUnavailable):
    """The history cannot be written or read: certainly nothing was stored.

    Attributes:
        reason: Stable label, as readiness shows it: ``unavailable``, ``no_jetstream`` or
            ``server_too_old``.
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
