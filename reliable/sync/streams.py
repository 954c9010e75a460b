"""A reply in parts, read by the blocking client."""

from __future__ import annotations

from reliable.calling import OnProgress
from reliable.open_calls import NO_PART, OpenCall
from reliable.payload import Codec
from reliable.protocol.events import Submit
from reliable.sync.pump import ClientPump
from reliable.sync.waiting import Signal

__all__ = ["Stream"]


class Stream:
    """The parts of a streamed reply, as they come; from ``Client.stream``.

    Iterate over it once, in one thread at a time. Closing it, also by leaving a ``with`` block, cancels the call if it
    is still open; so does dropping it.
    """

    def __init__(
        self,
        pump: ClientPump,
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
        self._signal = Signal()
        self._call = OpenCall(submit, self._signal.set, on_progress, parts_max)
        self._over = False
        pump.open(self._call)

    @property
    def call_id(self) -> bytes:
        """16 bytes that name the call on every hop."""
        return self._call.submit.call_id

    def close(self) -> None:
        """Read no more: the call is cancelled at the broker and the worker, if it is still open."""
        self._over = True
        if self._call.finished is None:
            self._pump.cancel(self.call_id)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> object:
        """The next part.

        Raises:
            RequestError: The call failed, after all parts that had come. QueueFull, outcome UNKNOWN: more than
                ``Limits.stream_parts_max`` of them were waiting to be read.
            PayloadError: A part that the codec cannot read; the call is cancelled.
        """
        if self._over:
            raise StopIteration
        call = self._call
        try:
            if not call.readable:
                self._pump.wait_for(call, self._signal, lambda: call.readable)
            call.tell()
            last = not call.parts
            part = call.next_part(self._codec)
        except BaseException:
            self.close()
            raise
        if last:
            self._over = True
            if part is NO_PART:
                raise StopIteration
        return part

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        call: OpenCall | None = getattr(self, "_call", None)
        if call is not None and call.finished is None:
            self._pump.cancel_later(call.submit.call_id)

    def __repr__(self) -> str:
        state = "over" if self._over else "open"
        return f"<{type(self).__name__} {self._call.service} {state}>"
