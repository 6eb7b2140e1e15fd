"""Devices, as tokens and clients describe them."""

import pytest

from gateway.device import MAX_CHARACTERS, UNKNOWN, Device, parse_device

LONGEST = "ü" * MAX_CHARACTERS


@pytest.mark.parametrize(
    ("value", "device"),
    [
        ({}, UNKNOWN),
        ({"id": "d"}, Device("d")),
        ({"id": "d", "name": "Ann's phone", "type": "phone"}, Device("d", "Ann's phone", "phone")),
        ({"id": "", "type": LONGEST}, Device(type=LONGEST)),
        ({"id": "d", "colour": "red", "n": [1]}, Device("d")),
    ],
)
def test_an_object_with_strings_is_a_device(value: object, device: Device) -> None:
    assert parse_device(value) == device


@pytest.mark.parametrize(
    "value",
    [
        None,
        "phone",
        7,
        [],
        ["d", "n", "t"],
        {"id": None},
        {"id": 7},
        {"name": ["n"]},
        {"type": {}},
        {"id": LONGEST + "x"},
        {"name": LONGEST + "x"},
        {"type": LONGEST + "x"},
    ],
)
def test_anything_else_is_none(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the text is msgspec's
        parse_device(value)
