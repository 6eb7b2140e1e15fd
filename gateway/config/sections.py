"""Defines every key of the configuration: its type, range, default, unit and meaning.

The reader, the environment's names, ``config/gateway.toml`` and the tables of the documentation are made
from these definitions.
"""

from typing import Annotated, Final, Literal

import msgspec

from gateway.config import syntax
from gateway.config.fields import (
    DAY,
    SECRET,
    SYNTAX,
    YEAR,
    Address,
    Amount,
    Bytes,
    EventName,
    HttpUrl,
    Scope,
    Secret,
    Section,
    checked,
    doc,
    example,
)
from gateway.retention import Retention


class ServerSettings(Section, frozen=True, kw_only=True):
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
        doc('Networks whose X-Forwarded-For is trusted, such as "10.0.0.0/8".'),
    ] = ()


class BusSettings(Section, frozen=True, kw_only=True):
    """What carries messages between replicas."""

    url: Annotated[
        Annotated[str, msgspec.Meta(extra={SYNTAX: syntax.bus_url, SECRET: "userinfo"})],
        doc(
            'NATS servers, such as "nats://user:password@host:4222,nats://other:4222" or "tls://host";'
            ' "memory://" for a single replica, or for the workers of one process.'
        ),
    ] = "memory://"
    prefix: Annotated[
        Annotated[str, checked(syntax.subject_token)],
        doc(
            "First token of every NATS subject; gateways with different ones do not hear each other."
        ),
    ] = "gateway"
    credentials_file: Annotated[str, doc("Path of a NATS .creds file; empty for none.")] = ""
    tls_ca: Annotated[
        str,
        doc(
            "Path of the certificates (PEM) of whoever signed those of the NATS servers;"
            " empty for the authorities of the system."
        ),
    ] = ""
    tls_certificate: Annotated[
        str,
        doc("Path of the certificate chain (PEM) shown to the NATS servers; empty for none."),
    ] = ""
    tls_key: Annotated[str, doc("Path of that certificate's private key (PEM).")] = ""
    server_binary: Annotated[
        str,
        doc(
            "Path of the nats-server that several workers on memory:// share; empty to look for it"
            " on the PATH and beside Python."
        ),
    ] = ""
    store_directory: Annotated[
        str,
        doc(
            "Where that nats-server keeps messages, revoked tokens and when users were last seen;"
            " empty for a temporary directory, which ends with the process."
        ),
    ] = ""


class AuthSettings(Section, frozen=True, kw_only=True):
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


class ApiKeySettings(Section, frozen=True, kw_only=True):
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


class ApiSettings(Section, frozen=True, kw_only=True):
    """The HTTP API on the internal listener."""

    keys: Annotated[
        tuple[ApiKeySettings, ...],
        doc("Keys of the services that call it; without any nobody can."),
    ] = ()


class ChannelSettings(Section, frozen=True, kw_only=True):
    """What clients may do on the topics that match a pattern.

    There may be several; the first that matches a topic holds, and a topic without one cannot be joined.
    """

    pattern: Annotated[
        Annotated[str, checked(syntax.pattern)],
        doc(
            'A topic, a "prefix*", or with placeholders as in "user:{sub}",'
            " which must equal that claim of the token."
        ),
        example("room:*"),
    ]
    join: Annotated[
        Literal["anyone", "authenticated", "token", "upstream"],
        doc(
            "Who may join: with token those whose token's claim topics names the topic,"
            " with upstream those your backend lets in."
        ),
    ] = "authenticated"
    push: Annotated[
        Literal["deny", "broadcast", "upstream"],
        doc("What becomes of a message a client pushes: with upstream your backend answers it."),
    ] = "deny"
    echo: Annotated[bool, doc("Whether the pusher gets its own broadcast.")] = True
    presence: Annotated[
        bool | Literal["count"],
        doc("Whether members see who else is on the topic; with count they see only how many."),
    ] = False
    history: Annotated[
        Retention | None,
        doc(
            "What is kept of each topic, for clients that come back or come new: the last messages,"
            " none older than so many seconds; absent for nothing."
        ),
        example({"messages": 100, "seconds": 300}),
    ] = None
    slow_consumer: Annotated[
        Literal["disconnect", "drop"],
        doc(
            "What happens to a client too slow for a message: it is closed, or it misses the message."
        ),
    ] = "disconnect"
    upstream_url: Annotated[
        HttpUrl,
        doc("The backend of these topics, if it is another than upstream.url."),
    ] = ""


class SessionsSettings(Section, frozen=True, kw_only=True):
    """What counts as a user's session, and how many one user may have on all replicas together."""

    personal_topic: Annotated[
        Annotated[str, checked(syntax.personal_topic)],
        doc("Topic of a user's own messages, made of her id; only she can join it."),
    ] = "user:{sub}"
    max_per_user: Annotated[
        Amount, doc("Sessions of one user; 0 for no limit. A token's max_sessions comes before it.")
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


class HistorySettings(Section, frozen=True, kw_only=True):
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


class PresenceSettings(Section, frozen=True, kw_only=True):
    """Who is on a topic, for channel rules with presence."""

    max_meta_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=65_536)],
        doc("Longest meta of one session, as JSON, beside what the gateway itself puts there."),
    ] = 1024
    gather_milliseconds: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=60_000)],
        doc("Time over which changes of a busy topic are gathered into one presence_diff."),
    ] = 250


class UpstreamSettings(Section, frozen=True, kw_only=True):
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
        doc(
            "Callbacks of one replica under way at a time, of one user a fifth at most; more wait."
        ),
    ] = 100
    max_state_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=2, le=1_048_576)],
        doc("Longest state, as JSON, that the backend may keep with a session."),
    ] = 4096
    events: Annotated[
        tuple[EventName, ...],
        doc("What the backend is asked or told besides the joins and pushes of channel rules."),
    ] = ()


class LimitsSettings(Section, frozen=True, kw_only=True):
    """What clients may use."""

    max_message_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=64 * 2**20)],
        doc("Longest frame a client may send; at most the NATS server's max_payload less 4096."),
    ] = 65_536
    max_header_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=1024, le=2**20)],
        doc("Longest request line and longest header, such as a Cookie, of an HTTP request."),
    ] = 16_384
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
        Amount, doc("Above it, reading from that client is slowed down; 0 for no limit.")
    ] = 0
    connections: Annotated[
        Amount, doc("Clients of one replica; 0 for as many as there are descriptors for.")
    ] = 0
    memory_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=2**50)],
        doc(
            "Memory of the process above which new clients are refused; 0 for four fifths of its"
            " container's limit, if there is one."
        ),
    ] = 0
    joins_in_flight: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10**9)],
        doc("Joins of one replica that may wait at a time; more are refused."),
    ] = 10_000


class CompressionSettings(Section, frozen=True, kw_only=True):
    """Compression of messages on WebSockets (permessage-deflate), for clients that offer it."""

    enabled: Annotated[
        bool,
        doc(
            "Whether it is agreed to; broadcasts are then compressed once for all members, and what is"
            " for one client alone is not."
        ),
    ] = False
    min_bytes: Annotated[Bytes, doc("The shortest message that is compressed.")] = 512


class DrainSettings(Section, frozen=True, kw_only=True):
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


class LogSettings(Section, frozen=True, kw_only=True):
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
        dev: Whether it is development mode: ``?user_id=`` is trusted, the demo page is served.
            Set by ``--dev`` alone, so that no file can open a gateway to the world.
    """

    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
    bus: BusSettings = msgspec.field(default_factory=BusSettings)
    auth: AuthSettings = msgspec.field(default_factory=AuthSettings)
    api: ApiSettings = msgspec.field(default_factory=ApiSettings)
    channels: tuple[ChannelSettings, ...] = ()
    sessions: SessionsSettings = msgspec.field(default_factory=SessionsSettings)
    history: HistorySettings = msgspec.field(default_factory=HistorySettings)
    presence: PresenceSettings = msgspec.field(default_factory=PresenceSettings)
    upstream: UpstreamSettings = msgspec.field(default_factory=UpstreamSettings)
    limits: LimitsSettings = msgspec.field(default_factory=LimitsSettings)
    compression: CompressionSettings = msgspec.field(default_factory=CompressionSettings)
    drain: DrainSettings = msgspec.field(default_factory=DrainSettings)
    log: LogSettings = msgspec.field(default_factory=LogSettings)
    dev: bool = False


CHANNELS: Final = "channels"

SECTIONS: Final[dict[str, type[Section]]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Config)
    if isinstance(field.type, type) and issubclass(field.type, Section)
}
"""The sections that are tables; ``channels`` is a list of tables."""
