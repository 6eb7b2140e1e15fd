"""Where the NATS servers are and how to log in, read from the configuration."""

import random
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from gateway.errors import ConfigError

SCHEMES: Final = ("nats", "tls")

DEFAULT_PORT: Final = 4222

_CREDENTIALS_PARTS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


class Servers:
    """The servers of one configuration.

    User information is taken out of the addresses: it must reach no log, and counts for every server
    of the cluster, those included that are only heard of later.

    Args:
        url: One or more addresses, separated by commas.
        credentials_file: Path of a .creds file, or empty.

    Attributes:
        login: The options of nats-py that authenticate.
        urls: Addresses with their ports, without user information.

    Raises:
        ConfigError: The addresses or the credentials cannot be used.
    """

    def __init__(self, url: str, credentials_file: str) -> None:
        parts = [_split(part.strip()) for part in url.split(",")]
        self.urls = tuple(_address(part) for part in parts)
        self.login = _login(parts)
        self._credentials_file = credentials_file
        self._failures: dict[str, int] = {}  # when a server failed last, counted in failures of all
        if credentials_file:
            self.check_credentials()
            self.login["user_credentials"] = credentials_file

    def with_advertised(self, addresses: list[str]) -> list[str]:
        """The addresses configured, and those a server told of (``host:port`` each)."""
        scheme = urlsplit(self.urls[0]).scheme
        advertised = [f"{scheme}://{address}" for address in addresses]
        return list(dict.fromkeys((*self.urls, *advertised)))

    def in_turn(self, advertised: list[str]) -> list[str]:
        """All that are known, in the order in which to try them.

        Those that failed come last, the one that failed just now behind all: a server that hangs takes
        connections as if nothing were wrong with it. Then those a server told of, which may be one of
        the configured under another name. Apart from that it is left to chance, so that the replicas a
        server loses do not all go to the same other one.

        Args:
            advertised: What a server told of, ``host:port`` each.
        """
        known = self.with_advertised(advertised)
        random.shuffle(known)
        return sorted(
            known, key=lambda url: (self._failures.get(_netloc(url), 0), url not in self.urls)
        )

    def failed(self, address: str) -> None:
        """A server did not do, or no longer; ``host:port``, or empty when none was reached."""
        if address:
            self._failures[address] = max(self._failures.values(), default=0) + 1

    def check_credentials(self) -> None:
        """Look at the .creds file, if there is one; to be done before each use, as files change.

        nats-py looks for the JWT's mark without noticing the end of the file: without this check a
        wrong file would hang the process.

        Raises:
            ConfigError: It cannot be read or is none.
        """
        path = self._credentials_file
        if not path:
            return
        if find_spec("nkeys") is None:
            raise ConfigError(
                "bus.credentials_file needs the package nkeys: install nats-py[nkeys]"
            )
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError(f"bus.credentials_file: {path} cannot be read") from problem
        if not all(part in text for part in _CREDENTIALS_PARTS):
            raise ConfigError(f"bus.credentials_file: {path} is no NATS credentials file")


def _split(url: str) -> SplitResult:
    try:
        part = urlsplit(url)
        _ = part.port  # raises for what is no port
    except ValueError:
        part = SplitResult("", "", "", "", "")
    if part.scheme not in SCHEMES or not part.hostname:
        # the address itself may hold a password
        raise ConfigError("bus.url must be memory:// or addresses like nats://host:4222")
    return part


def _address(part: SplitResult) -> str:
    address = part.netloc.rpartition("@")[2]
    if part.port is None:
        address = f"{address.rstrip(':')}:{DEFAULT_PORT}"
    return f"{part.scheme}://{address}"


def _netloc(url: str) -> str:
    return url.partition("://")[2]


def _login(parts: list[SplitResult]) -> dict[str, str]:
    for part in parts:
        if part.username and part.password is not None:
            return {"user": unquote(part.username), "password": unquote(part.password)}
        if part.username:
            return {"token": unquote(part.username)}
    return {}
