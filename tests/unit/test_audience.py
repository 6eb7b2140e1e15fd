"""Who of a topic's members gets a message that is not for all."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audience import Audience
from gateway.device import UNKNOWN, Device


class Member(NamedTuple):
    """As much of a socket as an audience looks at."""

    id: str = "s"
    device: Device = UNKNOWN


def audience(sessions: str = "", devices: str = "", types: str = "") -> Audience:
    """An audience of words."""
    return Audience(
        frozenset(sessions.split()), frozenset(devices.split()), frozenset(types.split())
    )


@pytest.mark.parametrize(
    ("wanted", "member", "admitted"),
    [
        (audience(), Member(), True),
        (audience("s t"), Member("s"), False),
        (audience("t"), Member("s"), True),
        (audience(devices="d"), Member(device=Device("d")), False),
        (audience(devices="d"), Member(device=Device("e")), True),
        (audience(devices="d"), Member(), True),
        (audience(types="phone"), Member(device=Device(type="phone")), True),
        (audience(types="phone tv"), Member(device=Device("d", type="tv")), True),
        (audience(types="phone"), Member(device=Device(type="tv")), False),
        (audience(types="phone"), Member(), False),
        (audience("s", types="phone"), Member("s", Device(type="phone")), False),
        (audience(devices="d", types="phone"), Member("s", Device("d", type="phone")), False),
        (audience("t", "e", "phone"), Member("s", Device("d", type="phone")), True),
        # an empty id is no device's id, and an empty type is a type that is not known
        (Audience(excluded_devices=frozenset({""})), Member(), True),
        (Audience(device_types=frozenset({""})), Member(), True),
    ],
)
def test_who_is_admitted(wanted: Audience, member: Member, admitted: bool) -> None:
    assert wanted.admits(*member) is admitted


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
    member = Member(session, Device(device, type=kind))
    single = (Audience(sessions), Audience(frozenset(), devices), Audience(device_types=types))

    together = Audience(sessions, devices, types).admits(*member)

    assert together == all(each.admits(*member) for each in single)
