"""An audience: which members of a topic get a message."""

import msgspec

from gateway.device import Device


class Audience(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    gc=False,
    rename={"excluded_sessions": "exclude", "excluded_devices": "exclude_devices"},
):
    """Which members of a topic get a message; also the form in which the bus carries it, in JSON.

    Attributes:
        excluded_sessions: Ids of sockets that do not.
        excluded_devices: Ids of devices whose sockets do not.
        device_types: The types of device that do; empty for all, those of unknown type included.
    """

    excluded_sessions: frozenset[str] = frozenset()
    excluded_devices: frozenset[str] = frozenset()
    device_types: frozenset[str] = frozenset()

    def admits(self, session: str, device: Device) -> bool:
        """Whether a socket gets it."""
        return (
            session not in self.excluded_sessions
            and (not device.id or device.id not in self.excluded_devices)
            and (not self.device_types or device.type in self.device_types)
        )
