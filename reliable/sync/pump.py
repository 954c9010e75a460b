"""The loop that the threads of one client share: a leader pumps, the others follow.

Whoever waits for a call either leads (waits on the sockets and feeds the engine) or follows (waits for its own event).
When a leader's own call has ended it leaves, and appoints a follower. Nobody trusts in that: each follower looks up
twice a second and takes the lead itself if there is no leader, or if the leader is overdue. Each also has a bound of
its own, behind the deadline that the engine keeps.

One lock guards engine, links and the table of calls. It is never held while anybody waits on sockets. Taking and
leaving the lead happens under that lock in ``with`` statements inside ``try``: Ctrl-C can strike between any two
instructions, and must find nothing that is taken and not given back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from reliable.calling import ClientSetup, abandoned
from reliable.driver import Driver
from reliable.engine.client import ClientCounters, ClientSnapshot
from reliable.errors import ClosedError, DeadlineExceeded, LocalProtocolError, Outcome
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    ClientEffect,
    ClientEvent,
    Submit,
)
from reliable.sync.waiting import SelectorWait, Signal
from reliable.transport import LinkTable
from reliable.types import Clock

__all__ = ["ClientPump"]

_LOOK_UP_S: Final = 0.5
_OVERDUE_S: Final = 0.5
"""How late a leader may be to be back from its wait before another takes over."""
_GRACE_S: Final = 0.5
"""How long after its deadline a call may go without the engine's word."""


@attrs.define(eq=False)
class _Waiting:
    call: Submit
    event: Signal = attrs.field(factory=Signal)
    finished: CallFinished | None = None

    def finish(self, finished: CallFinished) -> None:
        self.finished = finished
        self.event.set()


class ClientPump:
    """One life of a blocking client: an engine, its links, and the threads that wait for calls.

    Args:
        setup: The client's arguments.
        clock: Monotonic seconds.
    """

    def __init__(self, setup: ClientSetup, clock: Clock = time.monotonic) -> None:
        self._clock = clock
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
        self._calls: dict[bytes, _Waiting] = {}
        self._leader: _Waiting | None = None
        self._leader_back: float = 0.0
        """When the leader is back from its wait at the latest."""
        self._leader_left = Signal()
        self._over = ""
        """Why no call can be made any more."""
        self._released = False

    # --- calls ------------------------------------------------------------------------------------

    def call(self, submit: Submit) -> CallFinished:
        """Make a call and wait for its end.

        Raises:
            ClosedError: The pump is over.
            KeyboardInterrupt: Passed through; the call is cancelled.
        """
        waiting = _Waiting(submit)
        try:
            self._submit(waiting)
            while waiting.finished is None:
                self._await(waiting)
        finally:
            self._leave(waiting)
        return waiting.finished

    def _submit(self, waiting: _Waiting) -> None:
        with self._lock:
            if self._over:
                raise ClosedError(self._over)
            self._calls[waiting.call.call_id] = waiting
            # What happened while nobody was waiting, above all that a link broke, goes before the new call.
            for callback in self._wait.wait(0):
                callback()
            self._turn(waiting.call)
            if self._leader is not None:
                self._wake_if_sooner()

    def _wake_if_sooner(self) -> None:
        wait_s = self._driver.wait_s()
        if wait_s is not None and self._clock() + wait_s < self._leader_back:
            self._wait.wake()

    def _turn(self, event: ClientEvent | None) -> None:
        """Run the engine, under the lock. Whatever is thrown in here leaves an engine that cannot be trusted."""
        try:
            if event is None:
                self._driver.turn()
            else:
                self._driver.handle(event)
        except LocalProtocolError:
            raise
        except BaseException as error:
            self._end_all(f"the client was interrupted at work by {type(error).__name__}")
            raise

    def _perform(self, effect: ClientEffect) -> None:
        if isinstance(effect, CallFinished):
            waiting = self._calls.pop(effect.call_id, None)
            if waiting is not None:
                waiting.finish(effect)
        else:
            assert isinstance(effect, CallProgress), effect

    def _await(self, waiting: _Waiting) -> None:
        """One round: as leader until something arrived, or as follower until called or time to look up."""
        waiting.event.clear()
        if waiting.finished is not None:
            waiting.event.set()
            return
        bound_s = self._bound_s(waiting)
        wait_s = self._take_lead(waiting, bound_s)
        if wait_s is None:
            waiting.event.wait(min(_LOOK_UP_S, bound_s))
            return
        ready = self._wait_on_sockets(wait_s)
        with self._lock:
            if self._over or self._leader is not waiting:
                return
            for callback in ready:
                callback()
            self._turn(None)

    def _wait_on_sockets(self, wait_s: float) -> list[Callable[[], None]]:
        try:
            return self._wait.wait(wait_s)
        except (OSError, ValueError):
            # Closed under our feet, by a thread that would not wait for this one any longer, or in a forked child.
            if self._over:
                return []
            raise

    def _bound_s(self, waiting: _Waiting) -> float:
        """Seconds that the call may still take; ends it if the engine has not."""
        deadline = waiting.call.deadline
        if deadline is None:
            return float("inf")
        left_s = deadline + _GRACE_S - self._clock()
        if left_s <= 0:
            call_id = waiting.call.call_id
            error = DeadlineExceeded("no end was heard of the call by its deadline", call_id=call_id)
            waiting.finish(CallFinished(call_id, error, Outcome.UNKNOWN))
        return max(left_s, 0.0)

    def _take_lead(self, waiting: _Waiting, bound_s: float) -> float | None:
        """Seconds to wait on the sockets if this thread leads now, else None."""
        with self._lock:
            now = self._clock()
            mine = self._leader is None or self._leader is waiting or now > self._leader_back + _OVERDUE_S
            if not mine or self._over or waiting.finished is not None:
                return None
            self._leader = waiting
            wait_s = self._driver.wait_s()
            wait_s = min(_LOOK_UP_S, bound_s) if wait_s is None else min(wait_s, bound_s)
            self._leader_back = now + wait_s
            return wait_s

    def _leave(self, waiting: _Waiting) -> None:
        """Give up the lead, appoint a follower, and cancel the call if it has not ended."""
        with self._lock:
            if self._leader is waiting:
                self._leader = None
                self._leader_left.set()
            if self._calls.pop(waiting.call.call_id, None) is not None and not self._over:
                self._turn(CancelCall(waiting.call.call_id))
            if self._leader is None and self._calls:
                next(iter(self._calls.values())).event.set()

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
        self._links.shutdown()
        self._wait.close()

    def _end_all(self, reason: str) -> None:
        """Under the lock: no more calls, and an end for each that is left."""
        self._over = reason
        for call_id, waiting in self._calls.items():
            waiting.finish(abandoned(call_id, reason))
        self._calls.clear()
        self._wait.wake()

    def forget(self) -> None:
        """In a forked child: never touch the parent's sockets, only let a call that was forked amid know."""
        self._lock = threading.Lock()
        self._released = True
        self._end_all("the process was forked")
        self._wait.close()
