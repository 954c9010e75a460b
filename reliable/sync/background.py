"""The thread that goes on with submitted calls while nobody waits for them.

It also completes their futures: ``concurrent.futures.Future`` is Python code around a condition, in which Ctrl-C could
strike and leave a lock taken. Ctrl-C strikes the main thread alone, so futures are completed in this one.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from reliable.open_calls import OpenCall, carry_out_safely
from reliable.sync.waiting import Signal

if TYPE_CHECKING:
    from reliable.sync.pump import ClientPump

__all__ = ["Background", "Settled"]

_SWEEP_S: Final = 0.5


class Settled(Protocol):
    """Something with a submitted call that has to be looked at, by the background thread."""

    def _settle(self) -> None:
        """Tell news; complete the future if the call is over."""

    def _settle_after_fork(self) -> None:
        """The same in a forked child, where whoever held a lock of the future is not."""


class Background:
    """At most one thread, for one pump.

    Args:
        pump: Whose calls it goes on with.
    """

    def __init__(self, pump: ClientPump) -> None:
        self._pump = pump
        self._signal = Signal()
        self.calls: dict[bytes, OpenCall] = {}
        """Those to go on with."""
        self._touched: deque[Settled] = deque()
        self._starting = False
        self._claim = threading.Lock()
        self._thread_id: int | None = None
        self._idle = True
        self._ended = Signal()
        self._sweep_at = 0.0

    def serve(self, call: OpenCall) -> None:
        """From now on go on with this call also while nobody waits for it."""
        self.calls[call.submit.call_id] = call
        if call.finished is not None:
            self.drop(call.submit.call_id)
        if not self._starting:
            # Not under a lock, and noted only afterwards: should Ctrl-C come in between, the next call starts one more
            # thread, which finds that it is too many.
            _thread.start_new_thread(self._start, ())
            self._starting = True
        if self._idle:
            self._signal.set()

    def drop(self, call_id: bytes) -> None:
        """It is over."""
        self.calls.pop(call_id, None)

    def touch(self, settled: Settled) -> None:
        """Have something looked at; from any thread."""
        self._touched.append(settled)
        self._signal.set()

    def wake(self) -> None:
        """Look around."""
        self._signal.set()

    def appoint(self) -> None:
        """Lead, if there is anything to lead for."""
        if self.calls:
            self._signal.set()

    def is_here(self) -> bool:
        """Whether the caller is this thread, which need not wait for itself."""
        return self._thread_id == _thread.get_ident()

    def wait_ended(self, timeout: float) -> None:
        """Wait for the thread to end, now that the pump is over."""
        if self._thread_id is not None and not self.is_here():
            self._signal.set()
            self._ended.wait(timeout)

    def forget(self) -> None:
        """In a forked child, where this thread is not."""
        self._thread_id = None
        self.calls.clear()
        while self._touched:
            self._touched.popleft()._settle_after_fork()

    # --- the thread -------------------------------------------------------------------------------

    def _start(self) -> None:
        # Started from here, as Ctrl-C inside of ``Thread.start`` can turn into a RuntimeError about a lock.
        if self._claim.acquire(blocking=False):
            threading.Thread(target=self._run, name="reliable client", daemon=True).start()

    def _run(self) -> None:
        self._thread_id = _thread.get_ident()
        try:
            while self._settle_all() or not self._pump.over:
                self._round()
        finally:
            self._pump.step_down(self._signal)
            self._ended.set()

    def _round(self) -> None:
        self._sweep()
        if self.calls:
            self._pump.wait_once(self._signal, self._has_work, _SWEEP_S)
            return
        self._pump.step_down(self._signal)
        self._idle = True
        self._signal.clear()
        if not (self.calls or self._has_work()):
            self._signal.wait(threading.TIMEOUT_MAX)
        self._idle = False

    def _has_work(self) -> bool:
        return bool(self._touched) or self._pump.over

    def _settle_all(self) -> bool:
        """Whether there was anything to do. The lead is given up first: functions of the user's may take their time."""
        if not self._touched:
            return False
        self._pump.step_down(self._signal)
        while self._touched:
            carry_out_safely("completing a call", self._touched.popleft()._settle)
        return True

    def _sweep(self) -> None:
        """End calls that the engine should have ended; twice a second, as all who wait look up."""
        now = self._pump.clock()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            for call_id, call in list(self.calls.items()):
                self._pump.bound_s(call)
                if call.finished is not None:
                    self.drop(call_id)
