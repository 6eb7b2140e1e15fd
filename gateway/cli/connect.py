"""Tries a configuration's bus for ``check-config --connect``, and says what a replica's readiness would."""

import asyncio
from typing import Final

from gateway import log
from gateway.bus import MEMORY_URL
from gateway.bus.envelope import Control, encode_control
from gateway.bus.remote import RemoteBus
from gateway.bus.subjects import Subjects
from gateway.cli.options import Failure
from gateway.config import Config
from gateway.config.check import ENVELOPE_ROOM_BYTES
from gateway.errors import (
    BusUnavailable,
    ConfigError,
    HistoryUnavailable,
    NothingKept,
    SubscriptionRefused,
)
from gateway.history.jetstream.api import StreamApi
from gateway.history.jetstream.stream import check_version
from gateway.metrics import Metrics
from gateway.sessions.kept_revocations import bucket

CONNECT_SECONDS: Final = 5.0


async def connect(config: Config) -> str:
    """What is right about the bus of a configuration.

    Raises:
        Failure: There is no connection, or a replica would not be ready with it.
        ConfigError: The bus does not carry what the configuration allows.
    """
    if config.bus.url == MEMORY_URL:
        return "the bus is in memory: nothing to connect to, and no other replica"
    log.set_up(level="warning", style="console")  # the bus says there why it cannot connect
    bus = RemoteBus(config.bus, copies=1, metrics=Metrics(), name="gateway check-config")
    connected = asyncio.Event()
    bus.listen(lambda up: connected.set() if up else None)
    await bus.start()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connected.wait()
        allowed = bus.max_envelope_bytes - ENVELOPE_ROOM_BYTES
        doubt = await _doubt(bus, config)
    except TimeoutError:
        why = bus.doubt or "bus_down"
        text = f"no connection to the bus within {CONNECT_SECONDS:g} seconds ({why})"
        raise Failure(text) from None
    finally:
        await bus.close()
    wanted = config.limits.max_message_bytes
    if wanted > allowed:
        raise ConfigError(
            f"limits.max_message_bytes: {wanted} is not allowed;"
            f" allowed: at most {allowed}, which is what the NATS server takes less"
            f" {ENVELOPE_ROOM_BYTES}"
        )
    if doubt:
        raise Failure(f"a replica would not be ready: {doubt}")
    return f"the bus is reachable, and takes messages of up to {allowed} bytes"


async def _doubt(bus: RemoteBus, config: Config) -> str:
    """Why ``/readyz`` would say 503, as far as can be seen without making anything; empty if it would not."""
    subjects = Subjects(config.bus.prefix)
    try:
        bus.publish(subjects.replicas, encode_control(Control.PROBE, b""))
        for subject in (subjects.replicas, subjects.replica("check-config")):
            await bus.subscribe(
                subject, lambda *_: None
            )  # the second's answer is behind the message
        if bus.doubt is not None:
            return bus.doubt
        if any(rule.history for rule in config.channels):
            check_version(bus.server_version)
            await StreamApi(bus, subjects.stream).info()
        await bus.entries(bucket(config.bus.prefix))
    except SubscriptionRefused as problem:
        return f"bus_subscription_denied: {problem}"
    except HistoryUnavailable as problem:
        return f"history_{problem.reason}: {problem}"
    except NothingKept:
        pass  # revoked tokens are known as long as one replica lives that knows them
    except BusUnavailable as problem:
        return f"revocations_unknown: {problem}"
    return ""
