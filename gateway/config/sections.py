"""What can be configured: each key with its type, range, default, unit and meaning.

This is the one place for them. The reader, the environment's names, ``config/gateway.toml`` and the
tables of the documentation are made from it.
"""

from typing import Annotated, Final, Literal

import msgspec

from gateway.config import syntax
from gateway.config.channel import Channel
from gateway.config.fields import (
    DAY,
    SECRET,
    SYNTAX,
    YEAR,
    Address,
    Bytes,
    Count,
    Fact,
    HttpUrl,
    Scope,
    Secret,
    Section,
    checked,
    doc,
    example,
)


class Server(Section, frozen=True, kw_only=True):
    """The two listeners: one for clients, one for your own services and Prometheus."""

    public: Annotated[Address, doc("Where clients connect, as host:port.")] = "0.0.0.0:4000"
    internal: Annotated[
        Address, doc("Where API, metrics and health are served; never to be reached by clients.")
    ] = "127.0.0.1:4001"
    reuse_port: Annotated[
        bool, doc("Whether several replicas on one host may share the public port.")
    ] = False
    replica: Annotated[
        Annotated[str, msgspec.Meta(max_length=128)],
        doc("Name of this replica, unique on the bus; empty for the host's name and a random end."),
    ] = ""
    tls_certificate: Annotated[
        str,
        doc(
            "Path of the public listener's certificate chain (PEM);"
            " empty where TLS ends at the load balancer."
        ),
    ] = ""
    tls_key: Annotated[str, doc("Path of the certificate's private key (PEM).")] = ""
    allowed_origins: Annotated[
        tuple[Annotated[str, checked(syntax.origin)], ...],
        doc(
            'Web pages that may connect, such as "https://app.example.com" or "//*.example.com";'
            ' empty for pages of the same host only, ["*"] for any.'
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[Annotated[str, checked(syntax.network)], ...],
        doc('Networks whose X-Forwarded-For is believed, such as "10.0.0.0/8".'),
    ] = ()


class Bus(Section, frozen=True, kw_only=True):
    """What carries messages between replicas."""

    url: Annotated[
        Annotated[str, msgspec.Meta(extra={SYNTAX: syntax.bus_url, SECRET: "userinfo"})],
        doc(
            'NATS servers, such as "nats://user:password@host:4222,nats://other:4222" or "tls://host";'
            ' "memory://" for a single replica.'
        ),
    ] = "memory://"
    prefix: Annotated[
        Annotated[str, checked(syntax.subject_token)],
        doc(
            "First token of every NATS subject; gateways with different ones do not hear each other."
        ),
    ] = "gateway"
    credentials_file: Annotated[str, doc("Path of a NATS .creds file; empty for none.")] = ""


class Auth(Section, frozen=True, kw_only=True):
    """How clients prove who they are: JSON Web Tokens, signed with a shared secret or a private key."""

    secrets: Annotated[
        tuple[Secret, ...],
        doc(
            "Secrets shared with whoever signs the tokens, of at least 32 bytes:"
            " the first signs, all verify, so that they can be rotated."
        ),
    ] = ()
    jwks_url: Annotated[
        HttpUrl,
        doc(
            "Where the public keys of an identity provider are fetched (RFC 7517); empty for none."
        ),
    ] = ""
    public_keys: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, extra={SECRET: "pem"})], ...],
        doc(
            "Public keys that verify RS256, ES256 and EdDSA, each as PEM text or the path of a PEM file."
        ),
    ] = ()
    audience: Annotated[str, doc("What a token's aud must be or contain; empty for any.")] = ""
    issuer: Annotated[str, doc("What a token's iss must be; empty for any.")] = ""
    leeway_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=3600)],
        doc("How far the clocks of gateway and signer may differ."),
    ] = 10
    max_token_seconds: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10 * YEAR)],
        doc("Longest lifetime of a token, from its iat to its exp."),
    ] = DAY
    allow_anonymous: Annotated[bool, doc("Whether clients without a token may connect.")] = False


class ApiKey(Section, frozen=True, kw_only=True):
    """A key your services call the API with; there may be several."""

    name: Annotated[
        Annotated[str, msgspec.Meta(min_length=1, max_length=128)],
        doc("Who holds it, for the log."),
        example("backend"),
    ]
    key: Annotated[
        Annotated[Secret, checked(syntax.header_value)],
        doc("The key itself: long and random."),
        example("change-me"),
    ]
    scopes: Annotated[
        Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)],
        doc("What it is good for."),
        example(["publish", "read", "manage"]),
    ]


class Api(Section, frozen=True, kw_only=True):
    """The HTTP API on the internal listener."""

    keys: Annotated[
        tuple[ApiKey, ...], doc("Keys of the services that call it; without any nobody can.")
    ] = ()


class Sessions(Section, frozen=True, kw_only=True):
    """What counts as a user's session, and how many one user may have on all replicas together."""

    personal_topic: Annotated[
        Annotated[str, checked(syntax.personal_topic)],
        doc("Topic of a user's own messages, made of her id; only she can join it."),
    ] = "user:{sub}"
    max_per_user: Annotated[
        Count, doc("Sessions of one user; 0 for no limit. A token's max_sessions comes before it.")
    ] = 0
    when_full: Annotated[
        Literal["refuse", "close_oldest"],
        doc("What gives way at the limit: the new session, or the oldest."),
    ] = "refuse"
    same_device: Annotated[
        Literal["keep", "replace"],
        doc("Whether a new session of a device replaces that device's earlier one."),
    ] = "keep"
    offline_after_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=3600)],
        doc("Time without a session after which a user counts as offline."),
    ] = 3
    replica_down_after_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=1, le=3600)],
        doc("Silence after which another replica counts as dead and its sessions are dropped."),
    ] = 10


class History(Section, frozen=True, kw_only=True):
    """Where the messages of channel rules with history are kept.

    On the memory bus that is the process itself; else a JetStream stream, which a start makes, or
    widens where it is too small for the rules.
    """

    replicas: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=5)],
        doc(
            "NATS servers that keep each of: messages, revoked tokens, when users were last seen; the latter"
            " two also where no rule keeps history. An odd number, at most the servers of the cluster."
        ),
    ] = 1
    max_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=2**50)],
        doc("What all topics together may take before the oldest messages go; 0 for no limit."),
    ] = 0
    storage: Annotated[
        Literal["file", "memory"],
        doc("Where the stream is kept; it cannot be changed once the stream is there."),
    ] = "file"


class Presence(Section, frozen=True, kw_only=True):
    """Who is on a topic, for channel rules with presence."""

    max_meta_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=65_536)],
        doc("Longest meta of one session, as JSON, beside what the gateway itself puts there."),
    ] = 1024
    gather_milliseconds: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=60_000)],
        doc("Time over which changes of a busy topic are gathered into one presence_diff."),
    ] = 250


class Upstream(Section, frozen=True, kw_only=True):
    """Your backend, which the gateway asks and tells by HTTP: see docs/backends.md."""

    url: Annotated[
        HttpUrl,
        doc("Where callbacks are sent; empty for none."),
    ] = ""
    secrets: Annotated[
        tuple[Annotated[Secret, checked(syntax.webhook_secret)], ...],
        doc(
            "Secrets that sign callbacks (Standard Webhooks), whsec_ and base64 each:"
            " all of them sign, so that they can be rotated."
        ),
    ] = ()
    timeout_seconds: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=60)],
        doc("How long a callback may take, waiting for its turn included."),
    ] = 5
    max_in_flight: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000)],
        doc("Callbacks of one replica that are under way at a time; more wait."),
    ] = 100
    max_state_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)],
        doc("Longest state, as JSON, that the backend may keep with a session."),
    ] = 4096
    events: Annotated[
        tuple[Fact, ...],
        doc("What the backend is asked or told besides the joins and pushes of channel rules."),
    ] = ()


class Limits(Section, frozen=True, kw_only=True):
    """What clients may use."""

    max_message_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=64 * 2**20)],
        doc("Longest frame a client may send; at most the NATS server's max_payload less 4096."),
    ] = 65_536
    max_channels_per_socket: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000)],
        doc("Topics one client may have joined at a time."),
    ] = 100
    idle_timeout_seconds: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=DAY)],
        doc("Silence after which a client is closed; Phoenix clients send a heartbeat every 30."),
    ] = 90
    outbound_buffer_bytes: Annotated[
        Bytes, doc("What may wait for one client before it counts as too slow.")
    ] = 1_048_576
    outbound_total_bytes: Annotated[
        Bytes, doc("What may wait for all clients together before those with the most are closed.")
    ] = 1_073_741_824
    messages_per_second: Annotated[
        Count, doc("Above it, reading from that client is slowed down; 0 for no limit.")
    ] = 0
    connections: Annotated[Count, doc("Clients of one replica; 0 for no limit.")] = 0
    joins_in_flight: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10**9)],
        doc("Joins of one replica that may wait at a time; more are refused."),
    ] = 10_000


class Drain(Section, frozen=True, kw_only=True):
    """How a replica leaves after SIGTERM; with delay and window it takes five seconds more."""

    delay_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=3600)],
        doc("Time for load balancers to see that the replica is not ready; clients stay."),
    ] = 5
    window_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=3600)],
        doc("Time over which the clients are then closed in even batches."),
    ] = 20
    max_connection_age_seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=YEAR)],
        doc("Age at which a connection is moved, more or less a tenth; 0 for never."),
    ] = 0


class Log(Section, frozen=True, kw_only=True):
    """What the gateway writes about itself, to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], doc("The least that is written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        doc("One JSON object a line, or for the eye; auto is for the eye on a terminal."),
    ] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration.

    Attributes:
        dev: Whether it is a developer's playground: ``?user_id=`` is believed, the demo page is served.
            Set by ``--dev`` alone, so that no file can open a gateway to the world.
    """

    server: Server = msgspec.field(default_factory=Server)
    bus: Bus = msgspec.field(default_factory=Bus)
    auth: Auth = msgspec.field(default_factory=Auth)
    api: Api = msgspec.field(default_factory=Api)
    channels: tuple[Channel, ...] = ()
    sessions: Sessions = msgspec.field(default_factory=Sessions)
    history: History = msgspec.field(default_factory=History)
    presence: Presence = msgspec.field(default_factory=Presence)
    upstream: Upstream = msgspec.field(default_factory=Upstream)
    limits: Limits = msgspec.field(default_factory=Limits)
    drain: Drain = msgspec.field(default_factory=Drain)
    log: Log = msgspec.field(default_factory=Log)
    dev: bool = False


SECTIONS: Final[dict[str, type[Section]]] = {
    "server": Server,
    "bus": Bus,
    "auth": Auth,
    "api": Api,
    "sessions": Sessions,
    "history": History,
    "presence": Presence,
    "upstream": Upstream,
    "limits": Limits,
    "drain": Drain,
    "log": Log,
}
"""The sections that are tables; ``channels`` is a list of tables."""

CHANNELS: Final = "channels"
