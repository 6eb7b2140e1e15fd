"""What the process may use, as its machine or container has it: descriptors and memory."""

import math
import os
import resource
import sys
from pathlib import Path
from typing import Final

from gateway.config import Config

LEAST_RESERVE: Final = 32
MOST_RESERVE: Final = 256
"""Descriptors that clients do not get: for the bus, listeners, probes, scrapers and backends that publish."""

PART: Final = 4
"""Of few descriptors this share is reserved, and as many again for callbacks to backends."""

MEMORY_SHARE: Final = 0.8
"""Of a container's memory; the kernel's buffers of the sockets count in it too."""

_LIMITS: Final = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
_PAGE_BYTES: Final = resource.getpagesize()


def raise_descriptors() -> int:
    """Take as many descriptors as the process may have; returns how many that is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def for_clients(descriptors: int, config: Config) -> int:
    """How many of the process's descriptors clients may have."""
    part = descriptors // PART
    reserve = min(max(part, LEAST_RESERVE), MOST_RESERVE)
    if config.upstream.url or any(channel.upstream_url for channel in config.channels):
        reserve += min(config.upstream.max_in_flight, part)
    return max(1, descriptors - reserve)


def memory_bytes(configured: int, root: Path = Path("/")) -> int:
    """Memory of the process above which new clients are refused; 0 for no bound.

    Args:
        configured: ``limits.memory_bytes``; 0 for a share of the container's limit (cgroup version 2 or 1).
    """
    if configured:
        return configured
    for path in _LIMITS:
        try:
            limit = int((root / path).read_text())
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
        # version 1 says "no limit" with a number beyond all memory
        return int(limit * MEMORY_SHARE) if limit < 2**60 else 0
    return 0


def cores(root: Path = Path("/")) -> int:
    """How many the process may use: those it is bound to, at most its container's quota (cgroup 2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # there is none, or it is "max"
        return bound or 1
    return max(1, min(bound or 1, allowed))


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory the process has now (proc_pid_statm(5)); 0 where nobody says."""
    try:
        return int(statm.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
