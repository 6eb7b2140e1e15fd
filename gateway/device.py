"""A device: one installation of a user, as its token or the client describes it."""

from typing import Annotated, Final

import msgspec

MAX_CHARACTERS: Final = 128

_Text = Annotated[str, msgspec.Meta(max_length=MAX_CHARACTERS)]


class Device(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One installation of a user; what is not known is empty.

    Attributes:
        id: Stays the same through reconnects.
        name: For people, such as ``Ann's phone``.
        type: For filters, such as ``phone``.
    """

    id: _Text = ""
    name: _Text = ""
    type: _Text = ""


UNKNOWN: Final = Device()


def parse_device(value: object) -> Device:
    """A device from decoded JSON: an object with the strings ``id``, ``name``, ``type``, all optional.

    Raises:
        ValueError: It is something else, or a string is above :data:`MAX_CHARACTERS` or no text that
            UTF-8 can carry.
    """
    device = msgspec.convert(value, Device)
    f"{device.id}{device.name}{device.type}".encode()  # raises for half a surrogate pair
    return device
