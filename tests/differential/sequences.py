"""What clients are to do: random sequences from a seed, as plain JSON values."""

import random
from typing import Any

Step = list[Any]
"""``[client, kind, value]``: ``send`` a message of five, ``binary`` likewise with its payload in hex,
``raw`` text, or ``reconnect``."""

Message = list[Any]
"""``[join_ref, ref, topic, event, payload]``."""

HERE = "~"
"""At the end of topics: stands for what makes them this play's own."""

CLIENTS = [
    ["websocket", "2.0.0", "ann"],
    ["websocket", "1.0.0", "bob"],
    ["longpoll", "2.0.0", "cy"],
    ["longpoll", "1.0.0", "dan"],
]
"""Transport, version and user."""

TOPICS = [f"room:a{HERE}", f"room:b{HERE}", f"lobby:1{HERE}"]
ELSEWHERE: list[Any] = ["nope:1", "room:private", "", 5]
TOKEN = "TOKEN"
"""In payloads: stands for the client's own."""

KINDS = {"join": 8, "push": 8, "leave": 3, "stale": 2, "unusual": 3, "elsewhere": 2}
KINDS |= {"phoenix": 2, "update": 2, "binary": 3, "reconnect": 1}
"""How often of 34 times a step is of each kind."""

PAYLOADS: list[Any] = [{}, {"n": 1.5, "deep": {"list": [1, None, True]}}, {"text": "ünï→😀\n"}]


def sequence(seed: int, length: int = 30) -> dict[str, Any]:
    """A sequence of two or three clients; its last step may be one after which servers differ for good."""
    chance = random.Random(seed)
    clients = chance.sample(CLIENTS, chance.choice((2, 3)))
    author = _Author(chance, [client[1] for client in clients])
    steps = [author.step() for _ in range(length)]
    return {"seed": seed, "clients": clients, "steps": [*steps, author.last()]}


class _Author:
    """Knows of each client which join of a topic is its current one, if nothing was refused."""

    def __init__(self, chance: random.Random, versions: list[str]) -> None:
        self._chance = chance
        self._versions = versions
        self._joined: dict[tuple[int, str], str] = {}
        self._refs = 0

    def _place(self) -> tuple[int, str, str | None, str]:
        """A client, mostly one that is in a topic; the topic; the join_ref of that; a new ref."""
        pick = self._chance.choice
        self._refs += 1
        here = [*self._joined]
        if not here or self._chance.random() < 0.1:
            here = [(pick(range(len(self._versions))), pick(TOPICS))]
        who, topic = pick(here)
        return who, topic, self._joined.get((who, topic)), str(self._refs)

    def step(self) -> Step:
        """Any step after which servers are still in the same state."""
        pick = self._chance.choice
        who, topic, join_ref, ref = self._place()
        match self._chance.choices([*KINDS], [*KINDS.values()])[0]:
            case "join":
                who, topic = pick(range(len(self._versions))), pick(TOPICS)
                self._joined[who, topic] = join_ref = ref
                message: Message = [ref, ref, topic, "phx_join", {}]
            case "leave":
                self._joined.pop((who, topic), None)
                message = [join_ref, ref, topic, "phx_leave", {}]
            case "stale":
                message = ["0", ref, topic, pick(["shout", "phx_leave"]), {}]
            case "elsewhere":
                topic, event = pick(ELSEWHERE), pick(["phx_join", "phx_leave", "shout"])
                message = [ref, ref, topic, event, {}]
            case "phoenix":
                event = pick(["heartbeat", "heartbeat", "other", "access_token"])
                message = [join_ref, ref, "phoenix", event, {"access_token": TOKEN}]
            case "update":
                join_ref, mood = self._joined.get((who, TOPICS[2])), pick(range(3))
                message = [join_ref, ref, TOPICS[2], "presence_update", {"mood": mood}]
            case "binary" if "1.0.0" not in self._versions:
                of_channel = pick([join_ref, join_ref, None]) or ""
                return [who, "binary", [of_channel, ref, topic, "bytes", pick(["", "6869"])]]
            case "reconnect":
                self._joined = {key: ref for key, ref in self._joined.items() if key[0] != who}
                return [who, "reconnect", None]
            case "unusual":
                odd: Message = [pick([join_ref, None]), pick([ref, None, int(ref), "r" * 300])]
                event = pick(["silent", "live", "access_token", "x" * 256, "shout"])
                message = [*odd, topic, event, {"access_token": TOKEN}]
            case _:
                message = [join_ref, ref, topic, pick(["shout", "é"]), pick(PAYLOADS)]
        return [who, "send", message]

    def last(self) -> Step:
        """A step after which servers may be in different states."""
        pick = self._chance.choice
        who, topic, join_ref, ref = self._place()
        binary = [join_ref or "", ref, topic, "bytes", "00ff"]
        return pick(
            [
                [who, "raw", pick(["not json", "", "null", "[1]", "{}", '"text"'])],
                [who, "send", [join_ref, ref, topic, "unknown", {}]],
                [who, "send", [join_ref, ref, topic, pick(["phx_close", "phx_error"]), {}]],
                [who, "send", [join_ref, ref, topic, "shout", pick([[], "text", 1, None])]],
                [who, "send", [None, ref, topic, "phx_leave", {}]],
                [who, "binary" if self._versions[who] == "2.0.0" else "reconnect", binary],
            ]
        )
