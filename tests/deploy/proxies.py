"""The proxies of ``deploy/``, run with the files that are there, in front of two replicas."""

import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from tests.support.ports import free_port

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
START_SECONDS: Final = 60.0


def nginx(text: str, directory: Path) -> tuple[str, list[str]]:
    """The file of nginx with this machine's paths, and the command."""
    text = text.replace("/var/log/nginx/", f"{directory}/")
    text = re.sub(r"worker_(rlimit_nofile|connections) \d+;", r"worker_\1 512;", text)
    main = f"daemon off; pid {directory}/pid;"
    return text, ["nginx", "-p", str(directory), "-c", "proxy.conf", "-g", main]


def haproxy(text: str, directory: Path) -> tuple[str, list[str]]:
    """HAProxy's."""
    text = text.replace("maxconn 100000", "maxconn 500").replace("check port 4001", "check")
    return text, ["haproxy", "-db", "-f", str(directory / "proxy.conf")]


def caddy(text: str, directory: Path) -> tuple[str, list[str]]:
    """Caddy's."""
    text = text.replace("\n{\n", "\n{\n\tadmin off\n", 1)
    # it has one port for all servers, and here each replica has its own
    text = re.sub(r"\t+health_.*\n", "", text)
    return text, ["caddy", "run", "--adapter", "caddyfile", "--config", f"{directory}/proxy.conf"]


FILES: Final[dict[str, tuple[str, Callable[[str, Path], tuple[str, list[str]]]]]] = {
    "nginx": ("nginx/nginx.conf", nginx),
    "haproxy": ("haproxy/haproxy.cfg", haproxy),
    "caddy": ("caddy/Caddyfile", caddy),
}


class Replica(Protocol):
    """The ports of one."""

    @property
    def public_port(self) -> int:
        """Where clients connect."""

    @property
    def internal_port(self) -> int:
        """Where it says whether it is ready."""


class Proxy:
    """One of them.

    Attributes:
        command: What runs it, on the file that was written.
        public_url: What clients connect to.
    """

    def __init__(self, name: str, directory: Path, replicas: Sequence[Replica]) -> None:
        self.name = name
        self.directory = directory
        self.port = free_port()
        self.public_url = f"http://127.0.0.1:{self.port}"
        self.socket_url = f"ws://127.0.0.1:{self.port}/socket/websocket"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        file, adapt = FILES[name]
        text, self.command = adapt((DEPLOY / file).read_text(), directory)
        self.text = self._here(text, replicas)
        (directory / "proxy.conf").write_text(self.text)

    def _here(self, text: str, replicas: Sequence[Replica]) -> str:
        """The file with the addresses of this machine in place of those it names."""
        listens = {"nginx": "listen 80;", "haproxy": "bind :80", "caddy": "\n:80 {"}[self.name]
        assert text.count(listens) == 1
        text = text.replace(listens, re.sub(":?80", self._listen(), listens))
        for number, replica in enumerate(replicas, 1):
            address = f"127.0.0.1:{replica.public_port}"
            if self.name == "haproxy":
                address += f" port {replica.internal_port}"
            text, found = re.subn(rf"gateway-{number}:4000", address, text)
            assert found == 1
        return text

    def _listen(self) -> str:
        return f":{self.port}" if self.name == "caddy" else f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self.get("/none") == 0:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def get(self, path: str) -> int:
        """Status of a GET; 0 without an answer."""
        try:
            with urllib.request.urlopen(f"{self.public_url}{path}", timeout=5) as response:  # noqa: S310 -- always http
                status: int = response.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def log(self) -> str:
        """All it logged."""
        files = self.directory.glob("*log")
        return "".join(file.read_text(errors="replace") for file in files)


def binary(name: str) -> str | None:
    """Path of a proxy; Debian's are where the PATH of a user does not lead."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
