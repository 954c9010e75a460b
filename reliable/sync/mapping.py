"""Many calls of one service, by the blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

from reliable.calling import OnProgress
from reliable.mapping import REFILL, MapWindow
from reliable.open_calls import OpenCall
from reliable.payload import Codec
from reliable.protocol.events import Submit
from reliable.sync.pump import ClientPump
from reliable.sync.waiting import Signal

__all__ = ["Items", "MapResults"]

Items: TypeAlias = Iterable[object]


def _touch(window: MapWindow, signal: Signal, call: OpenCall) -> None:
    # Knows nothing of the results themselves: they must be dropped, and the calls cancelled, with their last reader.
    window.touch(call)
    signal.set()


class MapResults:
    """The results of ``Client.map``: an iterator, to be used in one thread at a time.

    Closing it, also by leaving a ``with`` block, cancels the calls that are open; so does dropping it.
    """

    def __init__(
        self,
        pump: Callable[[], ClientPump],
        submit: Callable[[object], Submit],
        items: Items,
        window: MapWindow,
        codec: Codec,
        on_progress: OnProgress | None,
    ) -> None:
        self._pump = pump
        self._submit = submit
        self._items: Iterator[object] = iter(items)
        self._window = window
        self._codec = codec
        self._on_progress = on_progress
        self._signal = Signal()
        self._last: ClientPump | None = None
        """Where calls are open; those of an earlier pump are over."""

    def close(self) -> None:
        """Cancel what is open, and give nothing any more."""
        calls = list(self._window.open_calls())
        self._window.close()
        for call in calls:
            if self._last is not None:
                self._last.cancel(call.submit.call_id)

    def __iter__(self) -> MapResults:
        return self

    def __next__(self) -> object:
        """The next result.

        Raises:
            RequestError: A call failed; the others are cancelled.
            PayloadError: An item that the codec cannot write or a result that it cannot read; the same.
        """
        window = self._window
        try:
            window.sort()
            self._open_more(REFILL)
            while not window.ready:
                if window.has_room:
                    self._open_more(1)
                elif window.done:
                    raise StopIteration
                else:
                    self._wait()
                window.sort()
            return window.take(self._codec)
        except BaseException:
            self.close()
            raise

    def _open_more(self, count: int) -> None:
        window = self._window
        while count and window.has_room:
            count -= 1
            try:
                item = next(self._items)
            except StopIteration:
                window.exhausted = True
                return
            call = OpenCall(self._submit(item), self._signal.set, self._on_progress)
            call.wake = partial(_touch, window, self._signal, call)
            window.add(call)
            self._last = self._pump()
            self._last.open(call, background=True)

    def _wait(self) -> None:
        pump = self._last
        assert pump is not None
        try:
            while not self._window.touched:
                pump.wait_once(self._signal, lambda: self._window.touched)
                if pump.over:
                    for call in self._window.open_calls():
                        pump.bound_s(call)
        finally:
            pump.step_down(self._signal)

    def __enter__(self) -> MapResults:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        window: MapWindow | None = getattr(self, "_window", None)
        if window is not None and self._last is not None:
            for call in window.open_calls():
                self._last.cancel_later(call.submit.call_id)
