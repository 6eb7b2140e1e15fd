"""The operations on tokens."""

from typing import Annotated, Final

from msgspec import Meta

from gateway.api.operation import BODY_PROBLEMS, KEY_PROBLEMS, Operation, Response
from gateway.api.problem import BUS_UNAVAILABLE, INTERNAL
from gateway.api.tokens import RevokeRequest
from gateway.api.user_types import Disconnected

REVOKE: Final = Operation(
    method="POST",
    path="/v1/tokens/revoke",
    name="revokeTokens",
    tag="Users",
    summary="Refuse a user's tokens, or one token, and close their sockets",
    description="From now on every replica refuses the tokens, those that start later too, and closes "
    "the sockets that connected with them with 1001. `complete` is false when a replica did not answer, "
    "or when NATS could not keep it for replicas that start later: repeat it then. On 503 this replica "
    "alone has carried it out.",
    scope="manage",
    body=Annotated[
        RevokeRequest,
        Meta(extra_json_schema={"oneOf": [{"required": ["user"]}, {"required": ["jti"]}]}),
    ],
    example='{"user": "42"}',
    answers={
        200: Response(
            "How many sockets were really closed.",
            Disconnected,
            example='{"disconnected": 2, "complete": true, "missing_replicas": []}',
        )
    },
    problems=(*KEY_PROBLEMS, *BODY_PROBLEMS, INTERNAL, BUS_UNAVAILABLE),
)

TOKEN_OPERATIONS: Final = (REVOKE,)
