"""Checks the configuration as a whole: what cannot work is an error, what is probably a mistake a warning."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.address import is_loopback, parse_address
from gateway.config.sections import ChannelSettings, Config
from gateway.config.syntax import PLACEHOLDER

GRACE_SECONDS: Final = 30
"""What Kubernetes and most others wait after SIGTERM before they kill."""

LAST_SECONDS: Final = 5
"""What a replica takes at most when delay and window of its drain are over."""

MAX_DRAIN_SECONDS: Final = 3600

ENVELOPE_ROOM_BYTES: Final = 4096
"""
What must remain of the NATS server's ``max_payload`` beside the longest message: names, filters, headers.

Only a connection tells that limit, so it is compared once there is one.
"""

SHORTEST_SECRET_BYTES: Final = 32
"""RFC 7518, section 3.2: a key of HS256 has at least the size of its hash."""

SHORTEST_API_KEY_BYTES: Final = 16

PHOENIX_HEARTBEAT_SECONDS: Final = 30


class Finding(msgspec.Struct, frozen=True):
    """Something wrong with some keys, as a line for the operator."""

    keys: tuple[str, ...]
    text: str


def impossible(config: Config) -> Iterator[Finding]:
    """What cannot work."""
    yield from _tls(config)
    yield from _listeners(config)
    yield from _credentials(config)
    yield from _bus_tls(config)
    yield from _api_keys(config)
    yield from _patterns(config)
    yield from _history(config)
    yield from _upstream(config)
    yield from _buffers(config)
    yield from _drain(config)


def _tls(config: Config) -> Iterator[Finding]:
    keys = ("server.tls_certificate", "server.tls_key")
    values = (config.server.tls_certificate, config.server.tls_key)
    for key, value, other, present in zip(keys, values, keys[::-1], values[::-1], strict=True):
        if present and not value:
            yield Finding(keys, f'{key}: "" is not allowed; {other} is set: set both or none')


def _listeners(config: Config) -> Iterator[Finding]:
    keys = ("server.public", "server.internal")
    public, internal = config.server.public, config.server.internal
    if public == internal and parse_address(public)[1]:
        yield Finding(
            keys,
            f'server.internal: "{internal}" is not allowed; it must not be the address of server.public',
        )
    if config.dev:
        for key, address in zip(keys, (public, internal), strict=True):
            if not is_loopback(parse_address(address)[0]):
                yield Finding(
                    (key,),
                    f'{key}: "{address}" is not allowed; --dev lets anybody in,'
                    " so allowed: a loopback address such as 127.0.0.1:4000",
                )


def _credentials(config: Config) -> Iterator[Finding]:
    keys = ("bus.credentials_file", "bus.url")
    if config.bus.credentials_file and config.bus.url == "memory://":
        yield Finding(keys, "bus.credentials_file: is set, but bus.url names no NATS server")


def _bus_tls(config: Config) -> Iterator[Finding]:
    bus = config.bus
    if bool(bus.tls_certificate) != bool(bus.tls_key):
        lone, other = ("certificate", "key") if bus.tls_certificate else ("key", "certificate")
        keys = ("bus.tls_certificate", "bus.tls_key")
        yield Finding(keys, f"bus.tls_{lone}: is set, but bus.tls_{other} is not")
    encrypted = all(url.strip().startswith("tls://") for url in bus.url.split(","))
    for name in ("tls_ca", "tls_certificate"):
        if getattr(bus, name) and not encrypted:
            text = "is set, but not every address of bus.url begins with tls://"
            yield Finding((f"bus.{name}", "bus.url"), f"bus.{name}: {text}")


def _api_keys(config: Config) -> Iterator[Finding]:
    keys = config.api.keys
    for index, first in _repeated([key.name for key in keys]):
        text = f'"{keys[index].name}" is not allowed; api.keys[{first}] has that name'
        yield Finding(("api.keys",), f"api.keys[{index}].name: {text}")
    for index, first in _repeated([key.key for key in keys]):
        text = f"*** is not allowed; api.keys[{first}] has the same key"
        yield Finding(("api.keys",), f"api.keys[{index}].key: {text}")


def _patterns(config: Config) -> Iterator[Finding]:
    patterns = [channel.pattern for channel in config.channels]
    for index, first in _repeated(patterns):
        text = f'"{patterns[index]}" is not allowed; channels[{first}] has that pattern'
        yield Finding(("channels",), f"channels[{index}].pattern: {text}")


def _repeated(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where a value stands again, and where it stood first."""
    for index, value in enumerate(values):
        if (first := values.index(value)) != index:
            yield index, first


def _history(config: Config) -> Iterator[Finding]:
    for index, channel in enumerate(config.channels):
        if channel.history is not None and channel.slow_consumer == "drop":
            yield Finding(
                ("channels",),
                f'channels[{index}].slow_consumer: "drop" is not allowed; the topic has a history,'
                " and who has it misses nothing",
            )


def _upstream(config: Config) -> Iterator[Finding]:
    upstream = config.upstream
    if upstream.url:
        return
    for index, channel in enumerate(config.channels):
        for key in ("join", "push"):
            if getattr(channel, key) == "upstream" and not channel.upstream_url:
                yield Finding(
                    ("channels", "upstream.url"),
                    f'channels[{index}].{key}: "upstream" is not allowed; upstream.url names no backend',
                )
    if upstream.events:
        yield Finding(
            ("upstream.events", "upstream.url"),
            "upstream.events: is set, but upstream.url names no backend",
        )


def _buffers(config: Config) -> Iterator[Finding]:
    limits = config.limits
    for low, high in (
        ("max_message_bytes", "outbound_buffer_bytes"),
        ("outbound_buffer_bytes", "outbound_total_bytes"),
    ):
        least, value = getattr(limits, low), getattr(limits, high)
        if value < least:
            yield Finding(
                (f"limits.{low}", f"limits.{high}"),
                f"limits.{high}: {value} is not allowed; allowed: at least limits.{low}, {least}",
            )


def _drain(config: Config) -> Iterator[Finding]:
    drain = config.drain
    total = drain.delay_seconds + drain.window_seconds
    if total > MAX_DRAIN_SECONDS:
        yield Finding(
            ("drain.delay_seconds", "drain.window_seconds"),
            f"drain.window_seconds: {drain.window_seconds:g} is not allowed; with drain.delay_seconds"
            f" it makes {total:g}, allowed: {MAX_DRAIN_SECONDS}",
        )


def missing_files(config: Config) -> Iterator[str]:
    """Files that are named but cannot be read here; asked where the gateway is to run."""
    for key, path in (
        ("server.tls_certificate", config.server.tls_certificate),
        ("server.tls_key", config.server.tls_key),
        ("bus.credentials_file", config.bus.credentials_file),
        ("bus.tls_ca", config.bus.tls_ca),
        ("bus.tls_certificate", config.bus.tls_certificate),
        ("bus.tls_key", config.bus.tls_key),
    ):
        if path and not Path(path).is_file():
            yield f'{key}: "{path}" is not a file'


def short_secrets(config: Config) -> Iterator[str]:
    """Secrets nobody may be let in with: from one token they can be guessed, and a placeholder is known."""
    for index, secret in enumerate(() if config.dev else config.auth.secrets):
        if len(secret.encode()) < SHORTEST_SECRET_BYTES:
            yield (
                f"auth.secrets[{index}]: is shorter than {SHORTEST_SECRET_BYTES} bytes"
                ' and might be guessed from a token; "openssl rand -base64 32" makes a good one'
            )


def warnings(config: Config) -> Iterator[str]:
    """What works, but is probably a mistake."""
    auth = config.auth
    for index, api_key in enumerate(() if config.dev else config.api.keys):
        if len(api_key.key.encode()) < SHORTEST_API_KEY_BYTES:
            yield (
                f"api.keys[{index}].key: is shorter than {SHORTEST_API_KEY_BYTES} bytes"
                " and might be guessed"
            )
    keys = auth.secrets or auth.public_keys or auth.jwks_url
    if not keys and not auth.allow_anonymous and "connect" not in config.upstream.events:
        yield (
            "auth.secrets: is empty, as are auth.public_keys and auth.jwks_url, and auth.allow_anonymous"
            " is false, so nobody can connect"
        )
    calls = config.upstream.url or any(channel.upstream_url for channel in config.channels)
    if calls and not config.upstream.secrets:
        yield "upstream.secrets: is empty, so the backend cannot tell callbacks from forged requests"
    if not config.api.keys:
        yield "api.keys: is empty, so the API answers 401 to everybody"
    if not config.channels:
        yield "channels: is empty, so no topic can be joined"
    if config.limits.idle_timeout_seconds <= PHOENIX_HEARTBEAT_SECONDS:
        yield (
            f"limits.idle_timeout_seconds: {config.limits.idle_timeout_seconds:g} closes clients that"
            f" send a heartbeat every {PHOENIX_HEARTBEAT_SECONDS} seconds, as Phoenix clients do"
        )
    total = config.drain.delay_seconds + config.drain.window_seconds + LAST_SECONDS
    if total > GRACE_SECONDS:
        yield (
            f"drain: takes {total:g} seconds, {LAST_SECONDS} after delay and window included; the"
            f" platform's grace period must be as long, and is usually {GRACE_SECONDS}"
        )
    yield from _shadowed(config.channels)
    if not config.dev:
        yield from _personal(config)


def _personal(config: Config) -> Iterator[str]:
    """Rules for personal topics that let others in than the user herself."""
    start = config.sessions.personal_topic.partition("{")[0]
    for index, channel in enumerate(config.channels):
        pattern = channel.pattern
        if pattern.endswith("*") and "{" not in pattern and start.startswith(pattern[:-1]):
            yield (
                f"channels[{index}].pattern: {pattern} holds for personal topics too"
                f" (sessions.personal_topic), so others may join them"
            )


def _shadowed(channels: Sequence[ChannelSettings]) -> Iterator[str]:
    for index, channel in enumerate(channels):
        for earlier, other in enumerate(channels[:index]):
            if _covers(other.pattern, channel.pattern):
                yield (
                    f'channels[{index}].pattern: "{channel.pattern}" never matches, as'
                    f' channels[{earlier}], "{other.pattern}", matches first'
                )
                break


def _covers(general: str, special: str) -> bool:
    """Whether every topic the one pattern matches is matched by the other; False when in doubt."""
    if not PLACEHOLDER.search(general):
        if not general.endswith("*"):
            return general == special
        return _literal_start(special).startswith(general[:-1])
    # the names of claims do not matter, only where they stand
    return PLACEHOLDER.sub("{}", general) == PLACEHOLDER.sub("{}", special)


def _literal_start(pattern: str) -> str:
    """What all topics of a pattern begin with."""
    return re.split(r"[{*]", pattern, maxsplit=1)[0]
