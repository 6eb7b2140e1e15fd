"""Runs a gateway that says what it holds: ``python -m tests.soak.census DIRECTORY serve …``.

At SIGUSR1 it writes ``PID.json`` there: the number of its tasks, and of objects of each of its types. At
SIGUSR2 it collects garbage first, so that only what something holds is counted.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from gateway.cli import main


def _count(directory: Path, *, collect: bool) -> None:
    if collect:
        gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    objects = Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if kind.__module__.partition(".")[0] == "gateway"
    )
    tasks = sum(issubclass(kind, asyncio.Task) for kind in kinds)
    file = directory / f"{os.getpid()}.json"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"tasks": tasks, "objects": objects}))
    draft.rename(file)


if __name__ == "__main__":
    where = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: _count(where, collect=False))
    signal.signal(signal.SIGUSR2, lambda *_: _count(where, collect=True))
    main()
