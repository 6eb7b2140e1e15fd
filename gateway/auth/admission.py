"""Decides who may connect and who may join which topic, by tokens and channel rules."""

import time

import msgspec
from msgspec.structs import replace

from gateway.auth.claims import Claims
from gateway.auth.refusal import TokenRefusal
from gateway.auth.rules import Rule, Rules
from gateway.auth.tokens import TokenVerifier
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
        asked: Whether the backend is asked about each connect, so that it may name the user.
        verifies: Whether there are keys to verify tokens with; without, they are the backend's to look at.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        rules: Rules,
        *,
        anonymous: bool,
        believed_user: bool,
        asked: bool = False,
        verifies: bool = True,
    ) -> None:
        self._verifier = verifier
        self._rules = rules
        self._anonymous = anonymous
        self._believed_user = believed_user
        self._asked = asked
        self._verifies = verifies or not asked

    async def connect(self, token: str | None, user_id: str | None) -> Claims | None:
        """Who a client is; None for an anonymous one.

        Raises:
            TokenError: When it may not connect. A bad token is refused even where none is needed.
        """
        if token and self._verifies:
            return await self._verifier.verify(token)
        if self._believed_user and user_id:
            if not self._verifier.is_user(user_id):
                raise TokenError(TokenRefusal.CLAIMS)
            # as if a token had been made for it just now
            return Claims(user_id, float("inf"), issued_at=time.time())
        if self._anonymous or self._asked:
            return None
        raise TokenError(TokenRefusal.NO_TOKEN)

    def named(self, user: str | None, claims: Claims | None) -> Claims | None:
        """Who a client is, when the backend was asked and perhaps named a user.

        Raises:
            TokenError: Nobody says who it is, and anonymous clients may not connect; or tokens of the user
                named were called back.
        """
        if user is None:
            if claims is None and not self._anonymous:
                raise TokenError(TokenRefusal.NO_TOKEN)
            return claims
        if not self._verifier.is_user(user):
            raise TokenError(TokenRefusal.UPSTREAM_USER)
        if claims is None:
            return Claims(user, float("inf"), issued_at=time.time())
        return self._verifier.unrevoked(replace(claims, user=user, subject=claims.user))

    async def refresh(self, token: str, known: Claims | None) -> Claims:
        """Newer claims of a socket; a user the backend named at the connect stays.

        Raises:
            TokenError: The token is bad, or another's.
        """
        fresh = await self._verifier.verify(token)
        if known is None or fresh.user != (known.subject or known.user):
            raise TokenError(TokenRefusal.SUBJECT)
        return self._verifier.unrevoked(replace(fresh, user=known.user, subject=known.subject))

    def join(self, topic: str, claims: Claims | None) -> Decision:
        """Whether a socket may join a topic."""
        rule = self._rules.match(topic)
        if rule is None:
            return _UNMATCHED
        if not rule.admits(topic, claims):
            return _UNAUTHORIZED
        return Decision(rule)
