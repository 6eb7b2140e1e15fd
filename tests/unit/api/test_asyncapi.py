"""The description of the socket agrees with itself, and with what speaks there."""

import json
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from gateway.api.asyncapi import ADDRESS, Version, async_document
from gateway.api.frames import RECEIVED, SENT, FrameKind
from gateway.history.resume import Loss
from gateway.protocol import messages
from gateway.protocol.messages import Outgoing, encode_json
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.reserved import RESERVED_EVENTS, RESERVED_PREFIXES
from gateway.protocol.serializer import Serializer
from gateway.protocol.v1 import V1
from gateway.protocol.v2 import V2
from gateway.transport import upgrade
from tests.support.asyncapi import validator
from tests.unit.api.fakes import Gateway
from tests.unit.api.test_openapi import references

DOCUMENT = async_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
SERIALIZERS: dict[Version, Serializer] = {"V1": V1(), "V2": V2()}
each_version = pytest.mark.parametrize("version", get_args(Version))


def texts(frames: tuple[FrameKind, ...]) -> list[FrameKind]:
    """Those that are JSON."""
    return [frame for frame in frames if not frame.binary]


def example(frame: FrameKind, version: Version) -> Any:
    """The example of a frame, as the document has it."""
    [shown] = DOCUMENT["components"]["messages"][f"{frame.name}{version}"]["examples"]
    return shown["payload"]


async def test_document_is_served_as_it_is(gateway: Gateway) -> None:
    response = await gateway.client.get("/asyncapi.json")

    assert response.content_type == "application/json"
    assert await response.json() == json.loads(json.dumps(DOCUMENT))


def test_references_lead_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_its_address_is_served() -> None:
    assert {channel["address"] for channel in DOCUMENT["channels"].values()} == {ADDRESS}
    assert ADDRESS in upgrade.PATHS


@pytest.mark.parametrize(("name", "kind"), [("Reason", Reason), ("CloseCode", CloseCode)])
def test_reasons_and_close_codes_are_those_of_the_code(
    name: str, kind: type[Reason] | type[CloseCode]
) -> None:
    told = {each["const"]: each["description"] for each in SCHEMAS[name]["oneOf"]}

    assert told == {each.value: each.when for each in kind}


def test_losses_are_those_of_the_code() -> None:
    assert SCHEMAS["JoinResponse"]["properties"]["reason"]["enum"] == [None, *get_args(Loss)]


def test_events_are_those_of_the_code() -> None:
    constants = vars(messages).values()
    words = {
        value.decode() if isinstance(value, bytes) else value
        for value in constants
        if isinstance(value, (bytes, str))
    }
    of_channels = {word.strip('"') for word in words if word.strip('"').startswith("phx_")}
    named = {frame.event for frame in (*RECEIVED, *SENT) if isinstance(frame.event, str)}

    assert len(of_channels) == 5
    assert named == RESERVED_EVENTS | of_channels | {messages.HEARTBEAT}


@pytest.mark.parametrize("event", sorted({*RESERVED_EVENTS, *RESERVED_PREFIXES, "phx_x", "live"}))
def test_reserved_events_are_nobodys(event: str) -> None:
    with pytest.raises(ValidationError):
        validator(DOCUMENT, SCHEMAS["ClientEvent"]).validate(event)


@each_version
def test_what_clients_send_is_what_the_gateway_reads(version: Version) -> None:
    for frame in texts(RECEIVED):
        join_ref, ref, topic, event, payload = frame.example
        read = SERIALIZERS[version].decode(json.dumps(example(frame, version)))

        assert (read.topic, read.event) == (topic, event)
        assert list(map(json.loads, (read.join_ref, read.ref, read.payload))) == [
            join_ref,
            ref,
            payload,
        ]


@each_version
def test_what_the_gateway_sends_is_what_it_writes(version: Version) -> None:
    for frame in texts(SENT):
        written = SERIALIZERS[version].encode(Outgoing(*map(encode_json, frame.example)))

        assert json.loads(written) == example(frame, version)


@each_version
def test_schemas_take_their_examples_and_not_those_of_other_events(version: Version) -> None:
    """Replies differ by what they answer; all other frames can be told apart."""
    frames = texts((*RECEIVED, *SENT))
    for frame in frames:
        payload = DOCUMENT["components"]["messages"][f"{frame.name}{version}"]["payload"]
        Draft7Validator.check_schema(payload)
        for other in frames:
            taken = validator(DOCUMENT, payload).is_valid(example(other, version))
            if other is frame:
                assert taken, frame.name
            elif frame.example[3] != other.example[3]:
                assert not taken, (frame.name, other.name)


def test_replies_are_frames_that_the_gateway_sends() -> None:
    names = {frame.name for frame in SENT}

    assert all(frame.replies for frame in RECEIVED)
    assert all(names >= set(frame.replies) for frame in RECEIVED)
