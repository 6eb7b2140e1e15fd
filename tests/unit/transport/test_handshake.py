"""What of a request becomes a socket's identity and device, and what refuses it."""

import asyncio
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.auth.claims import Claims
from gateway.channels.encoding import Encodings
from gateway.device import UNKNOWN, Device
from gateway.errors import TokenError
from gateway.transport.compression import Deflater
from gateway.transport.handshake import Accepted, Handshake, Refused
from gateway.transport.longpoll.sessions import LONGPOLL_ENCODINGS
from gateway.transport.origin import OriginPolicy
from gateway.transport.peer import PeerAddress
from gateway.transport.websocket import WEBSOCKET_ENCODINGS, compressed_encodings

OF_TOKEN = Device("t", "Token's", "tv")


class Admission:
    """Takes the token for the user; ``bad`` is none, and those of ``tv`` name a device."""

    async def connect(self, token: str | None, _: str | None) -> Claims | None:
        if token == "bad":
            raise TokenError("token_signature")
        if token is None:
            return None
        return Claims(token, 0.0, device=OF_TOKEN if token == "tv" else None)


HEADERS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def check(**query: str) -> Device:
    """The device of a request with this query.

    Raises:
        Refused: As the handshake does.
    """
    return accepted({"vsn": "2.0.0"} | query).device


def accepted(
    query: dict[str, str] | list[tuple[str, str]],
    headers: dict[str, str] = HEADERS,
    compressed: Encodings | None = None,
) -> Accepted:
    """What becomes of a request with this query and these headers.

    Raises:
        Refused: As the handshake does.
    """
    request = make_mocked_request(
        "GET",
        f"/socket/websocket?{urlencode(query)}",
        headers=headers,
    )
    admission: Any = Admission()
    callbacks: Any = SimpleNamespace(asks_connect=False)
    handshake = Handshake(
        admission,
        OriginPolicy(()),
        callbacks,
        PeerAddress(()),
        websocket=WEBSOCKET_ENCODINGS,
        compressed=compressed,
        longpoll=LONGPOLL_ENCODINGS,
    )
    return asyncio.run(handshake.websocket(request, "s1"))


@pytest.mark.parametrize(
    ("query", "device"),
    [
        ({}, UNKNOWN),
        ({"device_id": "d"}, Device("d")),
        (
            {"device_id": "d", "device_name": "Änn's phone", "device_type": "phone"},
            Device("d", "Änn's phone", "phone"),
        ),
        ({"device_name": "ü" * 128}, Device(name="ü" * 128)),
        ({"device_id": ""}, UNKNOWN),
        ({"token": "42", "device_type": "phone"}, Device(type="phone")),
        # what the token says is believed, and nothing beside it
        ({"token": "tv", "device_id": "mine", "device_type": "phone"}, OF_TOKEN),
        ({"token": "tv", "device_name": "x" * 129}, OF_TOKEN),
    ],
)
def test_the_device(query: dict[str, str], device: Device) -> None:
    assert check(**query) == device


def test_of_a_parameter_given_twice_the_last_counts() -> None:
    twice = [("vsn", "1.0.0"), ("token", "bad"), ("device_id", "x" * 129)]
    it = accepted([*twice, ("vsn", "2.0.0"), ("token", "42"), ("device_id", "d")])

    assert it.encoding.version == "2.0.0"
    assert it.claims is not None
    assert (it.claims.user, it.device) == ("42", Device("d"))
    with pytest.raises(Refused, match="vsn"):
        accepted([("vsn", "2.0.0"), ("vsn", "9")])


@pytest.mark.parametrize("vsn", ["2.0.0+build", "2.0.7+a.b-c.1", "1.0.0+0"])
def test_a_build_makes_no_difference_to_the_version(vsn: str) -> None:
    assert accepted({"vsn": vsn}).encoding.version == f"{vsn[0]}.0.0"


@pytest.mark.parametrize("vsn", ["2.0.0+", "2.0.0+a..b", "2.0.0 build", "2.0.0-rc", "2.0.0+é"])
def test_what_is_no_version_is_refused(vsn: str) -> None:
    with pytest.raises(Refused, match="vsn"):
        accepted({"vsn": vsn})


@pytest.mark.parametrize("name", ["device_id", "device_name", "device_type"])
@pytest.mark.parametrize("more", [{}, {"token": "42"}])
def test_a_device_parameter_that_is_too_long_is_403(name: str, more: dict[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        check(**{name: "ü" * 129}, **more)

    assert (caught.value.status, caught.value.reason) == (403, "device")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"token": "bad", "device_id": "x" * 129, "vsn": "9"}, "token_signature"),
        ({"device_id": "x" * 129, "vsn": "9"}, "device"),
        ({"device_id": "x", "vsn": "9"}, "vsn"),
    ],
)
def test_the_first_check_that_fails_is_the_reason(query: dict[str, str], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        check(**query)

    assert (caught.value.status, caught.value.reason) == (403, reason)


@pytest.mark.parametrize(
    ("query", "headers", "user"),
    [
        ([], {}, None),
        ([("token", "")], {}, None),
        ([("token", "42")], {}, "42"),
        ([], {"Authorization": "Bearer 42"}, "42"),
        ([("token", "")], {"X-Phoenix-AuthToken": "42"}, "42"),
        ([("token", "42")], {"X-Phoenix-AuthToken": "43"}, "42"),
    ],
)
def test_the_token_of_a_client_that_polls(
    query: list[tuple[str, str]], headers: dict[str, str], user: str | None
) -> None:
    request = make_mocked_request("GET", f"/socket/longpoll?{urlencode(query)}", headers=headers)
    admission: Any = Admission()
    callbacks: Any = SimpleNamespace(asks_connect=False)
    handshake = Handshake(
        admission,
        OriginPolicy(()),
        callbacks,
        PeerAddress(()),
        websocket=WEBSOCKET_ENCODINGS,
        longpoll=LONGPOLL_ENCODINGS,
    )
    claims = asyncio.run(handshake.longpoll(request, "s1")).claims

    assert (None if claims is None else claims.user) == user


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"},
        {"Upgrade": "websocket, h2c"},
        {"Upgrade": "h2c ,\twebsocket", "Connection": "Upgrade,close"},
    ],
)
def test_how_clients_ask_for_a_websocket(headers: dict[str, str]) -> None:
    assert accepted({"vsn": "2.0.0"}, HEADERS | headers).encoding.version == "2.0.0"


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "h2c"},
        {"Upgrade": "websockets"},
        {"Upgrade": ""},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": "13, 8"},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZSEh"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZ===="},
    ],
)
def test_what_asks_for_none(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match="no_upgrade"):
        accepted({"vsn": "2.0.0"}, HEADERS | headers)


@pytest.mark.parametrize("version", ["1", "2"])
def test_compression_is_agreed_to_where_it_is_on_and_offered(version: str) -> None:
    on = compressed_encodings(Deflater(1, before=lambda _: None, after=lambda _: None))
    offer = HEADERS | {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    query = {"vsn": f"{version}.0.0"}

    agreed = accepted(query, offer, on)
    assert agreed.encoding is on[version]
    assert agreed.extension.startswith("permessage-deflate; server_no_context_takeover")
    for plain in (accepted(query, offer), accepted(query, HEADERS, on)):
        assert plain.encoding is WEBSOCKET_ENCODINGS[version]
        assert plain.extension == ""
