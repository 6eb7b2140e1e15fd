"""Who may connect and who may join: tokens and rules put together."""

import time

import msgspec

from gateway.auth.rules import Rule, Rules
from gateway.auth.tokens import Claims, TokenVerifier
from gateway.errors import TokenError
from gateway.protocol.reasons import Reason


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The answer to a join: the topic's rule, or why not."""

    rule: Rule | None
    refused: Reason | None = None


_UNMATCHED = Decision(None, Reason.UNMATCHED_TOPIC)
_UNAUTHORIZED = Decision(None, Reason.UNAUTHORIZED)


class Admission:
    """Decides on connections and joins.

    Args:
        anonymous: Whether a client without a token may connect.
        believed_user: Whether ``?user_id=`` is taken for the user, without proof: for development.
    """

    def __init__(
        self, verifier: TokenVerifier, rules: Rules, *, anonymous: bool, believed_user: bool
    ) -> None:
        self._verifier = verifier
        self._rules = rules
        self._anonymous = anonymous
        self._believed_user = believed_user

    async def connect(self, token: str | None, user_id: str | None) -> Claims | None:
        """Who a client is; None for an anonymous one.

        Raises:
            TokenError: When it may not connect. A bad token is refused even where none is needed.
        """
        if token:
            return await self._verifier.verify(token)
        if self._believed_user and user_id:
            if not self._verifier.is_user(user_id):
                raise TokenError("token_claims")
            # as if a token had been made for it just now
            return Claims(user_id, float("inf"), issued_at=time.time())
        if self._anonymous:
            return None
        raise TokenError("no_token")

    def join(self, topic: str, claims: Claims | None) -> Decision:
        """Whether a socket may join a topic."""
        rule = self._rules.match(topic)
        if rule is None:
            return _UNMATCHED
        if not rule.admits(topic, claims):
            return _UNAUTHORIZED
        return Decision(rule)
