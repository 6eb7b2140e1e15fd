"""The command ``gateway``."""

import signal
import sys


def main() -> None:
    """Entry point of the command."""
    # Loading the rest takes a while, in which a signal would have no effect on process 1 of a container.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from gateway.cli.commands import app  # noqa: PLC0415 -- see above

    app()
