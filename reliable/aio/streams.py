"""A reply in parts, read by the asyncio client."""

from __future__ import annotations

import asyncio

from reliable.aio.pump import AsyncClientPump
from reliable.calling import OnProgress
from reliable.open_calls import NO_PART, OpenCall
from reliable.payload import Codec
from reliable.protocol.events import Submit

__all__ = ["AsyncStream", "Bell"]


class Bell:
    """Lets one task sleep until something happened; rung in the thread of its loop only."""

    def __init__(self) -> None:
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the one that sleeps."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def wait(self) -> None:
        """Sleep until the next ``ring``; look first whether there is anything to sleep for.

        Raises:
            RuntimeError: Another task sleeps here.
        """
        if self._sleeper is not None:
            raise RuntimeError("another task is reading this already")
        self._sleeper = asyncio.get_running_loop().create_future()
        try:
            await self._sleeper
        finally:
            self._sleeper = None


class AsyncStream:
    """The parts of a streamed reply, as they come; from ``AsyncClient.stream``.

    Iterate over it once, in one task at a time. A task that is cancelled while it waits for a part loses none. Closing
    it, also by leaving an ``async with`` block, cancels the call if it is still open; so does dropping it.
    """

    def __init__(
        self,
        pump: AsyncClientPump,
        submit: Submit,
        codec: Codec,
        on_progress: OnProgress | None,
        parts_max: int,
        owner: object,
    ) -> None:
        self._pump = pump
        self._codec = codec
        # A client without any other reference to it lives as long as its open streams.
        self._owner = owner
        self._bell = Bell()
        self._call = OpenCall(submit, self._bell.ring, on_progress, parts_max)
        self._over = False
        pump.open(self._call)

    @property
    def call_id(self) -> bytes:
        """16 bytes that name the call on every hop."""
        return self._call.submit.call_id

    async def aclose(self) -> None:
        """Read no more: the call is cancelled at the broker and the worker, if it is still open."""
        self._close()

    def _close(self) -> None:
        self._over = True
        if self._call.finished is None:
            self._pump.cancel(self.call_id)

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> object:
        """The next part; errors are those of ``Stream``."""
        call = self._call
        while not self._over and not call.readable:
            await self._bell.wait()
            call.tell()
        if self._over:
            raise StopAsyncIteration
        call.tell()
        last = not call.parts
        try:
            part = call.next_part(self._codec)
        except BaseException:
            self._close()
            raise
        if last:
            self._over = True
            if part is NO_PART:
                raise StopAsyncIteration
        return part

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def __del__(self) -> None:
        call: OpenCall | None = getattr(self, "_call", None)
        if call is not None and call.finished is None:
            self._pump.cancel_later(call.submit.call_id)

    def __repr__(self) -> str:
        state = "over" if self._over else "open"
        return f"<{type(self).__name__} {self._call.service} {state}>"
