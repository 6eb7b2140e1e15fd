"""The clients of the matrix: what drives each, and what is known of it beforehand."""

from dataclasses import dataclass, field
from pathlib import Path

DRIVERS = Path(__file__).parent / "drivers"

NO_REJOIN = "does not connect again by itself"
NO_BYTES = "has no binary messages"
NO_REF = "shows an application no ref, and so no position"
BACK = ("killed", "drained", "resume")
NO_RENEWAL = "takes its parameters once: a new token needs a new socket"


@dataclass(frozen=True)
class Client:
    """One client in one version of the protocol.

    Attributes:
        name: As the page calls it.
        language: What its applications are written in.
        registry: Where it is published.
        version: The one that is played, as its driver's manifest has it.
        wire: Version of the protocol.
        driver: Arguments of the driver, after the toolchain's own.
        beats_ms: The shortest heartbeat its application may choose, in milliseconds; or the one it has.
        prefix: What all its topics begin with.
        unordered: It calls back for messages in no order.
        events: It passes presence on as events, for the application to merge.
        cannot: Columns it has not, each with the reason.
        quirks: What its user should know.
    """

    name: str
    language: str
    registry: str
    version: str
    wire: int
    driver: tuple[str, ...]
    beats_ms: int = 2000
    prefix: str = ""
    unordered: bool = False
    events: bool = False
    cannot: dict[str, str] = field(default_factory=dict)
    quirks: tuple[str, ...] = ()

    @property
    def toolchain(self) -> str:
        """The folder of its driver."""
        return {"JavaScript": "node", "Kotlin": "java"}.get(self.language, self.language.lower())

    @property
    def slug(self) -> str:
        """Its name, for topics and files."""
        return (
            self.name.replace(",", "")
            .replace(" ", "-")
            .replace("/", "-")
            .replace("@", "")
            .replace(".", "-")
        )


THROWS = "bytes throw in its callback; in Node its socket hears nothing more after that"


def _phoenix(name: str, version: str, wire: int, package: str, **cannot: str) -> Client:
    """One of those with the interface of phoenix.js."""
    cannot |= {"bytes": NO_BYTES} if wire == 1 else {}
    cannot |= {"renewed": NO_RENEWAL} if version < "1.4" else {}
    arguments = ("driver.mjs", package, str(wire))
    quirks = (THROWS,) if wire == 2 and "bytes" in cannot else ()
    return Client(name, "JavaScript", "npm", version, wire, arguments, cannot=cannot, quirks=quirks)


CLIENTS = (
    _phoenix("phoenix 1.8", "1.8.16", 2, "phoenix-1.8"),
    _phoenix("phoenix 1.8, version 1", "1.8.16", 1, "phoenix-1.8"),
    _phoenix("phoenix 1.7", "1.7.23", 2, "phoenix-1.7"),
    _phoenix("phoenix 1.6", "1.6.16", 2, "phoenix-1.6"),
    _phoenix("phoenix 1.5", "1.5.14", 2, "phoenix-1.5"),
    _phoenix("phoenix 1.4", "1.4.17", 2, "phoenix-1.4", bytes="sends `{}` instead"),
    _phoenix("phoenix 1.3", "1.3.5", 2, "phoenix-1.3", bytes=NO_BYTES),
    _phoenix("phoenix-socket", "1.2.3", 1, "phoenix-socket"),
    _phoenix("phoenix-channels", "1.0.0", 1, "phoenix-channels"),
    *(
        Client(
            f"@supabase/realtime-js, version {wire}",
            "JavaScript",
            "npm",
            "2.119.1",
            wire,
            ("realtime.mjs", str(wire)),
            prefix="realtime:",
            cannot={"bytes": NO_BYTES, "renewed": NO_RENEWAL, "resume": NO_REF} | pushes,
            quirks=("its topics begin with `realtime:`", *([THROWS] if wire == 2 else [])),
        )
        for wire, pushes in (
            (2, {"push": "pushes in binary frames of Supabase's own, which nobody else reads"}),
            (1, {}),
        )
    ),
    Client(
        "phxsocket",
        "Python",
        "PyPI",
        "0.1.5",
        1,
        ("phxsocket_driver",),
        events=True,
        cannot={"bytes": NO_BYTES, "renewed": NO_RENEWAL} | dict.fromkeys(BACK, NO_REJOIN),
        quirks=(
            "its refs are numbers and begin with 0",
            "the end of a connection is told by `on_close`, without a code",
        ),
    ),
    Client(
        "realtime",
        "Python",
        "PyPI",
        "2.34.1",
        1,
        ("realtime_driver",),
        beats_ms=15_000,
        prefix="realtime:",
        cannot={"bytes": NO_BYTES, "resume": NO_REF},
        quirks=(
            "its topics begin with `realtime:`",
            'hears `broadcast` only, whose payload has to be `{"type", "event", "payload"}`',
            "tries to connect five times in 15 seconds; a refused token shows only then",
            "drops events that it does not know (read)",
        ),
    ),
    Client(
        "phoenix-channels-python-client, version 1",
        "Python",
        "PyPI",
        "0.4.1",
        1,
        ("phoenix_channels_driver", "1"),
        events=True,
        cannot={"push": "only listens", "bytes": NO_BYTES, "renewed": NO_RENEWAL}
        | {"refreshed": "only listens", "resume": "joins without parameters"},
        quirks=(
            "in version 2, its default, it drops all broadcasts, as they have no `join_ref` (read)",
            "waits long after a connection of less than 5 seconds; here that was turned off",
        ),
    ),
    Client(
        "JavaPhoenixClient",
        "Kotlin",
        "Maven",
        "1.3.1",
        2,
        (),
        cannot={"bytes": NO_BYTES},
        quirks=(
            "takes JSON apart at its commas: topics and events must have none, nor quotes (read)",
            'its JSON leaves out `null`: a first join gives `{"last": 1}` for `resume`',
        ),
    ),
    Client(
        "phx",
        "Go",
        "Go modules, github.com/nshafer/phx",
        "0.2.0",
        2,
        (),
        unordered=True,
        events=True,
        cannot={
            "bytes": NO_BYTES,
            "renewed": NO_RENEWAL,
            "resume": "drops what has a ref that is no number",
        },
        quirks=(
            "calls back for each message in a goroutine of its own: the order is lost",
            "bytes end its connection; it comes back by itself",
            "join parameters are strings",
        ),
    ),
    Client(
        "phoenix_channels_client",
        "Rust",
        "crates.io",
        "0.1.2",
        2,
        ("phoenix_channels_client",),
        beats_ms=30_000,
        cannot={
            "presence": "listens once it has joined, and may miss what comes at once, as `presence_state`",
            "bytes": "pushes none",
            "renewed": NO_RENEWAL,
        }
        | dict.fromkeys(BACK, NO_REJOIN),
        quirks=(
            "shows no end of a connection, but by what is sent then",
            "its heartbeats are 30 seconds apart, and cannot be set",
        ),
    ),
    Client(
        "phoenix-chan",
        "Rust",
        "crates.io",
        "0.4.6",
        2,
        ("phoenix-chan",),
        events=True,
        cannot={"bytes": NO_BYTES, "renewed": NO_RENEWAL} | dict.fromkeys(BACK, NO_REJOIN),
        quirks=(
            "sends and receives frames: refs, joins and the end of a topic are the application's",
            "`recv` returns an error for bytes; the next call goes on",
        ),
    ),
)
