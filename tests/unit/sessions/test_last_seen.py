"""When users were last seen: what a replica that leaves writes of it."""

import pytest

from gateway.errors import BusUnavailable
from gateway.sessions.last_seen import WRITES_IN_A_ROW, LastSeen

BUCKET = "g_last_seen"


class Store:
    """Remembers the keys written; one that is down takes none."""

    def __init__(self, *, down: bool) -> None:
        self.down = down
        self.keys: list[str] = []

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        assert (bucket, value) == (BUCKET, b"7.0")
        assert keep_seconds
        self.keys.append(key)
        if self.down:
            raise BusUnavailable("down")

    async def get(self, bucket: str, key: str) -> bytes | None:
        raise NotImplementedError


@pytest.mark.parametrize("down", [False, True])
async def test_who_leaves_writes_all_that_is_new_once_however_many_it_are(down: bool) -> None:
    store = Store(down=down)
    times = LastSeen(store, BUCKET, lambda: 7.0)
    users = 2 * WRITES_IN_A_ROW + 1
    for number in range(users):
        times.seen(f"user-{number}")
    await times.finish()

    assert len(store.keys) == len(set(store.keys)) == users
