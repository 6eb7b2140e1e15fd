"""What the memory store keeps, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.history.base import ID_SECONDS
from gateway.history.memory import MemoryStore
from gateway.retention import SPARE_MESSAGES, SPARE_SECONDS, Retention

LIMITS = {
    "short": Retention(2, 10),
    "long": Retention(5, 1000),
    "other": Retention(3, 100),
}


class Time:
    """The store's clock, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def store_of(time: Time, max_bytes: int = 0) -> MemoryStore:
    return MemoryStore(LIMITS.__getitem__, max_bytes, time)


def offsets(store: MemoryStore, topic: str) -> list[int]:
    return [stored.offset for stored in store.of(topic)]


def test_each_topic_has_its_own_limits() -> None:
    store = store_of(Time())
    for _ in range(8):
        store.append("short", b"", None)
        store.append("long", b"", None)
    assert offsets(store, "short") == [11, 13, 15]
    assert offsets(store, "long") == [6, 8, 10, 12, 14, 16]


def test_what_is_older_than_a_topic_keeps_is_gone() -> None:
    time = Time()
    store = store_of(time)
    store.append("short", b"", None)
    time.now += 10 + SPARE_SECONDS
    assert offsets(store, "short") == [1]
    store.append("short", b"", None)
    time.now += 1
    assert offsets(store, "short") == [2]
    assert store.at(1) is None
    assert store.append("short", b"", None)[1] == 2
    time.now += 10_000
    assert store.append("short", b"", None)[1] == 0  # what it followed is not kept any more


def test_topics_nobody_writes_to_are_swept_too() -> None:
    time = Time()
    limits = Retention(10, 10)
    store = MemoryStore(lambda _: limits, 0, time)
    for number in range(100):
        store.append(f"t{number}", b"x", None)
    time.now += 10 + SPARE_SECONDS + 1
    for _ in range(100):
        store.append("busy", b"x", None)
    assert store.first > 100
    assert store.bytes == len(store.of("busy"))


def test_the_oldest_of_all_topics_make_room() -> None:
    store = store_of(Time(), max_bytes=10)
    for topic in ("long", "other", "long", "other"):
        store.append(topic, b"xxx", None)
    assert (store.first, store.bytes) == (2, 9)
    assert offsets(store, "long") == [3]
    store.append("other", bytes(11), None)
    assert (store.first, store.last, store.bytes) == (6, 5, 0)


def test_an_id_is_forgotten_after_its_time() -> None:
    time = Time()
    store = store_of(time)
    first, _ = store.append("long", b"", "id")
    time.now += ID_SECONDS
    assert store.append("long", b"", "id")[0].offset == first.offset
    time.now += 1
    assert store.append("long", b"", "id")[0].offset == 2


def test_a_clock_that_is_set_back_stands_still() -> None:
    time = Time()
    store = store_of(time)
    first, _ = store.append("long", b"", None)
    time.now -= 100
    second, _ = store.append("long", b"", None)
    assert second.time == first.time


def test_two_stores_have_two_epochs() -> None:
    time = Time()
    first = store_of(time)
    time.now += 0.001
    assert store_of(time).epoch != first.epoch


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "erase", "wait"]),
            st.sampled_from(sorted(LIMITS)),
            st.integers(0, 40),
        )
    ),
    st.sampled_from([0, 100]),
)
def test_what_is_kept_is_always_consistent(
    steps: list[tuple[str, str, int]], max_bytes: int
) -> None:
    time = Time()
    store = store_of(time, max_bytes)
    appended: dict[str, list[tuple[int, float]]] = {topic: [] for topic in LIMITS}
    for step, topic, number in steps:
        if step == "append":
            receipt, previous = store.append(topic, bytes(number), None)
            assert receipt.offset == store.last
            assert previous in {0, *(offset for offset, _ in appended[topic][-1:])}
            appended[topic].append((receipt.offset, receipt.time))
        elif step == "erase":
            store.erase(topic)
            appended[topic].clear()
        else:
            time.now += number
        kept = {name: offsets(store, name) for name in LIMITS}
        everything = sorted(offset for those in kept.values() for offset in those)
        assert store.first == (everything[0] if everything else store.last + 1)
        assert store.bytes == sum(len(stored.body) for name in LIMITS for stored in store.of(name))
        assert not max_bytes or store.bytes <= max_bytes
        for name, retention in LIMITS.items():
            messages, seconds = retention.messages, retention.seconds
            assert len(kept[name]) <= messages + SPARE_MESSAGES
            if not max_bytes:  # all that a reader may want is there
                wanted = [o for o, at in appended[name][-messages:] if at >= time.now - seconds]
                assert kept[name][len(kept[name]) - len(wanted) :] == wanted
        for offset in everything:
            stored = store.at(offset)
            assert stored is not None
            assert stored.offset == offset
