"""Small values kept on the NATS server, in JetStream key-value buckets (NATS ADR-8)."""

import asyncio
import time
from typing import Final

from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import KeyValueConfig
from nats.js.errors import APIError, BadRequestError, KeyNotFoundError
from nats.js.kv import KeyValue

from gateway.errors import BusUnavailable

KEPT_SECONDS: Final = 30 * 86_400
"""How long a value is kept after it was last written."""

ANSWER_SECONDS: Final = 1.0
TRY_AGAIN_SECONDS: Final = 60.0
"""How long a server without JetStream, or without permission to use it, is left alone."""


class Buckets:
    """The buckets, by way of one connection; they are made when they are first used."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._no_use_before = 0.0
        self._open: dict[str, KeyValue] = {}
        self._opening = asyncio.Lock()

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        """Keep a value.

        Raises:
            BusUnavailable: It may not be kept: disconnected, or the server has no JetStream.
        """
        try:
            await (await self._bucket(bucket)).put(key, value)
        except (Error, TimeoutError) as problem:
            raise BusUnavailable(str(problem)) from problem

    async def get(self, bucket: str, key: str) -> bytes | None:
        """A kept value; None when there is none.

        Raises:
            BusUnavailable: Nobody can say: disconnected, or the server has no JetStream.
        """
        try:
            return (await (await self._bucket(bucket)).get(key)).value
        except KeyNotFoundError:
            return None
        except (Error, TimeoutError) as problem:
            raise BusUnavailable(str(problem)) from problem

    async def _bucket(self, name: str) -> KeyValue:
        async with self._opening:
            known = self._open.get(name)
            if known is None:
                if time.monotonic() < self._no_use_before:
                    raise BusUnavailable("JetStream did not answer a moment ago")
                # until it has answered: permissions that are missing are a silence, too
                self._no_use_before = time.monotonic() + TRY_AGAIN_SECONDS
                stream = self._client.jetstream(timeout=ANSWER_SECONDS)
                wanted = KeyValueConfig(bucket=name, ttl=KEPT_SECONDS)
                try:
                    known = await stream.create_key_value(config=wanted)
                except (BadRequestError, APIError):  # it is there, made otherwise: by the operator
                    known = await stream.key_value(name)
                self._open[name] = known
                self._no_use_before = 0.0
            return known
