"""What the demo's backends know: one SQLite file that any number of processes share."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

Post = dict[str, Any]
"""``{"id", "at" (unix seconds), "user", and "text" or "url"}``."""

MEMBERS: Final = {"general": ("ada", "bob"), "random": ("ada", "bob", "eve")}
"""Who belongs to which room at first."""

RECENT: Final = 50
"""Posts a device is given that has just come."""

SCHEMA: Final = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS members (room TEXT, user TEXT, PRIMARY KEY (room, user));
    CREATE TABLE IF NOT EXISTS posts (id TEXT PRIMARY KEY, room TEXT, event TEXT, payload TEXT);
    CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, type TEXT, data BLOB);
"""


class Store:
    """Each call is one short transaction, or a few, away from the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """What a migration does: once, before any process starts."""
        rows = [(room, user) for room, users in MEMBERS.items() for user in users]
        with closing(sqlite3.connect(self._path)) as database, database:
            database.executescript(SCHEMA)
            database.executemany("INSERT OR IGNORE INTO members VALUES (?, ?)", rows)

    async def is_member(self, room: str, user: str) -> bool:
        """Whether a user belongs to a room."""
        select = "SELECT 1 FROM members WHERE room = ? AND user = ?"
        return bool(await self._run(select, room, user))

    async def add_member(self, room: str, user: str) -> None:
        """Let a user belong to a room."""
        await self._run("INSERT OR IGNORE INTO members VALUES (?, ?)", room, user)

    async def remove_member(self, room: str, user: str) -> None:
        """Let her no longer."""
        await self._run("DELETE FROM members WHERE room = ? AND user = ?", room, user)

    async def keep(self, room: str, event: str, post: str, **content: str) -> Post:
        """Store a post under an id, once; returns what is stored under it."""
        payload = json.dumps({"id": post, "at": time.time()} | content)
        insert = "INSERT OR IGNORE INTO posts VALUES (?, ?, ?, ?)"
        await self._run(insert, post, room, event, payload)
        rows = await self._run("SELECT payload FROM posts WHERE id = ?", post)
        kept: Post = json.loads(rows[0][0])
        return kept

    async def recent(self, room: str) -> list[dict[str, Any]]:
        """A room's last posts, oldest first, as ``{"event", "payload"}``."""
        select = "SELECT event, payload FROM posts WHERE room = ? ORDER BY rowid DESC LIMIT ?"
        rows = await self._run(select, room, RECENT)
        return [{"event": event, "payload": json.loads(text)} for event, text in reversed(rows)]

    async def keep_image(self, image: str, kind: str, data: bytes) -> None:
        """Store an image of a media type."""
        await self._run("INSERT INTO images VALUES (?, ?, ?)", image, kind, data)

    async def image(self, image: str) -> tuple[str, bytes] | None:
        """An image's media type and bytes."""
        rows = await self._run("SELECT type, data FROM images WHERE id = ?", image)
        return (rows[0][0], rows[0][1]) if rows else None

    async def _run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        def run() -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(self._path, timeout=5)) as database, database:
                return database.execute(statement, values).fetchall()

        return await asyncio.to_thread(run)
