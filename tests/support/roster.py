"""Who is on a topic, as one member was told: presence_state, then every presence_diff."""

from collections import Counter
from typing import Any

from tests.support.client import PhoenixClient


class Roster:
    """What a client knows of a topic's presence. Refs must neither come twice nor go unknown.

    Attributes:
        metas: By ref, the user and the meta.
        log: What came after the state: ``("join" | "leave", user)``.
    """

    def __init__(self, client: PhoenixClient, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._read = 0
        self.metas: dict[str, tuple[str, dict[str, Any]]] = {}
        self.log: list[tuple[str, str]] = []

    def users(self) -> set[str]:
        """Users who are there."""
        return set(self.counts())

    def counts(self) -> Counter[str]:
        """How many metas each user has."""
        self.update()
        return Counter(user for user, _ in self.metas.values())

    def events(self) -> list[tuple[str, str]]:
        """:attr:`log`, up to date."""
        self.update()
        return self.log

    def updated(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """:attr:`metas`, up to date."""
        self.update()
        return self.metas

    def update(self) -> None:
        """Take in what has arrived."""
        frames, self._read = self._client.inbox[self._read :], len(self._client.inbox)
        for frame in frames:
            if not isinstance(frame, list) or frame[2] != self._topic:
                continue
            if frame[3] == "presence_state":
                self.metas = {}
                self._add(frame[4], logged=False)
            elif frame[3] == "presence_diff":
                self._add(frame[4]["joins"], logged=True)
                self._take_away(frame[4]["leaves"])

    def _add(self, users: dict[str, Any], *, logged: bool) -> None:
        for user, entry in users.items():
            for meta in entry["metas"]:
                assert meta["phx_ref"] not in self.metas, f"{user} is told of twice"
                self.metas[meta["phx_ref"]] = (user, meta)
                if logged:
                    self.log.append(("join", user))

    def _take_away(self, users: dict[str, Any]) -> None:
        for user, entry in users.items():
            for meta in entry["metas"]:
                assert self.metas.pop(meta["phx_ref"])[0] == user
                self.log.append(("leave", user))
