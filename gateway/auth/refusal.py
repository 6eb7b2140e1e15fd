"""The reasons for which a token is refused."""

from enum import StrEnum


class TokenRefusal(StrEnum):
    """Stable labels for log and metric; ``docs/authentication.md`` says what to do about each."""

    NO_TOKEN = "no_token"  # noqa: S105 -- a label, like all that follow
    NO_KEYS = "no_keys"
    TOO_LONG = "token_too_long"
    MALFORMED = "token_malformed"
    ALGORITHM = "token_algorithm"
    KEY = "token_key"
    KEYS_UNAVAILABLE = "keys_unavailable"
    SIGNATURE = "token_signature"
    CLAIMS = "token_claims"
    NOT_YET_VALID = "token_not_yet_valid"
    EXPIRED = "token_expired"
    ISSUER = "token_issuer"
    AUDIENCE = "token_audience"
    LIFETIME = "token_lifetime"
    REVOKED = "token_revoked"
    SUBJECT = "token_subject"
    UPSTREAM_USER = "upstream_user"
