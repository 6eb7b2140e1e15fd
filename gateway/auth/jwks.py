"""Fetches the keys of an identity provider, keeps them, and fetches them again when they change.

How an address is fetched is the caller's business, who bounds the size and the time of it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import structlog

from gateway.auth.jwk import read_key_set
from gateway.auth.jws import Jws
from gateway.auth.keys import Key, KeySet
from gateway.auth.refusal import TokenRefusal
from gateway.errors import FetchError, TokenError
from gateway.log import background_error
from gateway.singleflight import CallCancelled, SingleFlight

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]
"""Fetches an address; raises :class:`~gateway.errors.FetchError`."""

REFRESH_SECONDS: Final = 300.0
"""How long fetched keys go unquestioned: a key that the provider takes away is good for so long."""

RETRY_SECONDS: Final = 30.0
"""The same after a fetch that failed."""

UNKNOWN_KEY_SECONDS: Final = 10.0
"""Least time between two fetches that tokens ask for, or made-up key ids would be a hammer."""

KEEP_SECONDS: Final = 86_400.0
"""
How long keys are kept while the provider is away.

Its failure should not lock everybody out; but whoever can keep the gateway from the provider must not make a
key that leaked good for ever.
"""

_log = structlog.get_logger(__name__)


class FetchedKeys:
    """The key set at an address. :meth:`run` keeps it fresh.

    Args:
        url: The provider's ``jwks_uri``.
        counted: Told of each fetch whether it brought a key set.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        fetch: Fetch,
        *,
        counted: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._counted = counted
        self._clock = clock
        self._sleep = sleep
        self._keys: KeySet | None = None
        self._fetched_at = self._asked_at = float("-inf")
        self._failing = False
        self._fetches: SingleFlight[None, None] = SingleFlight()

    async def find(self, jws: Jws) -> Sequence[Key]:
        """The keys that may have signed a token; waits for a fetch where its key id is new.

        Raises:
            TokenError: Its key is of another algorithm, or there are no keys because none could be fetched.
        """
        if self._keys is None or (jws.key_id is not None and not self._keys.knows(jws.key_id)):
            await self._ask()
        if self._keys is None:
            raise TokenError(TokenRefusal.KEYS_UNAVAILABLE)
        found = self._keys.find(jws)
        if not found and jws.key_id is not None and self._keys.knows(jws.key_id):
            raise TokenError(TokenRefusal.ALGORITHM)
        return found

    async def run(self) -> None:
        """Fetch the keys now and then over and over, for ever."""
        try:
            while True:
                await self._refresh()
                await self._sleep(RETRY_SECONDS if self._failing else REFRESH_SECONDS)
        finally:
            self._fetches.cancel()

    async def _ask(self) -> None:
        """Fetch for the sake of a token, unless that was done just now."""
        now = self._clock()
        if None not in self._fetches:
            if now - self._asked_at < UNKNOWN_KEY_SECONDS:
                return
            self._asked_at = now
        await self._refresh()

    async def _refresh(self) -> None:
        """Fetch once, together with whoever else is waiting for that."""
        # cancelled, there are the keys there were before, if any
        with contextlib.suppress(CallCancelled):
            await self._fetches.share(None, self._fetch_keys)

    async def _fetch_keys(self) -> None:
        try:
            keys, ignored = read_key_set(await self._fetch(self._url))
        except FetchError as problem:
            self._failed(str(problem))
        except Exception as problem:  # noqa: BLE001 -- top of this task: it must not end all fetching
            background_error("keys", problem)
            self._failed(type(problem).__name__)
        else:
            self._succeeded(keys, ignored)

    def _succeeded(self, keys: KeySet, ignored: int) -> None:
        self._counted(True)
        if self._keys is None or not self._keys.same(keys):
            _log.info("keys changed", keys=len(keys), ignored=ignored)
        elif self._failing:
            _log.info("keys fetched again", keys=len(keys), ignored=ignored)
        self._keys, self._fetched_at, self._failing = keys, self._clock(), False

    def _failed(self, problem: str) -> None:
        self._counted(False)
        if not self._failing:
            _log.warning("keys cannot be fetched", problem=problem, kept=self._keys is not None)
        self._failing = True
        if self._keys is not None and self._clock() - self._fetched_at > KEEP_SECONDS:
            _log.error("keys are too old and not used any more", problem=problem)
            self._keys = None
