"""The nats-server of several workers that have no other bus: on loopback, with a credential of its own."""

import asyncio
import fcntl
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from gateway.config import Config
from gateway.config.check import ENVELOPE_ROOM_BYTES
from gateway.errors import ConfigError, GatewayError
from gateway.workers.backoff import Backoff

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 5.0

LEAST_PAYLOAD_BYTES: Final = 1_048_576
"""nats-server's own default."""

_USER: Final = "gateway"

_CONFIG: Final = """\
listen: "127.0.0.1:{port}"
max_payload: {max_payload}
authorization {{ user: {user}, password: "{password}" }}
jetstream {{ store_dir: "{store}" }}
"""

_LAUNCHER: Final = """\
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes nats-server, which watches nobody: so the kernel ends it with the process that started it."""

_LINE: Final = re.compile(r"(?:\[\d+\] \S+ \S+ )?\[(\w+)\] (.*)")
_EXPECTED: Final = "Plaintext passwords detected"
"""What it says of a credential that nobody else can read, which lives as long as this process."""

_LEVELS: Final = {"WRN": logging.WARNING, "ERR": logging.ERROR, "FTL": logging.ERROR}

_log = structlog.get_logger(__name__)


def find_binary(configured: str) -> str:
    """Path of nats-server: the one configured, on the PATH, or beside this Python.

    Raises:
        ConfigError: There is none.
    """
    if configured:
        if found := shutil.which(configured):
            return found
        raise ConfigError(f'bus.server_binary: "{configured}" is no program')
    beside = str(Path(sys.executable).parent)  # where the extra has put it
    if found := shutil.which("nats-server") or shutil.which("nats-server", path=beside):
        return found
    raise ConfigError(
        'bus.url: "memory://" is for one process; several workers need nats-server, which is not there:'
        " install gateway[nats], put nats-server on the PATH, or name it in bus.server_binary"
    )


class LocalNats:
    """The server; it is started again when it dies, on the same port and store.

    Args:
        binary: Path of nats-server.
        store: The directory of its store; nobody else may use it.
        restarted: Called at each restart.

    Raises:
        ConfigError: The store is in use, or cannot be written.
    """

    def __init__(
        self, config: Config, *, binary: str, store: Path, restarted: Callable[[], None]
    ) -> None:
        self._binary = binary
        self._store = store
        self._restarted = restarted
        self._password = secrets.token_urlsafe(32)
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._began_at = 0.0
        self._last_words = ""
        self._lock = _locked(store)
        self._configure(config)

    @property
    def url(self) -> str:
        """Where the workers connect, credential included."""
        return f"nats://{_USER}:{self._password}@127.0.0.1:{self._port}"

    def reload(self, config: Config) -> None:
        """Have it follow another configuration of the workers."""
        self._configure(config)
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def start(self) -> None:
        """Start it; returns when it takes connections.

        Raises:
            GatewayError: It does not start; with its words.
        """
        process = await self._launch()
        deadline = time.monotonic() + START_SECONDS
        while not await self._listens():
            if process.returncode is not None or time.monotonic() > deadline:
                raise GatewayError(f"nats-server does not start: {self._last_words or 'no reason'}")
            await asyncio.sleep(0.02)

    async def keep(self) -> None:
        """Start it again whenever it has died, until this is cancelled."""
        backoff = Backoff()
        while True:
            assert self._process is not None  # noqa: S101 -- it was started
            code = await self._process.wait()
            delay = backoff.died(time.monotonic() - self._began_at)
            _log.error("nats-server died", code=code, said=self._last_words, again_seconds=delay)
            await asyncio.sleep(delay)
            self._restarted()
            await self._launch()

    async def stop(self) -> None:
        """End it, once nobody needs it."""
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        os.close(self._lock)

    def _configure(self, config: Config) -> None:
        path = self._store / "nats-server.conf"
        text = _CONFIG.format(
            port=self._port,
            user=_USER,
            password=self._password,
            max_payload=max(
                LEAST_PAYLOAD_BYTES, config.limits.max_message_bytes + ENVELOPE_ROOM_BYTES
            ),
            store=self._store,
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)

    async def _launch(self) -> asyncio.subprocess.Process:
        self._began_at = time.monotonic()
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _LAUNCHER,
            str(os.getpid()),
            self._binary,
            "-c",
            str(self._store / "nats-server.conf"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # the store stays locked as long as it lives, whatever becomes of this process
            pass_fds=(self._lock,),
            process_group=0,
        )
        assert process.stderr is not None  # noqa: S101 -- it is a pipe
        self._reader = asyncio.create_task(self._read(process.stderr))
        _log.info("nats-server started", pid=process.pid, port=self._port, store=str(self._store))
        return process

    async def _read(self, lines: asyncio.StreamReader) -> None:
        """Have what it complains of in the log."""
        async for line in lines:
            text = line.decode(errors="replace").strip()
            found = _LINE.fullmatch(text)
            level, said = found.groups() if found is not None else ("", text)
            if (found is None or level in _LEVELS) and not said.startswith(_EXPECTED):
                self._last_words = said
                number = _LEVELS.get(level, logging.ERROR)
                _log.log(number, "nats-server says", said=said, throttle=level)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _locked(store: Path) -> int:
    """A descriptor that locks a store, for as long as it is open in any process."""
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(store / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise ConfigError(f'bus.store_directory: "{store}": {problem.strerror}') from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(descriptor)
        raise ConfigError(f'bus.store_directory: "{store}" is in use') from problem
    return descriptor
