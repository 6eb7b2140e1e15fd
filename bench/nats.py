"""A nats-server for the scenarios with several replicas, or with one that could have others."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.proc import Cpu, cpu_of

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 5.0
_READY: Final = re.compile(r"Listening for client connections on 127\.0\.0\.1:(\d+)")
_MONITOR: Final = re.compile(r"Starting http monitor on 127\.0\.0\.1:(\d+)")


class Nats:
    """NATS with JetStream, on a port it chooses, on the core given; entering starts it, leaving ends it."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._directory = tempfile.TemporaryDirectory(prefix="bench-nats-")
        self.directory = Path(self._directory.name)
        self._log = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self.monitor = ""

    def __enter__(self) -> Self:
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.exists() else shutil.which("nats-server")
        if binary is None:
            raise SystemExit("bench: nats-server is missing")
        before = os.sched_getaffinity(0)
        with self._log.open("wb") as log:
            os.sched_setaffinity(0, {self._core})
            try:
                self._process = subprocess.Popen(
                    [binary, *self.arguments()], stdout=log, stderr=log
                )
            finally:
                os.sched_setaffinity(0, before)
        try:
            self._await_ready(self._process)
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
        self._stop()

    def arguments(self) -> list[str]:
        """What it is told."""
        return [*("-a", "127.0.0.1", "-p", "-1", "-m", "-1"), "-js", "-sd", str(self.directory)]

    def cpu(self) -> Cpu:
        """CPU time it has used."""
        assert self._process is not None
        return cpu_of(self._process.pid)

    def messages(self) -> int:
        """Messages that clients have sent to it."""
        with urllib.request.urlopen(f"{self.monitor}/varz", timeout=5) as answer:  # noqa: S310 -- always http
            return int(json.load(answer)["in_msgs"])

    def _await_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            log = self._log.read_text(errors="replace")
            if "Server is ready" in log:
                clients, monitor = _READY.search(log), _MONITOR.search(log)
                assert clients is not None  # both are logged before that
                assert monitor is not None
                self.url = f"nats://127.0.0.1:{clients[1]}"
                self.monitor = f"http://127.0.0.1:{monitor[1]}"
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nats-server does not start:\n{log}")
            time.sleep(0.02)

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
