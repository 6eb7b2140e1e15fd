"""Channel rules: what clients may do on the topics that match a pattern."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from gateway.auth.claims import Claims
from gateway.protocol.reserved import MAX_NAME_BYTES
from gateway.retention import Retention

JoinMode: TypeAlias = Literal["anyone", "authenticated", "token", "upstream"]
PushMode: TypeAlias = Literal["deny", "broadcast", "upstream"]
SlowConsumer: TypeAlias = Literal["disconnect", "drop"]
PresenceMode: TypeAlias = bool | Literal["count"]

_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MATCH_CACHE: Final = 2048  # busy topics are matched over and over, those that are gone never


class ChannelPolicy(Protocol):
    """One entry of ``[[channels]]``."""

    @property
    def pattern(self) -> str: ...
    @property
    def join(self) -> JoinMode: ...
    @property
    def push(self) -> PushMode: ...
    @property
    def echo(self) -> bool: ...
    @property
    def presence(self) -> PresenceMode: ...
    @property
    def history(self) -> Retention | None: ...
    @property
    def slow_consumer(self) -> SlowConsumer: ...
    @property
    def upstream_url(self) -> str: ...


class PersonalTopic(msgspec.Struct, frozen=True):
    """The built-in policy of personal topics: only that user, who hears and does not speak.

    Attributes:
        pattern: ``sessions.personal_topic``: one placeholder, ``{sub}``.
    """

    pattern: str
    join: JoinMode = "authenticated"
    push: PushMode = "deny"
    echo: bool = True
    presence: PresenceMode = False
    history: Retention | None = None
    slow_consumer: SlowConsumer = "disconnect"
    upstream_url: str = ""

    @property
    def max_user_bytes(self) -> int:
        """Longest ``sub`` in UTF-8 whose topic is a topic."""
        return MAX_NAME_BYTES - len(self.of("").encode())

    def of(self, user: str) -> str:
        """A user's own topic."""
        return self.pattern.replace("{sub}", user)


class Rule(msgspec.Struct, frozen=True):
    """A channel rule; what is not explained here is a key of ``[[channels]]``.

    Attributes:
        pattern: Exact, ``prefix*``, or with placeholders such as ``user:{sub}``.
        matcher: The pattern compiled; its groups are the placeholders.
        claims: Names of the placeholders, in order.
    """

    pattern: str
    matcher: re.Pattern[str]
    claims: tuple[str, ...]
    join: JoinMode
    push: PushMode
    echo: bool
    presence: PresenceMode
    history: Retention | None
    slow_consumer: SlowConsumer
    upstream_url: str

    def admits(self, topic: str, claims: Claims | None) -> bool:
        """Whether a socket with these claims may join a topic this rule matches, or ask a backend to.

        Args:
            topic: A topic that :meth:`Rules.match` gave this rule for.
            claims: Claims of the socket's token; None when it is anonymous.
        """
        if claims is None:
            return self.join in ("anyone", "upstream") and not self.claims
        if self.join == "token" and not claims.admits_topic(topic):
            return False
        return not self.claims or all(
            claims.get(name) == value for name, value in self.needed(topic)
        )

    def needed(self, topic: str) -> list[tuple[str, str]]:
        """What a token's claims must say for a topic that this rule matches, each name with its value."""
        match = self.matcher.fullmatch(topic)
        return [] if match is None else list(zip(self.claims, match.groups(), strict=True))


class Rules:
    """All rules in order; the first whose pattern matches a topic is the topic's rule."""

    def __init__(self, channels: Iterable[ChannelPolicy]) -> None:
        self._rules = [_compile(channel) for channel in channels]
        self.match = lru_cache(_MATCH_CACHE)(self._match)

    def history(self, topic: str) -> Retention | None:
        """How much of a topic's past is kept; None for nothing, or where no rule matches."""
        rule = self.match(topic)
        return None if rule is None else rule.history

    @property
    def all_history(self) -> list[Retention]:
        """What the rules keep, those that keep anything."""
        return [rule.history for rule in self._rules if rule.history is not None]

    @property
    def claims(self) -> frozenset[str]:
        """Names of all claims that patterns ask for."""
        return frozenset(name for rule in self._rules for name in rule.claims)

    def _match(self, topic: str) -> Rule | None:
        return next((rule for rule in self._rules if rule.matcher.fullmatch(topic)), None)


def _compile(channel: ChannelPolicy) -> Rule:
    pattern = channel.pattern
    body, star = (pattern[:-1], True) if pattern.endswith("*") else (pattern, False)
    # Literal text and placeholder names take turns. A value holds no ":" but in last place, so that
    # `user:{sub}:{device}` cannot be read in two ways.
    pieces = _PLACEHOLDER.split(body)
    expression = ""
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            expression += re.escape(piece)
        else:
            last = index == len(pieces) - 2 and not pieces[-1] and not star
            expression += "(.+)" if last else "([^:]+)"
    return Rule(
        pattern=pattern,
        matcher=re.compile(expression + (".*" if star else ""), re.DOTALL),
        claims=tuple(pieces[1::2]),
        join=channel.join,
        push=channel.push,
        echo=channel.echo,
        presence=channel.presence,
        history=channel.history,
        slow_consumer=channel.slow_consumer,
        upstream_url=channel.upstream_url,
    )
