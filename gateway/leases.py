"""Reference counting for what is opened once and shared: open while anybody holds a lease on it.

The first who wants a resource has it opened, all who come meanwhile wait for the same opening, and a while
after the last lease was closed the resource is closed too.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

Value = TypeVar("Value")


class _Counted(Protocol):
    """What a lease is on."""

    def released(self, *, linger: bool) -> None: ...


class Lease:
    """The right to find a resource open until :meth:`close`."""

    __slots__ = ("_on",)

    def __init__(self, on: _Counted) -> None:
        self._on: _Counted | None = on

    def close(self, *, linger: bool = True) -> None:
        """Give it back; the last one closes the resource, after a while or at once. Idempotent."""
        on, self._on = self._on, None
        if on is not None:
            on.released(linger=linger)


class _Resource(Generic[Value]):
    """Something that is open, about to be, or open no longer than it lingers.

    Attributes:
        value: What its opening returned; None before that.
        holders: Leases not closed, those of callers who wait for the opening among them.
        opening: The attempt under way, shared by all who wait.
        timer: Closes it, as nobody holds it any more.
    """

    __slots__ = ("_leases", "holders", "name", "opening", "timer", "value")

    def __init__(self, name: str, leases: "Leases[Value]") -> None:
        self._leases = leases
        self.name = name
        self.value: Value | None = None
        self.holders = 0
        self.opening: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def lease(self) -> Lease:
        self.holders += 1
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return Lease(self)

    def released(self, *, linger: bool) -> None:
        self.holders -= 1
        self._leases.tidy(self, linger=linger)


class Leases(Generic[Value]):
    """The resources of one kind, by name.

    Args:
        close: Closes one; given its name, and what its opening returned.
        linger_seconds: How long one stays open after its last lease.
    """

    def __init__(self, close: Callable[[str, Value], None], *, linger_seconds: float) -> None:
        self._close = close
        self._linger_seconds = linger_seconds
        self._resources: dict[str, _Resource[Value]] = {}
        self._open = 0

    def __len__(self) -> int:
        """How many are open, those that linger among them."""
        return self._open

    def try_acquire(self, name: str, opening: Callable[[], Value | None]) -> Lease | None:
        """A lease on what is open, or can be opened without waiting; else None.

        Args:
            opening: Opens it; None where that takes longer. Not called while it is being opened.
        """
        resource = self._resources.get(name)
        if resource is None and (value := opening()) is not None:
            resource = self._resources[name] = _Resource(name, self)
            resource.value = value
            self._open += 1
        return None if resource is None or resource.value is None else resource.lease()

    def value(self, name: str) -> Value | None:
        """What an opening returned; None where it is not open."""
        resource = self._resources.get(name)
        return None if resource is None else resource.value

    async def acquire(self, name: str, opening: Callable[[], Coroutine[Any, Any, Value]]) -> Lease:
        """A lease on a resource, which is opened if it is not open.

        Args:
            opening: Opens it; what it returns is not None. It is called unless another one is under way,
                and never cancelled: when nobody waits for it any more, the resource lingers.

        Raises:
            Exception: What the opening raised, for all who waited for it; the next one tries again.
        """
        resource = self._resources.get(name)
        if resource is None:
            resource = self._resources[name] = _Resource(name, self)
        lease = resource.lease()
        try:
            if resource.value is None:
                if resource.opening is None:
                    resource.opening = asyncio.create_task(self._carry_out(resource, opening))
                    # if all who waited were cancelled, nobody else would look at what became of it
                    resource.opening.add_done_callback(
                        lambda task: task.cancelled() or task.exception()
                    )
                # shielded, because others may wait for it too
                await asyncio.shield(resource.opening)
        except BaseException:
            lease.close()
            raise
        return lease

    async def _carry_out(
        self, resource: _Resource[Value], opening: Callable[[], Coroutine[Any, Any, Value]]
    ) -> None:
        try:
            resource.value = await opening()
            self._open += 1
        finally:
            resource.opening = None
            self.tidy(resource)

    def tidy(self, resource: _Resource[Value], *, linger: bool = True) -> None:
        """Let go of a resource nobody holds: at once if it never was open, else after a while."""
        if resource.holders or resource.opening is not None:
            return
        if resource.value is None:
            del self._resources[resource.name]
        elif linger:
            resource.timer = asyncio.get_running_loop().call_later(
                self._linger_seconds, self._end, resource
            )
        else:
            self._end(resource)

    def _end(self, resource: _Resource[Value]) -> None:
        resource.timer = None  # which knows the resource: a cycle, that waits for the collector
        del self._resources[resource.name]
        self._open -= 1
        if resource.value is not None:
            self._close(resource.name, resource.value)
