"""What a process may use: descriptors for clients, and memory."""

from pathlib import Path

import pytest

from gateway.app.capacity import cores, for_clients, memory_bytes, resident_bytes
from gateway.config import ChannelSettings, Config
from gateway.config.sections import UpstreamSettings

BACKEND = "http://localhost/"
OWN_BACKEND = ChannelSettings(pattern="room:*", push="upstream", upstream_url=BACKEND)


@pytest.mark.parametrize(
    ("descriptors", "config", "most"),
    [
        (64, Config(), 32),
        (128, Config(), 96),
        (1024, Config(), 768),
        (65_536, Config(), 65_280),
        (10, Config(), 1),
        (128, Config(upstream=UpstreamSettings(url=BACKEND)), 64),
        (65_536, Config(upstream=UpstreamSettings(url=BACKEND, max_in_flight=1000)), 64_280),
        (65_536, Config(channels=(OWN_BACKEND,)), 65_180),
    ],
)
def test_some_descriptors_are_kept_for_everything_else(
    descriptors: int, config: Config, most: int
) -> None:
    assert for_clients(descriptors, config) == most


@pytest.mark.parametrize(
    ("name", "text", "bound"),
    [
        ("memory.max", "1000000\n", 800_000),
        ("memory.max", "max\n", 0),
        ("memory/memory.limit_in_bytes", "2000000\n", 1_600_000),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 0),
        ("other", "1\n", 0),
    ],
)
def test_memory_is_bounded_by_the_container(
    tmp_path: Path, name: str, text: str, bound: int
) -> None:
    file = tmp_path / "sys/fs/cgroup" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)

    assert memory_bytes(0, tmp_path) == bound
    assert memory_bytes(5, tmp_path) == 5


def test_the_memory_in_use_is_read_where_the_kernel_says_it(tmp_path: Path) -> None:
    assert resident_bytes() > 1_000_000
    assert resident_bytes(tmp_path / "statm") == 0


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 10**6), ("", 10**6)],
)
def test_cores_are_bounded_by_the_container(tmp_path: Path, quota: str, most: int) -> None:
    file = tmp_path / "sys/fs/cgroup/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text(f"{quota}\n")

    assert 1 <= cores(tmp_path) <= most
    assert cores(tmp_path / "none") >= cores(tmp_path)
