"""``gateway serve``: run a replica until it is told to stop."""

import signal
import sys
from typing import Annotated, Final, TypeAlias

import typer

from gateway.cli.options import Assignments, ConfigFile, Dev, Failure, read_to_serve
from gateway.config import Config, Loaded, resolve_replica
from gateway.config.address import reachable
from gateway.config.check import warnings
from gateway.config.dev import API_KEY
from gateway.config.load import DEFAULT, effective
from gateway.errors import ConfigError

MOST_WORKERS: Final = 1024

_DEV: Final = """
  Development mode: anyone may join any topic, the user is whoever ?user_id= says, and only
  this machine can connect. Topics have presence, and a history of 100 messages and 5 minutes.
  Open the page, then publish to it:

    page     http://{public}/
    socket   ws://{public}/socket
    console  http://{internal}/console (sign in with the API key)
    API key  {key}

    curl http://{internal}/v1/publish -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"topic": "room:demo", "event": "message", "payload": {{"body": "hello"}}}}'
"""


Workers: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NUMBER",
        help="Replicas to run, below a supervisor; auto for one on each core.",
    ),
]


def serve(
    *,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
    workers: Workers = "1",
) -> None:
    """Run a replica until SIGTERM or Ctrl-C. A second one ends it without waiting."""
    # Until the event loop listens for it; as process 1 of a container it would have no effect at all.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    number = _number(workers)
    loaded = read_to_serve(config, dev, assignments)
    settings = loaded.config
    # the other commands need neither the log nor the server's libraries
    from gateway import log  # noqa: PLC0415

    log.set_up(level=settings.log.level, style=settings.log.format)
    _report(loaded)
    if dev:
        typer.echo(_dev_block(settings), err=True)
    try:
        if number == 1:
            from gateway.app.replica import run  # noqa: PLC0415

            code = run(resolve_replica(settings))
        else:
            from gateway.workers import pool  # noqa: PLC0415

            code = pool.run(settings, number, read=lambda: _read_anew(config, dev, assignments))
    except OSError as problem:  # a port that is taken, a certificate that is none
        raise Failure(f"cannot serve: {problem.strerror or type(problem).__name__}") from problem
    raise typer.Exit(code)


def _number(workers: str) -> int:
    """How many workers are wanted.

    Raises:
        ConfigError: It is no number of them.
    """
    if workers == "auto":
        from gateway.app.capacity import cores  # noqa: PLC0415 -- as above

        return cores()
    if workers.isdecimal() and 1 <= int(workers) <= MOST_WORKERS:
        return int(workers)
    raise ConfigError(f"--workers: must be a number from 1 to {MOST_WORKERS}, or auto")


def _read_anew(file: str | None, dev: bool, assignments: list[str] | None) -> Config:
    from gateway import log  # noqa: PLC0415 -- as above

    loaded = read_to_serve(file, dev, assignments)
    log.set_up(level=loaded.config.log.level, style=loaded.config.log.format)
    _report(loaded)
    return loaded.config


def _report(loaded: Loaded) -> None:
    """Log what was configured, with its warnings."""
    import structlog  # noqa: PLC0415 -- as above

    logger = structlog.get_logger(__name__)
    changed = {key: value for key, value, origin in effective(loaded) if origin != DEFAULT}
    logger.info("configured", file=loaded.file, **changed)
    for warning in warnings(loaded.config):
        logger.warning("configuration is doubtful", problem=warning)


def _dev_block(config: Config) -> str:
    return _DEV.format(
        public=reachable(config.server.public),
        internal=reachable(config.server.internal),
        key=API_KEY,
    )
