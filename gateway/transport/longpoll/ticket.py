"""The token of a long-poll session: its replica, its secret, and how many answers have arrived.

A client keeps the token of the last answer it got and shows it with the next request
(``assets/js/phoenix/longpoll.js``), so the token is also the receipt for that answer.
"""

import base64
import hashlib
import re
import secrets
from typing import Final, Self

import msgspec

_FORM: Final = re.compile(r"lp\.([\w-]{11})\.([\w-]{22})\.(0|[1-9]\d{0,15})", re.ASCII)


def home(replica: str) -> str:
    """A replica's name as tickets have it: its id may tell more of a cluster than clients should know."""
    digest = hashlib.blake2s(replica.encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def new_secret() -> str:
    """What nobody knows of a session but its client: 128 random bits."""
    return secrets.token_urlsafe(16)


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """A token, taken apart.

    Attributes:
        home: Of the replica that has the session, see :func:`home`.
        secret: Of the session.
        received: How many answers with messages its client has got.
    """

    home: str
    secret: str
    received: int

    @classmethod
    def parse(cls, token: str) -> Self | None:
        """The ticket in a token; None where the token is anything else."""
        match = _FORM.fullmatch(token)
        return None if match is None else cls(match[1], match[2], int(match[3]))

    def __str__(self) -> str:
        return f"lp.{self.home}.{self.secret}.{self.received}"

    def after(self, received: int) -> Self:
        """The same session, so much of which has arrived."""
        return msgspec.structs.replace(self, received=received)
