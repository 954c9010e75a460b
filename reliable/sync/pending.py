"""A submitted call of the blocking client."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future

from reliable.calling import OnProgress
from reliable.errors import ReliableError, RequestAbandoned
from reliable.open_calls import OpenCall
from reliable.payload import Codec
from reliable.protocol.events import Submit
from reliable.sync.pump import ClientPump
from reliable.sync.waiting import Signal

__all__ = ["PendingCall"]


class PendingCall(Future[object]):
    """A call that was submitted and goes on by itself; from ``Client.submit``.

    It is a ``concurrent.futures.Future``: ``concurrent.futures.wait``, ``as_completed`` and ``asyncio.wrap_future``
    take it. Callbacks run in the client's background thread, one after the other; they may use the client.
    """

    # ``result`` and its like do without the condition of the base class: Ctrl-C in a waiting main thread could leave it
    # taken. The base class is completed as well, by the background thread.

    def __init__(
        self, pump: ClientPump, submit: Submit, codec: Codec, on_progress: OnProgress | None, owner: object
    ) -> None:
        super().__init__()
        self._pump = pump
        self._codec = codec
        # A client without any other reference to it lives as long as its open calls.
        self._owner = owner
        self._signals: list[Signal] = []
        self._call = OpenCall(submit, self._wake, on_progress)
        self._cancel_asked = False
        self._outcomes: dict[str, tuple[object, ReliableError | None]] = {}
        pump.open(self._call, background=True)

    @property
    def call_id(self) -> bytes:
        """16 bytes that name the call on every hop."""
        return self._call.submit.call_id

    def cancel(self) -> bool:
        """Give the call up: the broker and the worker are told. Whether it was still open.

        After that ``result`` raises ``CancelledError``.
        """
        if self._call.finished is not None:
            return self.cancelled()
        self._cancel_asked = True
        self._pump.cancel(self.call_id)
        return self.cancelled()

    def cancelled(self) -> bool:
        """Whether ``cancel`` ended it."""
        finished = self._call.finished
        return self._cancel_asked and finished is not None and isinstance(finished.result, RequestAbandoned)

    def running(self) -> bool:
        """Whether it is open."""
        return self._call.finished is None

    def done(self) -> bool:
        """Whether it is over, by a reply, an error or ``cancel``."""
        return self._call.finished is not None

    def result(self, timeout: float | None = None) -> object:
        """Wait for the reply.

        Args:
            timeout: Seconds to wait here; None: until the call ends, which is by its deadline.

        Raises:
            TimeoutError: It is still open after ``timeout``; it goes on.
            CancelledError: It was cancelled.
            RequestError, PayloadError: As ``Client.call``.
        """
        value, error = self._outcome(timeout)
        if error is not None:
            try:
                raise error
            finally:
                # The error's traceback has this frame.
                del error, self
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; its error, or None.

        Raises:
            TimeoutError: It is still open after ``timeout`` seconds.
            CancelledError: It was cancelled.
        """
        return self._outcome(timeout)[1]

    # --- inner ------------------------------------------------------------------------------------

    def _outcome(self, timeout: float | None) -> tuple[object, ReliableError | None]:
        if self._call.finished is None:
            self._wait(timeout)
        if self.cancelled():
            raise CancelledError
        return self._decoded()

    def _decoded(self) -> tuple[object, ReliableError | None]:
        """Everybody is given the same object, whoever asks first."""
        if "it" not in self._outcomes:
            try:
                outcome: tuple[object, ReliableError | None] = self._call.value(self._codec), None
            except ReliableError as error:
                outcome = None, error
            self._outcomes.setdefault("it", outcome)
        return self._outcomes["it"]

    def _wait(self, timeout: float | None) -> None:
        end = float("inf") if timeout is None else time.monotonic() + timeout
        signal = Signal()
        self._signals.append(signal)
        try:
            while self._call.finished is None:
                left_s = end - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"the call is still open after {timeout} s; it goes on")
                # As all who wait for calls: the background thread may be busy in a callback, or be the one that waits.
                self._pump.wait_once(signal, self.done, min(left_s, self._pump.bound_s(self._call)))
        finally:
            self._signals.remove(signal)
            self._pump.step_down(signal)

    def _wake(self) -> None:
        for signal in list(self._signals):
            signal.set()
        self._pump.background.touch(self)

    def _settle(self) -> None:
        """Tell news, and complete the future if the call is over; called by the background thread."""
        self._call.tell()
        if self._call.finished is None or super().done():
            return
        if self.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        value, error = self._decoded()
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)

    def _settle_after_fork(self) -> None:
        """The same in a forked child: locks may be held by threads that are not here, and waiters are elsewhere."""
        self._condition = threading.Condition()
        self._waiters.clear()
        self.__dict__["_done_callbacks"] = []
        self._call.on_progress = None
        self._settle()

    def __repr__(self) -> str:
        state = "open" if self.running() else "cancelled" if self.cancelled() else "done"
        return f"<{type(self).__name__} {self._call.service} {state}>"
