"""A server's process: pinned start, CPU and memory as the kernel counts them, certain end."""

import contextlib
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.servers import Server

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """Which core runs what.

    Attributes:
        server: Of the server under test, with all its threads.
        load: Of the clients, and of whatever else the benchmark does.
    """

    server: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """The first two cores this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise SystemExit("bench: needs two cores, one for the server and one for its clients")
        return cls(allowed[0], allowed[1])


@dataclass(frozen=True)
class Cpu:
    """CPU time of a process and its threads, in seconds."""

    user: float
    kernel: float

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user - other.user, self.kernel - other.kernel)


def cpu_of(pid: int) -> Cpu:
    """CPU time a process has used: exact, its kernel's part in steps of a clock tick (10 ms as a rule)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    kernel = int(fields[12]) / _TICKS
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended
            used += int((thread / "schedstat").read_text().split()[0])
    return Cpu(used / 1e9 - kernel, kernel)


class ServerProcess:
    """A running server; entering starts it, leaving ends it.

    Attributes:
        server: What runs.
    """

    def __init__(self, server: Server, cores: Cores) -> None:
        self.server = server
        self._cores = cores
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self._log = Path(self._directory.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
            self._await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(f"the server's log ends:\n{self._log_tail()}")
        self._stop()

    @property
    def pid(self) -> int:
        """Process id."""
        if self._process is None:
            return self.server.running_pid
        return self._process.pid

    def cpu(self) -> Cpu:
        """See :func:`cpu_of`."""
        return cpu_of(self.pid)

    def resident_bytes(self) -> int:
        """Resident set size; counted page by page, which VmRSS is not."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Rss in smaps_rollup")

    def _start(self) -> None:
        if pid := self.server.running_pid:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {self._cores.server})
            return
        command = self.server.command(Path(self._directory.name))
        with self._log.open("wb") as log:
            # a child starts with its parent's affinity, and so do all threads it makes
            os.sched_setaffinity(0, {self._cores.server})
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.server.environment(),
                )
            finally:
                os.sched_setaffinity(0, {self._cores.load})

    def _await_ready(self) -> None:
        if self._process is None:
            return
        url = f"http://127.0.0.1:{self.server.publish_port}{self.server.ready_path}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not start:\n{self._log_tail()}")
            time.sleep(0.05)

    def _stop(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        self._directory.cleanup()

    def _log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 -- always http
            status: int = response.status
            return 200 <= status < 300
    except (urllib.error.URLError, OSError):
        return False
