"""What was measured, and on what."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.servers.rivals import ENVIRONMENT, RIVALS, Centrifugo
from gateway import __version__

_PACKAGES: Final = {
    "starlette": ("starlette", "uvicorn", "websockets"),
    "channels": ("channels", "daphne", "Django"),
}


def machine() -> dict[str, str]:
    """Processor, memory, kernel, and the day."""
    cpu = re.search(r"^model name\s*: (.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "",
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "day": datetime.now(UTC).date().isoformat(),
    }


def versions(servers: Sequence[str]) -> dict[str, str]:
    """Of each server, with what it runs on."""
    python = f"Python {platform.python_version()}"
    found = {"floor": python, "gateway": f"{__version__}{_commit()}, {python}"}
    if "centrifugo" in servers:
        program = Centrifugo().program() or "centrifugo"
        # what `go install` builds does not know its own version
        built = re.search(r"\smod\s\S+\s(v\S+)", _said(["go", "version", "-m", program]))
        found["centrifugo"] = built[1] if built else _said([program, "version"])
    if "aiohttp" in servers:
        import aiohttp  # noqa: PLC0415 -- for its version alone

        found["aiohttp"] = f"aiohttp {aiohttp.__version__}, {python}"
    node = _said(["node", "--version"]) if {"ws", "socket.io"} & set(servers) else ""
    for name in ("ws", "socket.io"):
        if name in servers:
            lock = _read(RIVALS / f"node_modules/{name}/package.json")
            version = re.search(r'"version": "([^"]+)"', lock)
            found[name] = f"{name} {version[1] if version else '?'}, Node {node}"
    for name, packages in _PACKAGES.items():
        if name in servers:
            lines = _said([str(ENVIRONMENT / "bin/pip"), "freeze"]).splitlines()
            installed = dict(line.split("==") for line in lines if "==" in line)
            found[name] = ", ".join(f"{each} {installed.get(each, '?')}" for each in packages)
    return {name: found.get(name, "as it was found") for name in servers}


def _commit() -> str:
    commit = _said(["git", "-C", str(RIVALS), "rev-parse", "--short", "HEAD"])
    return f" ({commit})" if commit else ""


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _read(path: str | Path) -> str:
    return Path(path).read_text()
