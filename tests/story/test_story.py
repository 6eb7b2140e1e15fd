"""What the product is for: everybody hears everything everywhere, and no backend keeps anything."""

import asyncio

from tests.story.conftest import GENERAL, Device, Story
from tests.support.demo import PNG
from tests.support.roster import Roster
from tests.support.waiting import eventually

KINDS = ("laptop", "phone")
"""One device on each replica."""

PUSHES = 20


async def test_a_backend_decides_who_may_join(story: Story) -> None:
    """A refusal is in its words, on both replicas; nothing of the room reaches who was refused."""
    ada = await story.device("ada", "laptop", replica=0)
    await ada.enter()
    eves = [await story.device("eve", kind, replica) for replica, kind in enumerate(KINDS)]
    for eve in eves:
        reply = await eve.socket.join(GENERAL)
        assert reply[4] == {"status": "error", "response": {"reason": "not a member"}}
        await eve.enter("room:random")
    await ada.socket.ask(GENERAL, "message", {"text": "among us"})
    await ada.hears("message", "text", "among us")

    for eve in eves:
        await eve.socket.heartbeat()
        assert {frame[2] for frame in frames(eve)} == {GENERAL, "room:random", "phoenix"}
        assert [frame[3] for frame in frames(eve) if frame[2] == GENERAL] == ["phx_reply"]


async def test_what_one_device_says_all_show_whichever_backend_answers(story: Story) -> None:
    laptop = await story.device("ada", "laptop", replica=0)
    phone = await story.device("ada", "phone", replica=1)
    bob = await story.device("bob", "phone", replica=1)
    everybody = (laptop, phone, bob)
    for device in everybody:
        await device.enter()
    ids = []
    for n in range(PUSHES):
        author = everybody[n % 3]
        reply = await author.socket.ask(GENERAL, "message", {"text": f"message {n}"})
        assert reply[4]["status"] == "ok"
        ids.append(reply[4]["response"]["id"])
    users = {f"message {n}": ("ada", "ada", "bob")[n % 3] for n in range(PUSHES)}
    for device in everybody:
        for text in users:
            await device.hears("message", "text", text)

        posts = device.socket.events(GENERAL, "message")
        assert sorted(post["id"] for post in posts) == sorted(ids), "each once"
        assert {post["text"]: post["user"] for post in posts} == users
    assert min(story.answered("/gateway")) > 0, "neither backend did it all"


async def test_an_image_by_rest_from_the_phone_appears_on_the_laptop(story: Story) -> None:
    """And on a friend's screen, whichever backend took it, by whichever replica it was published."""
    laptop = await story.device("ada", "laptop", replica=0)
    phone = await story.device("ada", "phone", replica=1)
    bob = await story.device("bob", "laptop", replica=1)
    for device in (laptop, phone, bob):
        await device.enter()
    posts = []
    for _ in range(4):
        status, post = await phone.rest.upload("general")
        assert status == 201
        posts.append(post)
    assert min(story.answered("/rooms/general/images")) > 0, "both backends took some"

    for device in (laptop, phone, bob):
        for post in posts:
            assert await device.hears("image", "id", post["id"]) == post
            assert await device.rest.fetch(post["url"]) == ("image/png", PNG)
        assert len(device.socket.events(GENERAL, "image")) == len(posts)


async def test_a_removed_member_hears_nothing_more_on_any_device(story: Story) -> None:
    ada = [await story.device("ada", kind, replica) for replica, kind in enumerate(KINDS)]
    bob = [await story.device("bob", kind, replica) for replica, kind in enumerate(KINDS)]
    for device in (*ada, *bob):
        await device.enter()
    roster = Roster(ada[0].socket, GENERAL)
    await eventually(lambda: roster.counts() == {"ada": 2, "bob": 2})

    assert await ada[0].rest.call("DELETE", "/rooms/general/members/bob") == (204, None)
    for device in bob:
        await device.socket.expect(lambda f: f[2] == GENERAL and f[3] == "phx_close")
        device.socket.inbox.clear()
    await ada[1].socket.ask(GENERAL, "message", {"text": "he is gone"})
    await ada[0].rest.upload("general")
    for device in ada:
        await device.hears("message", "text", "he is gone")
        await device.hears("image", "user", "ada")
    await eventually(lambda: roster.counts() == {"ada": 2})

    for device in bob:
        await device.socket.heartbeat()
        assert [frame for frame in frames(device) if frame[2] == GENERAL] == []
        reply = await device.socket.join(GENERAL)
        assert reply[4] == {"status": "error", "response": {"reason": "not a member"}}
        reply = await device.socket.ask(GENERAL, "message", {"text": "may I?"})
        assert reply[4] == {"status": "error", "response": {"reason": "unmatched topic"}}
        assert (await device.rest.upload("general"))[0] == 403
    assert (await ada[0].rest.call("PUT", "/rooms/general/members/bob"))[0] == 204
    for device in bob:
        await device.enter()


async def test_others_see_the_name_that_the_backend_gave(story: Story) -> None:
    ada = await story.device("ada", "laptop", replica=0)
    bob = await story.device("bob", "phone", replica=1)
    await ada.enter()
    await bob.enter()
    roster = Roster(ada.socket, GENERAL)
    await eventually(lambda: roster.users() == {"ada", "bob"})

    shown = {(meta["name"], meta["device_type"]) for _, meta in roster.updated().values()}
    assert shown == {("Ada", "laptop"), ("Bob", "phone")}


async def test_a_new_device_has_the_recent_past_at_once(story: Story) -> None:
    laptop = await story.device("ada", "laptop", replica=0)
    await laptop.enter()
    await laptop.socket.ask(GENERAL, "message", {"text": "first"})
    await laptop.rest.call("POST", "/rooms/general/messages", json={"text": "second"})
    await laptop.rest.upload("general")

    phone = await story.device("ada", "phone", replica=1)
    await phone.enter()
    _, past = await phone.rest.call("GET", "/rooms/general/messages")
    assert [post["event"] for post in past] == ["message", "message", "image"]
    assert [post["payload"].get("text") for post in past] == ["first", "second", None]


async def test_a_killed_backend_is_not_missed(story: Story) -> None:
    """It kept nothing: the other one lets in, answers, stores and removes for the same sockets."""
    ada = await story.device("ada", "laptop", replica=0)
    bob = await story.device("bob", "phone", replica=1)
    await ada.enter()
    await ada.socket.ask(GENERAL, "message", {"text": "before"})
    story.backends[0].kill()

    await bob.enter()
    for n in range(4):
        reply = await ada.socket.ask(GENERAL, "message", {"text": f"after {n}"})
        assert reply[4]["status"] == "ok"
    assert (await bob.rest.upload("general"))[0] == 201
    await ada.hears("image", "user", "bob")
    await bob.hears("message", "text", "after 3")
    _, past = await bob.rest.call("GET", "/rooms/general/messages")
    assert [post["payload"].get("text") for post in past] == [
        "before",
        *(f"after {n}" for n in range(4)),
        None,
    ]
    assert (await bob.rest.call("DELETE", "/rooms/general/members/ada"))[0] == 204
    await ada.socket.expect(lambda f: f[2] == GENERAL and f[3] == "phx_close")


async def test_after_a_replica_is_killed_a_client_misses_nothing(story: Story) -> None:
    """She reconnects elsewhere, joins, and asks a backend for what was said meanwhile."""
    ada = await story.device("ada", "laptop", replica=0)
    bob = await story.device("bob", "phone", replica=1)
    await ada.enter()
    await bob.enter()
    await asyncio.to_thread(story.replicas[0].kill)
    await ada.socket.closed()
    reply = await bob.socket.ask(GENERAL, "message", {"text": "while she was away"})
    assert reply[4]["status"] == "ok"

    again = await story.device("ada", "laptop", replica=1)
    await again.enter()
    _, past = await again.rest.call("GET", "/rooms/general/messages")
    assert [post["payload"]["text"] for post in past] == ["while she was away"]
    await bob.socket.ask(GENERAL, "message", {"text": "now she is here"})
    await again.hears("message", "text", "now she is here")


def frames(device: Device) -> list[list[object]]:
    """What it has heard, as messages."""
    return [frame for frame in device.socket.inbox if isinstance(frame, list)]
