"""Where the NATS servers are and how to log in, read from the configuration."""

import random
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from gateway.bus.base import BusConfig
from gateway.errors import ConfigError

SCHEMES: Final = ("nats", "tls")

DEFAULT_PORT: Final = 4222

_CREDENTIALS_PARTS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


class Servers:
    """The servers of one configuration.

    User information is taken out of the addresses: it must reach no log, and counts for every server
    of the cluster, those included that are only heard of later.

    Attributes:
        urls: Addresses with their ports, without user information.

    Raises:
        ConfigError: The addresses, the credentials or the certificates cannot be used.
    """

    def __init__(self, config: BusConfig) -> None:
        parts = [_split(part.strip()) for part in config.url.split(",")]
        self.urls = tuple(_address(part) for part in parts)
        self._user = _login(parts)
        self._config = config
        self._failures: dict[str, int] = {}  # when a server failed last, counted in failures of all
        self.login()

    def login(self) -> dict[str, Any]:
        """The options of nats-py that authenticate, read anew for each connection, as files change.

        Raises:
            ConfigError: The credentials or the certificates cannot be used.
        """
        options: dict[str, Any] = dict(self._user)
        if self._config.credentials_file:
            _check_credentials(self._config.credentials_file)
            options["user_credentials"] = self._config.credentials_file
        if self._config.tls_ca or self._config.tls_certificate:
            options["tls"] = _tls_context(self._config)
        return options

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


def _check_credentials(path: str) -> None:
    """Look at a .creds file.

    nats-py looks for the JWT's mark without noticing the end of the file: without this check a
    wrong file would hang the process.

    Raises:
        ConfigError: It cannot be read or is none.
    """
    if find_spec("nkeys") is None:
        raise ConfigError("bus.credentials_file needs the package nkeys: install nats-py[nkeys]")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"bus.credentials_file: {path} cannot be read") from problem
    if not all(part in text for part in _CREDENTIALS_PARTS):
        raise ConfigError(f"bus.credentials_file: {path} is no NATS credentials file")


def _tls_context(config: BusConfig) -> ssl.SSLContext:
    """What proves the servers to this replica, and this replica to the servers.

    Raises:
        ConfigError: A file cannot be read or used.
    """
    try:
        context = ssl.create_default_context(cafile=config.tls_ca or None)
    except OSError as problem:  # ssl.SSLError is one
        raise ConfigError(f"bus.tls_ca: {config.tls_ca} holds no certificate (PEM)") from problem
    if config.tls_certificate:
        try:
            context.load_cert_chain(config.tls_certificate, config.tls_key or None)
        except OSError as problem:
            raise ConfigError(
                f"bus.tls_certificate: {config.tls_certificate} and bus.tls_key are no pair of a"
                " certificate and its private key (PEM)"
            ) from problem
    return context


def _split(url: str) -> SplitResult:
    try:
        part = urlsplit(url)
        _ = part.port  # raises for what is no port
    except ValueError:
        part = SplitResult("", "", "", "", "")
    # what follows the host was meant to stand before it: a raw / ? or # in a password or a token
    behind = part.path not in {"", "/"} or part.query or part.fragment
    if part.scheme not in SCHEMES or not part.hostname or behind:
        # the address itself may hold a password
        raise ConfigError(
            "bus.url must be memory:// or addresses like nats://host:4222; / ? # in a password or a"
            " token are written %2F %3F %23"
        )
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
