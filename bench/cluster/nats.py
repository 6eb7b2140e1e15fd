"""A nats-server that tells what each of its clients sends and gets, and can throw one out."""

import json
import socket
import urllib.request
from dataclasses import astuple, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from bench.nats import Nats
from bench.wire import TIMEOUT_SECONDS

_ACCOUNTS: Final = """
accounts {
  ALL: { jetstream: enabled, users: [{ user: all, password: all }] }
  SYS: { users: [{ user: sys, password: sys }] }
}
system_account: SYS
no_auth_user: all
"""


@dataclass(frozen=True)
class Traffic:
    """What went between the server and one client, or all: messages and bytes of their bodies.

    Attributes:
        sent: By the client.
        received: By the client; one message to ten of them is ten.
    """

    sent: int = 0
    received: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def messages(self) -> int:
        """Both ways."""
        return self.sent + self.received


class WatchedNats(Nats):
    """NATS with a user who may have connections closed."""

    def arguments(self) -> list[str]:
        config = self.directory / "nats.conf"
        config.write_text(_ACCOUNTS)
        return [*super().arguments(), "-c", str(config)]

    def all(self) -> Traffic:
        """Of all clients, since it started."""
        return _traffic(self._monitored("varz"))

    def of(self, name: str) -> Traffic:
        """Of all connections that had this name, those that are closed among them."""
        return sum(map(_traffic, self._named(name, "all")), Traffic())

    def bytes_of(self, stream: str) -> float:
        """What a stream keeps for each of its messages."""
        [account] = self._monitored("jsz?streams=1&accounts=1")["account_details"]
        for each in account.get("stream_detail", ()):
            if each["name"] == stream and each["state"]["messages"]:
                return float(each["state"]["bytes"] / each["state"]["messages"])
        return 0.0

    def kick(self, name: str) -> None:
        """Close the connections of this name; their clients may connect again."""
        server = self._monitored("varz")["server_id"]
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port), TIMEOUT_SECONDS) as wire:
            wire.sendall(b'CONNECT {"verbose":false,"user":"sys","pass":"sys"}\r\nSUB done 1\r\n')
            connections = self._named(name, "open")
            for connection in connections:
                body = json.dumps({"cid": connection["cid"]}).encode()
                wire.sendall(
                    b"PUB $SYS.REQ.SERVER.%b.KICK done %d\r\n%b\r\n"
                    % (server.encode(), len(body), body)
                )
            data = b""
            while data.count(b"MSG done") < len(connections):
                data += wire.recv(65536)

    def _named(self, name: str, state: str) -> list[dict[str, Any]]:
        found = self._monitored(f"connz?state={state}&limit=100000")["connections"]
        return [each for each in found if each.get("name") == name]

    def _monitored(self, page: str) -> Any:
        with urllib.request.urlopen(f"{self.monitor}/{page}", timeout=5) as answer:  # noqa: S310 -- always http
            return json.load(answer)


def _traffic(counts: dict[str, int]) -> Traffic:
    return Traffic(counts["in_msgs"], counts["out_msgs"], counts["in_bytes"], counts["out_bytes"])
