"""A gateway that can be asked what its memory consists of; the gateway itself knows nothing of it.

It runs ``python -m gateway`` with the arguments that follow, and a thread beside it that answers on a
Unix socket: each line ``types``, ``lines`` or
``blocks`` with a line of JSON.

    python census.py SOCKET [traced] serve --config FILE
"""

import gc
import json
import runpy
import socket
import sys
import threading
import tracemalloc
import types
from collections import Counter, deque
from typing import Any

Sizes = dict[str, tuple[int, int]]
"""Number and bytes, by name."""

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_PARTS = (
    *_CONTAINERS,
    str,
    bytes,
    bytearray,
    int,
    float,
    types.CellType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinMethodType,
)
"""Types that say nothing by themselves: they are named with the type of an object that has them."""

_INLINE_VALUES = sys.version_info < (3, 13)
"""Whether sys.getsizeof leaves out the attributes of an object whose ``__dict__`` nobody has asked for."""


def by_type() -> Sizes:
    """All objects there are, by type; parts of others by their own type and the owner's."""
    gc.unfreeze()  # the registries grow, too
    gc.collect()
    objects = gc.get_objects()
    named = {id(each): _name(type(each)) for each in objects if not isinstance(each, _PARTS)}
    queue = deque(each for each in objects if id(each) in named)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    samples: dict[str, Any] = {}
    while queue:
        owner = queue.popleft()
        name = named[id(owner)]
        counts[name] += 1
        sizes[name] += _size(owner)
        samples.setdefault(name, owner)
        for part in gc.get_referents(owner):
            if id(part) not in named:
                kind = _name(type(part))
                owned = f"{kind} of {name.rpartition(' of ')[2]}"
                named[id(part)] = owned if isinstance(part, _PARTS) else kind
                queue.append(part)
    if _INLINE_VALUES:
        for name, values in _inline_values(samples).items():
            sizes[name] += counts[name] * values
    return {name: (count, sizes[name]) for name, count in counts.items()}


def by_line() -> Sizes:
    """What is allocated, by the line of Python that did; in all as ``total``."""
    gc.collect()
    statistics = tracemalloc.take_snapshot().statistics("lineno")
    found = {
        f"{each.traceback[0].filename}:{each.traceback[0].lineno}": (each.count, each.size)
        for each in statistics
    }
    return found | {"total": (0, sum(each.size for each in statistics))}


def blocks() -> int:
    """Pieces of memory in use, garbage not included."""
    gc.collect()
    return sys.getallocatedblocks()


def _name(kind: type) -> str:
    return (
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )


def _size(each: Any) -> int:
    """As the allocator rounds it."""
    try:
        return (sys.getsizeof(each) + 15) // 16 * 16
    except Exception:  # noqa: BLE001 -- some types of libraries cannot tell
        return 0


def _inline_values(samples: dict[str, Any]) -> dict[str, int]:
    """Bytes of the attributes that are kept beside an object without a dict, at least.

    It is found out with one object of each type, which gets a dict by that.
    """
    found = {}
    for name, sample in samples.items():
        kept_inline = type(sample).__flags__ & 1 << 4 and type(sample).__module__ != "builtins"
        if kept_inline and not any(type(each) is dict for each in gc.get_referents(sample)):
            found[name] = ((len(vars(sample)) + 1) * 8 + 15) // 16 * 16
    return found


def answer(listener: socket.socket) -> None:
    """Answer whoever asks, for as long as the process lives."""
    asked = {"types": by_type, "lines": by_line, "blocks": blocks}
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as lines:
            for line in lines:
                lines.write(json.dumps(asked[line.strip()]()) + "\n")
                lines.flush()


def main() -> None:
    """Run both."""
    path, *arguments = sys.argv[1:]
    if arguments[0] == "traced":
        arguments = arguments[1:]
        tracemalloc.start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    threading.Thread(target=answer, args=(listener,), daemon=True).start()
    sys.argv = ["gateway", *arguments]
    runpy.run_module("gateway", run_name="__main__")


if __name__ == "__main__":
    main()
