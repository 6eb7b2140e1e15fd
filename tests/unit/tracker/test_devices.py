"""Sessions by device."""

import hypothesis.strategies as st
from hypothesis import given

from gateway.device import Device
from gateway.tracker.entry import Entry
from gateway.tracker.view import View


def session(name: str, device: str, *, moving: bool = False) -> Entry:
    """A session of a user's."""
    return Entry(name, "42", f"ref-{name}", 1.0, 1.0, Device(device), moving=moving)


names = st.sampled_from("abcde")
changes = st.lists(
    st.tuples(
        st.lists(
            st.builds(session, names, st.sampled_from(["", "d", "e"]), moving=st.booleans()),
            max_size=3,
        ),
        st.lists(names, max_size=2),
    )
)


@given(changes, changes)
def test_the_index_has_what_is_shown_and_does_not_move(
    before: list[tuple[list[Entry], list[str]]], after: list[tuple[list[Entry], list[str]]]
) -> None:
    view = View("s:user:42", due=0.0, changed_at=0.0)
    for put, removed in before:
        view.show(put, removed, 0.0)
    view.index_devices()
    for put, removed in after:
        view.show(put, removed, 0.0)

    assert view.by_device is not None
    of = view.by_device.of
    for device in ("", "d", "e"):
        shown = [e for e in view.shown.values() if e.device.id == device and not e.moving]
        assert {e.id: e for e in of([device])} == {e.id: e for e in shown if device}


def test_a_device_is_crowded_once_each_time_another_session_of_it_comes() -> None:
    view = View("s:user:42", due=0.0, changed_at=0.0)
    view.index_devices()
    index = view.by_device
    assert index is not None
    view.show([session("a", "d"), session("b", "e")], (), 0.0)
    assert index.take_crowded() == []
    view.show([session("c", "d")], (), 0.0)
    assert {e.id for e in index.take_crowded()} == {"a", "c"}
    assert index.take_crowded() == []
    view.show([session("f", "e")], (), 0.0)
    view.show((), ["b"], 0.0)
    assert index.take_crowded() == []
