"""Real nats-servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.ports import free_port
from tests.support.routes import Link, Links

START_SECONDS = 60.0


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
        config = self._configure(self.extra)
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

    def reload(self, extra: str) -> None:
        """Have it read other lines of configuration."""
        self._configure(extra)
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it without a goodbye."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Remove what its JetStream kept; to be done while it is not running."""
        shutil.rmtree(self.store / "js", ignore_errors=True)

    def stop(self) -> None:
        """End it in order; does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang: connections stay, and nothing is answered once this returns."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # its threads stop one by one

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _configure(self, extra: str) -> Path:
        config = self.store / "nats.conf"
        config.write_text(f"listen: 127.0.0.1:{self.port}\n{extra}\n")
        return config

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


class NatsCluster:
    """Three servers that keep streams together; the routes between them can be cut one by one.

    Args:
        store: Directory for a directory of each server.
        extra: Lines for the configuration of each.

    Attributes:
        servers: The servers, called ``n0``, ``n1`` and ``n2``.
    """

    SIZE = 3

    def __init__(self, store: Path, extra: str = "") -> None:
        self._links = Links()
        self.servers = [NatsServer(store / f"n{number}") for number in range(self.SIZE)]
        ports = [free_port() for _ in self.servers]
        nowhere = free_port()  # servers tell of each other; there must be no way beside the links
        self._between: dict[tuple[int, int], Link] = {
            (here, there): self._links.add(ports[there])
            for here in range(self.SIZE)
            for there in range(self.SIZE)
            if here != there
        }
        for here, server in enumerate(self.servers):
            routes = ", ".join(
                f'"nats://127.0.0.1:{link.port}"'
                for (start, _), link in self._between.items()
                if start == here
            )
            server.extra = f"""
server_name: n{here}
cluster {{
  name: c, listen: "127.0.0.1:{ports[here]}", routes: [{routes}]
  cluster_advertise: "127.0.0.1:{nowhere}", no_advertise: true
}}
{extra}
"""

    @property
    def url(self) -> str:
        """Where clients connect: to any of them."""
        return ",".join(server.url for server in self.servers)

    def start(self) -> None:
        """Start all servers; they need some seconds more to find each other."""
        for server in self.servers:
            server.start()

    def stop(self) -> None:
        """End all servers, and the links between them."""
        for server in self.servers:
            server.kill()
        self._links.stop()

    def named(self, name: str) -> NatsServer:
        """A server by its name."""
        return self.servers[int(name.removeprefix("n"))]

    def cut(self, one: int, other: int) -> None:
        """Break the route between two servers, and let none come to be."""
        for link in self._ways(one, other):
            self._links.cut(link)

    def heal(self, one: int, other: int) -> None:
        """Let two servers reach each other again."""
        for link in self._ways(one, other):
            self._links.heal(link)

    def _ways(self, one: int, other: int) -> tuple[Link, Link]:
        return self._between[one, other], self._between[other, one]
