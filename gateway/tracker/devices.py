"""Which sessions of a user are of the same device."""

from collections.abc import Iterable

from gateway.tracker.entry import Entry


class DeviceIndex:
    """Sessions of devices with an id, by that id; moving ones do not count.

    Args:
        entries: Those there are.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._sessions: dict[str, dict[str, Entry]] = {}
        self._crowded: set[str] = set()  # of those where one came, until they are looked at
        for entry in entries:
            self.change(None, entry)

    def change(self, before: Entry | None, after: Entry | None) -> None:
        """A session came, changed or went; None where it is not there."""
        if before is not None and (sessions := self._sessions.get(before.device.id)):
            sessions.pop(before.id, None)
            if len(sessions) < 2:
                self._crowded.discard(before.device.id)
            if not sessions:
                del self._sessions[before.device.id]
        if after is not None and after.device.id and not after.moving:
            sessions = self._sessions.setdefault(after.device.id, {})
            sessions[after.id] = after
            if len(sessions) > 1:
                self._crowded.add(after.device.id)

    def of(self, devices: Iterable[str]) -> list[Entry]:
        """The sessions of some devices."""
        return [e for device in devices for e in self._sessions.get(device, {}).values()]

    def take_crowded(self) -> list[Entry]:
        """The sessions of devices that have several, and got another one since the last call."""
        crowded, self._crowded = self._crowded, set()
        return self.of(crowded)
