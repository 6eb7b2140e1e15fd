"""A real gateway process; it begins as a fork, and is otherwise as an operator would start it."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.forked import Forked
from tests.support.ports import free_port
from tests.support.tokens import SECRET

API_KEY = "test-api-key"
START_SECONDS = 120.0
LOG_TAIL = 6000


class GatewayProcess:
    """One replica.

    Args:
        directory: For its configuration and log.
        config: Sections that replace or extend the default ones; of ``channels`` the whole list.
        arguments: More of them for ``gateway serve``.
        command: What stands for ``gateway``: arguments of Python.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        command: tuple[str, ...] = ("-m", "gateway"),
    ) -> None:
        self.public_port = free_port()
        self.internal_port = free_port()
        self._directory = directory
        self._arguments = arguments
        self._command = command
        self._process: Forked | subprocess.Popen[bytes] | None = None
        self._log_path = directory / "gateway.log"
        directory.mkdir(parents=True, exist_ok=True)
        merged = self._defaults()
        for section, values in (config or {}).items():
            if isinstance(values, dict):
                merged[section] = merged.get(section, {}) | values
            else:
                merged[section] = values
        self._config = merged
        self._write_config()

    def configure(self, config: dict[str, Any]) -> None:
        """Replace whole sections in its file, which it does not read by itself."""
        self._config |= config
        self._write_config()

    def _write_config(self) -> None:
        (self._directory / "gateway.toml").write_text(to_toml(self._config))

    def _defaults(self) -> dict[str, Any]:
        return {
            "server": {
                "public": f"127.0.0.1:{self.public_port}",
                "internal": f"127.0.0.1:{self.internal_port}",
            },
            "auth": {"secrets": [SECRET]},
            "api": {
                "keys": [
                    {"name": "test", "key": API_KEY, "scopes": ["publish", "read", "manage"]},
                ]
            },
            "drain": {"delay_seconds": 0, "window_seconds": 0},
            "log": {"format": "json"},
            "channels": [{"pattern": "room:*", "join": "authenticated", "push": "broadcast"}],
        }

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def public_url(self) -> str:
        """Base URL of the public listener."""
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def internal_url(self) -> str:
        """Base URL of the internal listener."""
        return f"http://127.0.0.1:{self.internal_port}"

    @property
    def socket_url(self) -> str:
        """What a WebSocket client connects to, without a query."""
        return f"ws://127.0.0.1:{self.public_port}/socket/websocket"

    def start(self, *, ready: bool = True) -> None:
        """Start it; returns once it is ready, or with ``ready=False`` once it is alive."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        config = str(self._directory / "gateway.toml")
        command = (*self._command, "serve", "--config", config, *self._arguments)
        self._process = Forked(command, environment, self._log_path)
        deadline = time.monotonic() + START_SECONDS
        path = "/readyz" if ready else "/livez"
        while self.get(path)[0] != 200:
            assert self._process.poll() is None, f"it ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"{path} does not turn 200:\n{self.log()}"
            time.sleep(0.02)

    def get(self, path: str) -> tuple[int, bytes]:
        """GET from the internal listener; status 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.internal_url}{path}", timeout=20) as response:  # noqa: S310 -- always http
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric, ``gateway_`` left away; 0 when there is none with these labels."""
        wanted = f"gateway_{name}"
        for line in self.get("/metrics")[1].decode().splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            pairs = dict(pair.split("=", 1) for pair in rest.rstrip("}").split(",") if "=" in pair)
            if found == wanted and all(pairs.get(k) == f'"{v}"' for k, v in labels.items()):
                return float(value)
        return 0.0

    def log(self) -> str:
        """The end of what it logged."""
        return (
            self._log_path.read_text(errors="replace")[-LOG_TAIL:]
            if self._log_path.exists()
            else ""
        )

    def log_lines(self) -> list[dict[str, Any]]:
        """All it logged as JSON."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def full_log(self) -> str:
        """All it wrote, as text."""
        return self._log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout)

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


def to_toml(config: dict[str, Any]) -> str:
    """A configuration as TOML: tables, and arrays of tables."""
    lines: list[str] = []
    for section, values in config.items():
        if isinstance(values, list):
            for item in values:
                lines += [f"[[{section}]]", *(f"{k} = {_value(v)}" for k, v in item.items())]
        else:
            lines += [f"[{section}]", *(f"{k} = {_value(v)}" for k, v in values.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)
