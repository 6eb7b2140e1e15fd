"""Who of a topic's members gets a message that is not for all."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.device import UNKNOWN, Device
from gateway.hub.broadcast import Audience, Wire


@dataclass
class Outlet:
    """As much of a socket as an audience looks at."""

    id: str = "s"
    device: Device = UNKNOWN

    def rejoin(self, topic: str, member: object) -> None:
        raise NotImplementedError

    @property
    def wire(self) -> Wire:
        raise NotImplementedError

    def overflowed(self) -> None: ...


def audience(sessions: str = "", devices: str = "", types: str = "") -> Audience:
    """An audience of words."""
    return Audience(
        frozenset(sessions.split()), frozenset(devices.split()), frozenset(types.split())
    )


@pytest.mark.parametrize(
    ("wanted", "outlet", "admitted"),
    [
        (audience(), Outlet(), True),
        (audience("s t"), Outlet("s"), False),
        (audience("t"), Outlet("s"), True),
        (audience(devices="d"), Outlet(device=Device("d")), False),
        (audience(devices="d"), Outlet(device=Device("e")), True),
        (audience(devices="d"), Outlet(), True),
        (audience(types="phone"), Outlet(device=Device(type="phone")), True),
        (audience(types="phone tv"), Outlet(device=Device("d", type="tv")), True),
        (audience(types="phone"), Outlet(device=Device(type="tv")), False),
        (audience(types="phone"), Outlet(), False),
        (audience("s", types="phone"), Outlet("s", Device(type="phone")), False),
        (audience(devices="d", types="phone"), Outlet("s", Device("d", type="phone")), False),
        (audience("t", "e", "phone"), Outlet("s", Device("d", type="phone")), True),
        # an empty id is no device's id, and an empty type is a type that is not known
        (Audience(excluded_devices=frozenset({""})), Outlet(), True),
        (Audience(device_types=frozenset({""})), Outlet(), True),
    ],
)
def test_who_is_admitted(wanted: Audience, outlet: Outlet, admitted: bool) -> None:
    assert wanted.admits(outlet) is admitted


words = st.sampled_from(["", "a", "b", "c"])
some = st.frozensets(words)


@given(some, some, some, st.tuples(words, words, words))
def test_each_filter_can_only_take_away(
    sessions: frozenset[str],
    devices: frozenset[str],
    types: frozenset[str],
    outlet: tuple[str, str, str],
) -> None:
    session, device, kind = outlet
    member = Outlet(session, Device(device, type=kind))
    single = (Audience(sessions), Audience(frozenset(), devices), Audience(device_types=types))

    together = Audience(sessions, devices, types).admits(member)

    assert together == all(each.admits(member) for each in single)
