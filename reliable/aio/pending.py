"""A submitted call of the asyncio client."""

from __future__ import annotations

import asyncio

from reliable.aio.pump import AsyncClientPump
from reliable.calling import OnProgress
from reliable.errors import ReliableError
from reliable.open_calls import OpenCall
from reliable.payload import Codec
from reliable.protocol.events import Submit

__all__ = ["AsyncPendingCall"]


class AsyncPendingCall(asyncio.Future[object]):
    """A call that was submitted and goes on by itself; from ``AsyncClient.submit``.

    It is an ``asyncio.Future``: await it, or give it to ``asyncio.wait``, ``gather`` or ``as_completed``. A task that
    is cancelled while it awaits it cancels the call too, unless ``asyncio.shield`` is in between.
    """

    def __init__(
        self, pump: AsyncClientPump, submit: Submit, codec: Codec, on_progress: OnProgress | None, owner: object
    ) -> None:
        super().__init__(loop=pump.loop)
        self._pump = pump
        self._codec = codec
        # A client without any other reference to it lives as long as its open calls.
        self._owner = owner
        self._call = OpenCall(submit, self._wake, on_progress)
        pump.open(self._call)

    @property
    def call_id(self) -> bytes:
        """16 bytes that name the call on every hop."""
        return self._call.submit.call_id

    def cancel(self, msg: object = None) -> bool:
        """Give the call up: the broker and the worker are told. Whether it was still open."""
        if self.done() or not super().cancel(msg):
            return False
        self._pump.cancel(self.call_id)
        return True

    def _wake(self) -> None:
        call = self._call
        if call.finished is None:
            self._pump.loop.call_soon(call.tell)
            return
        if self.done():
            return
        try:
            value = call.value(self._codec)
        except ReliableError as error:
            self.set_exception(error)
        else:
            self.set_result(value)
