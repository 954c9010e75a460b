"""Both clients whole, with one interface for tests that block: streams, submitted calls and maps included."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from reliable import (
    AsyncMapResults,
    AsyncPendingCall,
    AsyncStream,
    Client,
    PendingCall,
)
from tests.support.loopback import LoopThread, ShellKind

__all__ = ["Caller", "Pending", "Reader"]

ResultT = TypeVar("ResultT")


class Reader:
    """A stream or the results of a map, of either shell."""

    def __init__(self, source: Any, loop: LoopThread | None) -> None:
        self.source = source
        self._loop = loop

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._loop is None:
            return next(self.source)
        try:
            return self._loop.run(_next(self.source))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        if self._loop is None:
            self.source.close()
        else:
            self._loop.run(self.source.aclose())

    def drop(self) -> None:
        """Let go of it without a word."""
        self.source = None


async def _next(source: AsyncStream | AsyncMapResults) -> object:
    return await anext(source)


class Pending:
    """A submitted call of either shell."""

    def __init__(self, future: PendingCall | AsyncPendingCall, loop: LoopThread | None) -> None:
        self.future = future
        self._loop = loop

    @property
    def call_id(self) -> bytes:
        return self.future.call_id

    def result(self, timeout: float = 10.0) -> Any:
        if self._loop is None:
            assert isinstance(self.future, PendingCall)
            return self.future.result(timeout)
        future = self.future

        async def wait() -> object:
            assert isinstance(future, AsyncPendingCall)
            return await future

        return self._loop.run(wait(), timeout)

    def error(self, timeout: float = 10.0) -> BaseException:
        try:
            return AssertionError(f"a result: {self.result(timeout)!r}")
        except (Exception, CancelledError) as error:
            return error

    def cancel(self) -> bool:
        return _here(self._loop, self.future.cancel)

    def done(self) -> bool:
        return self.future.done()


def _here(loop: LoopThread | None, function: Callable[[], ResultT]) -> ResultT:
    """Call it where it has to be called."""
    if loop is None:
        return function()

    async def run() -> ResultT:
        return function()

    return loop.run(run())


class Caller:
    """A client or a view of either shell."""

    def __init__(self, client: Any, loop: LoopThread | None) -> None:
        self.client = client
        self._loop = loop

    @classmethod
    def of(cls, shell: ShellKind, *brokers: str, **options: Any) -> Caller:
        """A client that is closed at the end of the test."""
        made = shell.client(*brokers, **options)
        return cls(made if isinstance(made, Client) else made.client, shell.loop)  # type: ignore[attr-defined]

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        function = getattr(self.client, method)
        if self._loop is None:
            return function(*args, **kwargs)
        made: Coroutine[Any, Any, Any] = function(*args, **kwargs)
        return self._loop.run(made)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("request", *args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("call", *args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("send", *args, **kwargs)

    def ping(self, **kwargs: Any) -> float:
        return float(self._do("ping", **kwargs))

    def wait_ready(self, *args: Any, **kwargs: Any) -> Any:
        return self._do("wait_ready", *args, **kwargs)

    def close(self) -> None:
        self._do("close")

    def options(self, **options: Any) -> Caller:
        return Caller(self.client.options(**options), self._loop)

    def proxy(self, name: str) -> Any:
        return self.client.service(name)

    def ask(self, proxy: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what ``proxy`` gave."""
        return proxy(*args, **kwargs) if self._loop is None else self._loop.run(proxy(*args, **kwargs))

    def submit(self, *args: Any, **kwargs: Any) -> Pending:
        return Pending(_here(self._loop, lambda: self.client.submit(*args, **kwargs)), self._loop)

    def stream(self, *args: Any, **kwargs: Any) -> Reader:
        return Reader(_here(self._loop, lambda: self.client.stream(*args, **kwargs)), self._loop)

    def map(self, *args: Any, **kwargs: Any) -> Reader:
        return Reader(_here(self._loop, lambda: self.client.map(*args, **kwargs)), self._loop)

    def cancel(self, call_id: bytes) -> bool:
        """From this thread, which is not the one of the loop."""
        return bool(self.client.cancel(call_id))

    @property
    def open_calls(self) -> int:
        """As the client counts them."""
        snapshot = self.client.snapshot()
        return 0 if snapshot is None else int(snapshot.calls)
