"""Many calls of one service, by the asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

from reliable.aio.pump import AsyncClientPump
from reliable.aio.streams import Bell
from reliable.calling import OnProgress
from reliable.mapping import REFILL, MapWindow
from reliable.open_calls import NO_PART, OpenCall
from reliable.payload import Codec
from reliable.protocol.events import Submit

__all__ = ["AsyncItems", "AsyncMapResults"]

AsyncItems: TypeAlias = Iterable[object] | AsyncIterable[object]


def _touch(window: MapWindow, ring: Callable[[], None], call: OpenCall) -> None:
    # Knows nothing of the results themselves: they must be dropped, and the calls cancelled, with their last reader.
    window.touch(call)
    ring()


class AsyncMapResults:
    """The results of ``AsyncClient.map``: an iterator, to be used in one task at a time.

    A task that is cancelled while it waits for a result loses none. Closing it, also by leaving an ``async with``
    block, cancels the calls that are open; so does dropping it.
    """

    def __init__(
        self,
        pump: Callable[[], AsyncClientPump],
        submit: Callable[[object], Submit],
        items: AsyncItems,
        window: MapWindow,
        codec: Codec,
        on_progress: OnProgress | None,
    ) -> None:
        self._pump = pump
        self._submit = submit
        self._items: Iterator[object] | AsyncIterator[object] = (
            aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        )
        self._window = window
        self._codec = codec
        self._on_progress = on_progress
        self._bell = Bell()
        self._last: AsyncClientPump | None = None
        """Where calls are open; those of an earlier pump are over."""
        self._pull: asyncio.Task[object] | None = None
        """Waits for the next item of an asynchronous iterable, also while results are given."""

    async def aclose(self) -> None:
        """Cancel what is open, and give nothing any more."""
        pull, self._pull = self._pull, None
        self._close()
        if pull is not None:
            pull.cancel()
            await asyncio.wait([pull])

    def _close(self) -> None:
        calls = list(self._window.open_calls())
        self._window.close()
        for call in calls:
            if self._last is not None:
                self._last.cancel(call.submit.call_id)
        self._bell.ring()

    def __aiter__(self) -> AsyncMapResults:
        return self

    async def __anext__(self) -> object:
        """The next result; errors are those of ``MapResults``."""
        window = self._window
        try:
            window.sort()
            self._open_more(REFILL)
            while not window.ready:
                if window.has_room and self._open_more(1):
                    window.sort()
                    continue
                if window.done:
                    raise StopAsyncIteration
                if not window.touched:
                    await self._bell.wait()
                window.sort()
            return window.take(self._codec)
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self.aclose()
            raise

    def _open_more(self, count: int) -> bool:
        """Open calls for items that are at hand; whether there was one, or it is known that there are no more."""
        window = self._window
        while count and window.has_room:
            count -= 1
            if isinstance(self._items, AsyncIterator):
                if not self._pulled(self._items):
                    return False
                item = self._take_pulled()
            else:
                item = next(self._items, NO_PART)
            if item is NO_PART:
                window.exhausted = True
                return True
            call = OpenCall(self._submit(item), self._bell.ring, self._on_progress)
            call.wake = partial(_touch, window, self._bell.ring, call)
            window.add(call)
            self._last = self._pump()
            self._last.open(call)
        return True

    def _pulled(self, items: AsyncIterator[object]) -> bool:
        """Whether the next item is there; if not, see to it that it comes."""
        if self._pull is None:
            bell = self._bell
            self._pull = asyncio.ensure_future(_next_of(items))
            self._pull.add_done_callback(lambda _: bell.ring())
        return self._pull.done()

    def _take_pulled(self) -> object:
        pull, self._pull = self._pull, None
        assert pull is not None
        return pull.result()

    async def __aenter__(self) -> AsyncMapResults:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        pull: asyncio.Task[object] | None = getattr(self, "_pull", None)
        if pull is not None:
            # A loop that is closed has no tasks to cancel any more.
            with contextlib.suppress(RuntimeError):
                pull.get_loop().call_soon_threadsafe(pull.cancel)
        window: MapWindow | None = getattr(self, "_window", None)
        if window is not None and self._last is not None:
            for call in window.open_calls():
                self._last.cancel_later(call.submit.call_id)


async def _next_of(items: AsyncIterator[object]) -> object:
    return await anext(items, NO_PART)
