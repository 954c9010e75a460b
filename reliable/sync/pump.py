"""The loop that the threads of one client share: a leader pumps, the others follow.

Whoever waits for something either leads (waits on the sockets and feeds the engine) or follows (waits for its own
signal). When a leader has what it waited for it steps down, and appoints a follower. Nobody trusts in that: each
follower looks up twice a second and takes the lead itself if there is no leader, or if the leader is overdue. Each also
has a bound of its own, behind the deadline that the engine keeps.

A call that nobody waits for, since it was submitted to be looked at later, has a thread of the pump's own to lead if
nobody else does (``reliable.sync.background``). It starts with the first such call and sleeps while there are none.

One lock guards engine, links and the table of calls. It is never held while anybody waits on sockets, nor while a
function of the user's runs. Taking and leaving the lead happens under that lock in ``with`` statements inside ``try``:
Ctrl-C can strike between any two instructions, and must find nothing that is taken and not given back.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from reliable.calling import ClientSetup, OnProgress, abandoned
from reliable.driver import Driver
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError, LocalProtocolError
from reliable.open_calls import OpenCall
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    ClientEffect,
    ClientEvent,
    Submit,
)
from reliable.sync.background import Background
from reliable.sync.waiting import SelectorWait, Signal
from reliable.transport import LinkTable
from reliable.types import Clock

__all__ = ["ClientPump"]

_LOOK_UP_S: Final = 0.5
_OVERDUE_S: Final = 0.5
"""How late a leader may be to be back from its wait before another takes over."""
_GRACE_S: Final = 0.5
"""How long after its deadline a call may go without the engine's word."""
_BACKGROUND_ENDS_S_MAX: Final = 0.25
_LOOK_AGAIN_S: Final = 0.005
"""How long nobody may have looked at the sockets before a new call looks first."""


class ClientPump:
    """One life of a blocking client: an engine, its links, and the threads that wait for calls.

    Args:
        setup: The client's arguments.
        clock: Monotonic seconds.
    """

    def __init__(self, setup: ClientSetup, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._wait = SelectorWait()
        self._engine = setup.engine()
        limits = setup.config.limits
        self._links = LinkTable(
            setup.config.transport,
            self._wait,
            self._wait.wake,
            message_bytes_max=limits.message_bytes_max,
            received_messages_max=2 * limits.calls_in_flight_max,
        )
        self._driver: Driver[ClientEvent, ClientEffect] = Driver(self._engine, self._links, self._perform, clock)
        self._calls: dict[bytes, OpenCall] = {}
        self._overrun: deque[bytes] = deque()
        """Calls to cancel, since nobody reads their parts."""
        self._waiting: dict[Signal, None] = {}
        """Who waits now, each known by its signal."""
        self._leader: Signal | None = None
        self._leader_back: float = 0.0
        """When the leader is back from its wait at the latest."""
        self._leader_left = Signal()
        self._looked_at = float("-inf")
        self.background = Background(self)
        self._over = ""
        """Why no call can be made any more."""
        self._released = False

    # --- calls ------------------------------------------------------------------------------------

    def call(self, submit: Submit, on_progress: OnProgress | None = None) -> OpenCall:
        """Make a call and wait for its end.

        Raises:
            ClosedError: The pump is over.
            KeyboardInterrupt: Passed through; the call is cancelled.
        """
        signal = Signal()
        call = OpenCall(submit, signal.set, on_progress)
        try:
            self._open(call)
            while call.finished is None:
                self.wait_once(signal, lambda: call.finished is not None or bool(call.news), self.bound_s(call))
                if call.news:
                    self.step_down(signal)
                    call.tell()
        finally:
            self.step_down(signal, call.submit.call_id)
        call.tell()
        return call

    def open(self, call: OpenCall, *, background: bool = False) -> None:
        """Make a call; ``call.wake`` tells of what happens to it.

        Args:
            call: The call.
            background: Go on with it also while nobody waits for it.

        Raises:
            ClosedError: The pump is over.
            KeyboardInterrupt: Passed through; the call is cancelled.
        """
        try:
            self._open(call)
            if background:
                self.background.serve(call)
        except BaseException:
            self.cancel(call.submit.call_id)
            raise

    def _open(self, call: OpenCall) -> None:
        with self._lock:
            if self._over:
                raise ClosedError(self._over)
            self._calls[call.submit.call_id] = call
            if self._leader is None and self.clock() - self._looked_at > _LOOK_AGAIN_S:
                # What happened while nobody was waiting, above all that a link broke, goes before the new call.
                for callback in self._wait.wait(0):
                    callback()
            self._turn(call.submit)
            if self._leader is not None:
                self._wake_if_sooner()

    def cancel(self, call_id: bytes) -> bool:
        """End a call, from any thread; whether it was open."""
        with self._lock:
            return self._cancel(call_id)

    def _cancel(self, call_id: bytes) -> bool:
        if call_id not in self._calls or self._over:
            return False
        self._turn(CancelCall(call_id))
        left = self._calls.get(call_id)
        if left is not None:
            self._perform(abandoned(call_id, "cancelled by the caller"))
        return True

    def cancel_later(self, call_id: bytes) -> None:
        """``cancel`` from a finalizer, which may run while its own thread is anywhere, also within the lock."""
        if call_id in self._calls:
            # At the end of the interpreter there are no more threads, nor anybody to tell.
            with contextlib.suppress(RuntimeError):
                _thread.start_new_thread(self.cancel, (call_id,))

    def _wake_if_sooner(self) -> None:
        wait_s = self._driver.wait_s()
        if wait_s is not None and self.clock() + wait_s < self._leader_back:
            self._wait.wake()

    def _turn(self, event: ClientEvent | None) -> None:
        """Run the engine, under the lock. Whatever is thrown in here leaves an engine that cannot be trusted."""
        try:
            if event is None:
                self._driver.turn()
            else:
                self._driver.handle(event)
            while self._overrun:
                self._driver.handle(CancelCall(self._overrun.popleft()))
        except LocalProtocolError:
            raise
        except BaseException as error:
            self._end_all(f"the client was interrupted at work by {type(error).__name__}")
            raise

    def _perform(self, effect: ClientEffect) -> None:
        if isinstance(effect, CallFinished):
            call = self._calls.pop(effect.call_id, None)
            if call is not None:
                call.take(effect)
                if self.background.calls:
                    self.background.drop(effect.call_id)
        elif isinstance(effect, CallProgress):
            call = self._calls.get(effect.call_id)
            if call is not None:
                call.take(effect)
                if call.overrun:
                    self._overrun.append(effect.call_id)

    # --- waiting ----------------------------------------------------------------------------------

    def wait_once(self, signal: Signal, ready: Callable[[], bool], bound_s: float = float("inf")) -> None:
        """One round: as leader until something arrived, or as follower until called or time to look up.

        Whoever has called this must call ``step_down`` in the end, whatever happens.

        Args:
            signal: The caller's own; set when ``ready`` may have become true.
            ready: Whether there is nothing to wait for.
            bound_s: Seconds that this may take.
        """
        signal.clear()
        wait_s = self._take_lead(signal, ready, bound_s)
        if wait_s is None:
            signal.wait(min(_LOOK_UP_S, bound_s))
            return
        arrived = self._wait_on_sockets(wait_s)
        with self._lock:
            if self._over or self._leader is not signal:
                return
            for callback in arrived:
                callback()
            self._turn(None)
            self._looked_at = self.clock()
            if ready():
                self._step_down(signal)

    def wait_for(self, call: OpenCall, signal: Signal, ready: Callable[[], bool]) -> None:
        """Wait until ``ready``, telling the news of ``call`` meanwhile; it is left open."""
        try:
            while not ready():
                self.wait_once(signal, lambda: ready() or bool(call.news), self.bound_s(call))
                if call.news:
                    self.step_down(signal)
                    call.tell()
        finally:
            self.step_down(signal)

    def _wait_on_sockets(self, wait_s: float) -> list[Callable[[], None]]:
        try:
            return self._wait.wait(wait_s)
        except (OSError, ValueError):
            # Closed under our feet, by a thread that would not wait for this one any longer, or in a forked child.
            if self._over:
                return []
            raise

    def bound_s(self, call: OpenCall) -> float:
        """Seconds that a call may still take; ends it if the engine has not."""
        if self._over and call.finished is None:
            call.take(abandoned(call.submit.call_id, self._over))
        deadline = call.submit.deadline
        if deadline is None:
            return float("inf")
        left_s = deadline + _GRACE_S - self.clock()
        if left_s <= 0:
            call.expire()
        return max(left_s, 0.0)

    def _take_lead(self, signal: Signal, ready: Callable[[], bool], bound_s: float) -> float | None:
        """Seconds to wait on the sockets if this thread leads now, else None."""
        with self._lock:
            if ready():
                signal.set()
                return None
            self._waiting[signal] = None
            now = self.clock()
            mine = self._leader is None or self._leader is signal or now > self._leader_back + _OVERDUE_S
            if not mine or self._over:
                return None
            self._leader = signal
            due_s = self._driver.wait_s()
            # Looks up as followers do: what it waits for may be told by another thread, which ended an overdue call.
            wait_s = min(_LOOK_UP_S, bound_s, _LOOK_UP_S if due_s is None else due_s)
            self._leader_back = now + wait_s
            return wait_s

    def step_down(self, signal: Signal, cancelled: bytes = b"") -> None:
        """Give up waiting, and the lead if one has it; appoint a follower. ``cancelled`` is ended if it has not."""
        # Nobody but the thread whose signal it is puts it in there, so if it is not in there nothing is left to do.
        if self._leader is not signal and signal not in self._waiting and cancelled not in self._calls:
            return
        with self._lock:
            self._cancel(cancelled)
            self._step_down(signal)

    def _step_down(self, signal: Signal) -> None:
        """Under the lock."""
        self._waiting.pop(signal, None)
        if self._leader is signal:
            self._leader = None
            if self._released:
                self._leader_left.set()
        if self._leader is None and (self._waiting or self.background.calls):
            self._appoint()

    def _appoint(self) -> None:
        follower = next(iter(self._waiting), None)
        if follower is None:
            self.background.appoint()
            return
        # It comes back by itself, unless Ctrl-C took it away from here without a word.
        del self._waiting[follower]
        follower.set()

    # --- the whole --------------------------------------------------------------------------------

    def stats(self) -> ClientCounters:
        """A copy of the counters."""
        with self._lock:
            return attrs.evolve(self._engine.counters)

    def snapshot(self) -> ClientSnapshot:
        """What the client holds."""
        with self._lock:
            return self._engine.snapshot()

    @property
    def over(self) -> bool:
        """Whether no call can be made any more: closed, forked, or interrupted at a bad moment."""
        return bool(self._over)

    def close(self, timeout: float) -> None:
        """End all calls and give everything back, from any thread.

        Args:
            timeout: Seconds to wait for the thread that leads to notice.
        """
        with self._lock:
            if self._released:
                return
            self._released = True
            if not self._over:
                self._turn(AbandonAll())
                self._end_all("the client is closed")
            self._links.close_all()
            self._leader_left.clear()
            led = self._leader is not None
            self._wait.wake()
        if led:
            self._leader_left.wait(timeout)
        self.background.wait_ended(min(timeout, _BACKGROUND_ENDS_S_MAX))
        self._links.shutdown()
        self._wait.close()

    def _end_all(self, reason: str) -> None:
        """Under the lock: no more calls, and an end for each that is left."""
        self._over = reason
        for call_id, call in self._calls.items():
            call.take(abandoned(call_id, reason))
        self._calls.clear()
        self.background.wake()
        self._wait.wake()

    def forget(self) -> None:
        """In a forked child: never touch the parent's sockets, only let a call that was forked amid know."""
        self._lock = threading.Lock()
        self._released = True
        self._end_all("the process was forked")
        self.background.forget()
        self._wait.close()
