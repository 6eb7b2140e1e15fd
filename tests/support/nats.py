"""A real nats-server."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.ports import free_port

START_SECONDS = 20.0


def nats_server_binary() -> str | None:
    """Path of nats-server: beside this Python, or on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


class NatsServer:
    """One server, on the same port through any number of restarts.

    Args:
        store: Directory for its JetStream files and its log.
        extra: Lines for its configuration file, such as ``max_payload: 8192``.
        jetstream: Whether it has JetStream.
    """

    def __init__(self, store: Path, extra: str = "", *, jetstream: bool = True) -> None:
        self.port = free_port()
        self.store = store
        self.extra = extra
        self.jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it accepts connections."""
        binary = nats_server_binary()
        assert binary is not None, "nats-server is missing"
        self.store.mkdir(parents=True, exist_ok=True)
        config = self.store / "nats.conf"
        config.write_text(f"listen: 127.0.0.1:{self.port}\n{self.extra}\n")
        command = [binary, "-c", str(config)]
        if self.jetstream:
            command += ["-js", "-sd", str(self.store / "js")]
        with (self.store / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, (self.store / "nats.log").read_text()
                assert time.monotonic() < deadline, "nats-server does not start"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it without a goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order; does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang: connections stay and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)  # a stopped process would not see SIGTERM
        self._signal(number)
        self._process.wait(timeout=START_SECONDS)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
