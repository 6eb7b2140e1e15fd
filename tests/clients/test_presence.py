"""Presence and session limits, judged by the phoenix package as published.

Its class ``Presence`` merges what the gateway sends; what it lists and calls back with is what an
application sees.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.clients.driver import Seen
from tests.clients.member import Member
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

CHANNELS = [
    {"pattern": "room:*", "join": "anyone", "push": "broadcast", "presence": True},
    {"pattern": "crowd:*", "join": "anyone", "push": "broadcast", "presence": "count"},
]
CONFIG = {"channels": CHANNELS, "auth": {"allow_anonymous": True}}

OLD, NEW = "phoenix-1.7", "phoenix-1.8"
VERSIONS = ["phoenix-1.6", OLD, NEW]

StartMember = Callable[..., Awaitable[Member]]

each_version = pytest.mark.parametrize("package", VERSIONS)
_numbers = count(1)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway the tests share; each uses topics of its own."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), CONFIG)
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def member(
    node: str,
    npm_packages: Path,  # noqa: ARG001 -- the driver finds them beside it
) -> AsyncIterator[StartMember]:
    """Starts clients; ends them after the test."""
    members: list[Member] = []

    async def start(
        package: str,
        gateway: GatewayProcess,
        topic: str,
        user: str | None = None,
        claims: dict[str, Any] | None = None,
        **params: str,
    ) -> Member:
        if user is not None:
            params["token"] = token(user, **(claims or {}))
        members.append(await Member.start(node, package, gateway, topic, params=params))
        return members[-1]

    yield start
    for each in members:
        await each.end()


def room(kind: str = "room") -> str:
    """A topic no other test uses."""
    return f"{kind}:presence-{next(_numbers)}"


def presence_events(member: Member) -> set[str]:
    """Names of all events about presence a member was sent."""
    return {item["event"] for item in member.all("message")}


@each_version
async def test_everybody_lists_who_is_there(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    members = [await member(package, gateway, topic, user) for user in ("ann", "ben", "cid")]
    for each in members:
        await each.shows(ann=1, ben=1, cid=1)

    await members.pop().go()

    for each in members:
        await each.shows(ann=1, ben=1)


@each_version
async def test_each_coming_and_going_is_told_once(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    ann = await member(package, gateway, topic, "ann")
    await ann.shows(ann=1)
    ben = await member(package, gateway, topic, "ben")
    await ann.shows(ann=1, ben=1)
    await ben.go()
    await ann.shows(ann=1)
    await member(package, gateway, topic, "cid")
    await ann.shows(ann=1, cid=1)

    assert [item["user"] for item in ann.all("join")] == ["ann", "ben", "cid"]
    assert [item["user"] for item in ann.all("leave")] == ["ben"]
    assert ann.all("leave")[0]["after"] == []


@each_version
async def test_two_devices_of_a_user_are_one_key_with_two_metas(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    ann = await member(package, gateway, topic, "ann")
    laptop = await member(package, gateway, topic, "ben", device_id="laptop")
    await ann.shows(ann=1, ben=1)
    phone = await member(package, gateway, topic, "ben", device_id="phone")
    for each in (ann, laptop, phone):
        await each.shows(ann=1, ben=2)
    assert len({meta["phx_ref"] for meta in ann.users["ben"]}) == 2

    await laptop.tell("leave")
    await ann.shows(ann=1, ben=1)
    assert ann.users == phone.users | {"ben": phone.users["ben"][1:]}
    await phone.go()
    await ann.shows(ann=1)

    joins, leaves = ann.all("join", user="ben"), ann.all("leave", user="ben")
    assert [len(item["before"]) for item in joins] == [0, 1]
    assert [len(item["after"]) for item in leaves] == [1, 0]


@each_version
async def test_an_update_replaces_the_meta_under_a_new_ref(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    ann = await member(package, gateway, topic, "ann")
    ben = await member(package, gateway, topic, "ben")
    await ann.shows(ann=1, ben=1)
    await ben.shows(ann=1, ben=1)
    (old,) = ann.users["ben"]

    answer = await ben.push("presence_update", {"status": "away"})

    assert answer == {"saw": "answer", "status": "ok", "response": {}}
    for each in (ann, ben):
        await each.sees("ben", status="away")
        await each.shows(ann=1, ben=1)
    (new,) = ann.users["ben"]
    assert new["phx_ref"] != old["phx_ref"]
    assert new == old | {
        "phx_ref": new["phx_ref"],
        "phx_ref_prev": old["phx_ref"],
        "status": "away",
    }
    assert ben.users == ann.users
    assert ann.all("join", user="ben")[1]["before"] == [old]
    assert ann.all("leave", user="ben") == [
        {"saw": "leave", "user": "ben", "metas": [old], "after": [new]}
    ]


@each_version
async def test_updates_in_quick_succession_end_with_the_last(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    ann = await member(package, gateway, topic, "ann")
    ben = await member(package, gateway, topic, "ben")
    await ann.shows(ann=1, ben=1)
    for n in range(10):
        assert (await ben.push("presence_update", {"n": n}))["status"] == "ok"

    for each in (ann, ben):
        await each.sees("ben", n=9)
        await each.shows(ann=1, ben=1)


async def test_what_a_token_says_of_presence_is_seen_and_an_update_adds_to_it(
    member: StartMember, gateway: GatewayProcess
) -> None:
    topic = room()
    ann = await member(NEW, gateway, topic, "ann")
    before = time.time()
    claims = {"presence": {"name": "Ben 🙂", "status": "busy"}}
    ben = await member(NEW, gateway, topic, "ben", claims, device_type="phone")
    await ann.shows(ann=1, ben=1)

    (meta,) = ann.users["ben"]
    assert before - 1 <= meta.pop("online_at") <= time.time()
    assert meta.pop("phx_ref")
    assert meta == {"name": "Ben 🙂", "status": "busy", "device_type": "phone"}
    assert "device_type" not in ann.users["ann"][0]

    await ben.push("presence_update", {"status": "away"})
    await ann.sees("ben", status="away")
    assert ann.users["ben"][0]["name"] == "Ben 🙂"


async def test_what_the_gateway_says_cannot_be_forged(
    member: StartMember, gateway: GatewayProcess
) -> None:
    topic = room()
    ann = await member(NEW, gateway, topic, "ann")
    await ann.shows(ann=1)
    own = dict(ann.users["ann"][0])
    forged = {"phx_ref": own["phx_ref"], "phx_ref_prev": "x", "online_at": 1, "device_type": "tv"}
    claims = {"presence": forged | {"role": "guest"}}
    ben = await member(NEW, gateway, topic, "ben", claims, device_type="phone")
    await ann.shows(ann=1, ben=1)
    (before,) = ann.users["ben"]
    assert set(before) == {"phx_ref", "online_at", "device_type", "role"}

    assert (await ben.push("presence_update", forged | {"done": True}))["status"] == "ok"

    await ann.sees("ben", done=True)
    (after,) = ann.users["ben"]
    refs = {"phx_ref": after["phx_ref"], "phx_ref_prev": before["phx_ref"]}
    assert after == before | refs | {"done": True}
    assert after["device_type"] == "phone"
    assert after["phx_ref"] not in (before["phx_ref"], own["phx_ref"])
    assert ann.users["ann"] == [own]


async def test_updates_that_are_refused_change_nothing(
    member: StartMember, gateway: GatewayProcess
) -> None:
    topic = room()
    ann = await member(NEW, gateway, topic, "ann")
    ben = await member(NEW, gateway, topic, "ben")
    await ann.shows(ann=1, ben=1)
    metas = ann.users["ben"]

    too_large = await ben.push("presence_update", {"status": "x" * 2000})
    no_object = await ben.push("presence_update", ["away"])

    assert too_large["response"] == {"reason": "payload too large"}
    assert no_object["response"] == {"reason": "malformed"}
    await member(NEW, gateway, topic, "cid")
    await ann.shows(ann=1, ben=1, cid=1)
    assert ann.users["ben"] == metas
    assert len(ann.all("join", user="ben")) == 1


@pytest.mark.parametrize("package", [OLD, NEW])
async def test_an_anonymous_member_sees_and_is_not_seen(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    nobody = await member(package, gateway, topic)
    await nobody.expect("joined")
    ann = await member(package, gateway, topic, "ann")
    for each in (nobody, ann):
        await each.shows(ann=1)
    late = await member(package, gateway, topic)
    await late.shows(ann=1)

    answer = await late.push("presence_update", {"status": "here"})
    assert answer["response"] == {"reason": "push not allowed"}
    ben = await member(package, gateway, topic, "ben")
    for each in (nobody, ann, late, ben):
        await each.shows(ann=1, ben=1)
    await late.go()
    await ben.go()
    await ann.shows(ann=1)
    assert {item["user"] for item in ann.all("join")} == {"ann", "ben"}


@pytest.mark.parametrize("package", [OLD, NEW])
async def test_where_only_numbers_are_shown_nothing_else_is_sent(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room("crowd")

    nobody = await member(package, gateway, topic)
    await nobody.is_told({"users": 0, "sessions": 0})
    ann = await member(package, gateway, topic, "ann")
    ben = await member(package, gateway, topic, "ben")
    phone = await member(package, gateway, topic, "ben")
    everybody = [nobody, ann, ben, phone]
    for each in everybody:
        await each.is_told({"users": 2, "sessions": 3})
    await everybody.pop().go()
    for each in everybody:
        await each.is_told({"users": 2, "sessions": 2})
    await everybody.pop().go()
    for each in everybody:
        await each.is_told({"users": 1, "sessions": 1})

    for each in (nobody, ann, ben, phone):
        assert presence_events(each) == {"presence_count"}
        assert each.all("sync") == []


@each_version
async def test_who_comes_back_after_a_cut_is_there_once(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    ann = await member(package, gateway, topic, "ann")
    ben = await member(package, gateway, topic, "ben")
    for each in (ann, ben):
        await each.shows(ann=1, ben=1)
    (old,) = ann.users["ben"]

    await ben.tell("cut")
    await ben.expect("joined", times=2)

    await ann.until(lambda: old not in ann.users.get("ben", [old]))
    for each in (ann, ben):
        await each.shows(ann=1, ben=1)
    assert len(ann.all("leave", user="ben")) == 1
    await ben.until(lambda: ben.users == ann.users)


@each_version
async def test_a_second_channel_of_the_same_socket_is_there_once(
    member: StartMember, gateway: GatewayProcess, package: str
) -> None:
    topic = room()
    ann = await member(package, gateway, topic, "ann")
    ben = await member(package, gateway, topic, "ben")
    for each in (ann, ben):
        await each.shows(ann=1, ben=1)
    (old,) = ann.users["ben"]

    await ben.tell("enter")
    await ben.expect("joined", times=2)
    await ben.expect("channel closed")

    await ann.until(lambda: old not in ann.users.get("ben", [old]))
    await ann.shows(ann=1, ben=1)
    await ben.until(lambda: ben.users == ann.users)


async def test_a_user_with_the_name_of_a_javascript_property_is_shown(
    member: StartMember, gateway: GatewayProcess
) -> None:
    topic = room()
    ann = await member(NEW, gateway, topic, "ann")
    await member(NEW, gateway, topic, "__proto__")
    await member(NEW, gateway, topic, 'a"\\ü')

    await ann.shows(**{"ann": 1, "__proto__": 1, 'a"\\ü': 1})


async def test_replicas_agree_on_who_is_there(
    member: StartMember, start_gateway: StartGateway, start_nats: StartNats
) -> None:
    nats = start_nats()
    one, two = (start_gateway(CONFIG | {"bus": {"url": nats.url}}) for _ in range(2))
    await eventually(lambda: one.metric("replicas", state="live") == 2)
    topic = room()
    ann = await member(NEW, one, topic, "ann", device_type="laptop")
    await ann.shows(ann=1)
    phone = await member(OLD, two, topic, "ann", device_type="phone")
    ben = await member(OLD, two, topic, "ben")
    everybody = [ann, phone, ben]
    for each in everybody:
        await each.shows(ann=2, ben=1)
    assert {meta["device_type"] for meta in ben.users["ann"]} == {"laptop", "phone"}

    await ben.push("presence_update", {"status": "away"})
    for each in everybody:
        await each.sees("ben", status="away")
    await phone.go()
    for each in (ann, ben):
        await each.shows(ann=1, ben=1)
    assert ann.users == ben.users
    await ann.tell("cut")
    await ann.expect("joined", times=2)
    await ben.until(lambda: len(ben.all("leave", user="ann")) == 2)
    for each in (ann, ben):
        await each.shows(ann=1, ben=1)
    await ben.until(lambda: ben.users == ann.users)
    assert len(ann.all("leave", user="ben")) == 1, "that of its update"


def kicks(member: Member) -> list[Seen]:
    """Its closes with 4001."""
    return member.all("closed", code=4001)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["in turn", "together"])
@pytest.mark.parametrize(
    ("sessions", "devices", "seconds"),
    [
        pytest.param(
            {"max_per_user": 1, "when_full": "close_oldest"}, ("laptop", "phone"), 22, id="limit"
        ),
        pytest.param({"same_device": "replace"}, ("phone", "phone"), 12, id="same device"),
    ],
)
async def test_clients_that_may_not_both_stay_do_not_kick_each_other_in_a_loop(
    member: StartMember,
    start_gateway: StartGateway,
    *,
    sessions: dict[str, Any],
    devices: tuple[str, str],
    seconds: float,
    together: bool,
) -> None:
    gateway = start_gateway(CONFIG | {"sessions": sessions})
    users = ("ann", "ben", "cid", "dan") if together else ("ann",)  # each a race of its own
    topics = {user: room() for user in users}
    pairs: dict[str, tuple[Member, Member]] = {}
    for user, topic in topics.items():
        first = await member(OLD, gateway, topic, user, device_id=devices[0])
        if not together:
            await first.expect("joined")
        pairs[user] = first, await member(NEW, gateway, topic, user, device_id=devices[1])

    everybody = [each for pair in pairs.values() for each in pair]
    await asyncio.gather(*(each.watch(seconds) for each in everybody))

    for user, (first, second) in pairs.items():
        assert len(kicks(first) + kicks(second)) == 1, (first.seen, second.seen)
        loser, winner = (first, second) if kicks(first) else (second, first)
        assert together or loser is first
        assert loser.all("closed") == [{"saw": "closed", "code": 4001}]
        # A loser whose join was still under way was never let in, and has to be told so: phoenix.js
        # tries a join without an answer again after ten seconds, even if its channel was closed.
        assert len(loser.all("joined") + loser.all("refused")) == 1
        saw = [item["saw"] for item in loser.seen]
        assert saw.index("channel closed") < saw.index("closed")
        assert saw.count("channel closed") == 1
        assert winner.all("closed") == winner.all("channel closed") == []
        await winner.shows(**{user: 1})
        async with Backend(gateway) as backend:
            _, answer = await backend.get(f"/v1/users/{user}/sessions")
        assert len(answer["items"]) == 1
        # phoenix.js opens its socket again, and has no channel left to join
        await loser.expect("open", times=2)
    assert gateway.metric("connections", transport="websocket") == len(everybody)
    await eventually(lambda: gateway.metric("sessions") == len(users))


@pytest.mark.parametrize("package", [OLD, NEW])
async def test_where_the_newcomer_is_refused_the_first_stays(
    member: StartMember, start_gateway: StartGateway, package: str
) -> None:
    gateway = start_gateway(CONFIG | {"sessions": {"max_per_user": 1, "when_full": "refuse"}})
    topic = room()
    first = await member(package, gateway, topic, "ann", device_id="laptop")
    await first.shows(ann=1)
    second = await member(package, gateway, topic, "ann", device_id="phone")

    refused = await second.expect("refused")
    assert refused["answer"] == {"reason": "session limit reached"}
    await second.expect("refused", times=2)  # the package tries again by itself
    await member(package, gateway, topic, "ben")
    await first.shows(ann=1, ben=1)
    assert first.all("closed") == second.all("closed") == []

    await first.go()
    await second.expect("joined")
    await second.shows(ann=1, ben=1)
