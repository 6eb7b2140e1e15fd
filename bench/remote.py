"""An object in a process of its own, such as all clients of a server."""

import contextlib
import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from bench.wire import LoadError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class Closable(Protocol):
    """What has something to give back in the end."""

    def close(self) -> None:
        """Give it back."""


T = TypeVar("T", bound=Closable)
P = ParamSpec("P")
R = TypeVar("R")


class Remote(Generic[T]):
    """The process; entering starts it, leaving ends it.

    Args:
        make: Makes the object, over there.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, remote), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5.0)

    def call(
        self,
        seconds: float,
        method: Callable[Concatenate[T, P], R],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> R:
        """Call a method of the object's class on it.

        Raises:
            LoadError: It failed, or took longer than ``seconds``.
        """
        self._pipe.send((method.__name__, arguments, named))
        if not self._pipe.poll(seconds):
            raise LoadError(f"{method.__name__} takes more than {seconds:.0f} s")
        try:
            failure, result = self._pipe.recv()
        except EOFError:
            raise LoadError("the clients' process ended") from None
        if failure:
            raise LoadError(failure)
        answer: R = result
        return answer


def _serve(make: Callable[[], Closable], pipe: "Connection[Any, Any]") -> None:
    """Call what comes through the pipe until it is closed; answer with what went wrong, or the result."""
    with contextlib.closing(make()) as served, contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            name, arguments, named = pipe.recv()
            try:
                result = getattr(served, name)(*arguments, **named)
            except (LoadError, OSError) as error:
                pipe.send((f"{name}: {type(error).__name__}: {error}", None))
            else:
                pipe.send(("", result))
