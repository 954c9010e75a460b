"""An engine on an event loop: descriptors by ``add_reader``, one timer, no task of its own.

The sockets are plain ones. Their descriptors signal edges only, so after anything that touched a socket the driver goes
on until every socket was read empty (``reliable.transport``); then the loop may sleep.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from reliable.calling import ClientSetup, OnProgress, abandoned
from reliable.driver import Driver
from reliable.engine.base import Engine
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
    LinkClosed,
    LinkOpened,
    Received,
    Submit,
    Unsent,
)
from reliable.transport import LinkTable, Waker

__all__ = ["AsyncClientPump", "LoopDriver", "LoopWait"]

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")


class LoopWait:
    """Lets an event loop wait on descriptors, and runs ``turn`` after one became readable.

    Args:
        loop: The loop; everything but ``wake`` is called in its thread.
        turn: What to run.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Callable[[], None]) -> None:
        self._loop = loop
        self._turn = turn
        self._waker = Waker()
        self.wake: Callable[[], None] = self._waker.wake
        self.watch(self._waker.fileno(), self._waker.clear)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """From now on call ``ready`` when ``fd`` becomes readable."""
        self._loop.add_reader(fd, self._on_readable, ready)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        self._loop.remove_reader(fd)

    def _on_readable(self, ready: Callable[[], None]) -> None:
        ready()
        self._turn()

    def close(self) -> None:
        """Give the descriptors back."""
        self.unwatch(self._waker.fileno())
        self._waker.close()


class LoopDriver(Generic[EventT, EffectT]):
    """A driver with its links, its descriptors and its timer on the running loop.

    Args:
        engine: Decides.
        perform: Carries out every effect that is not about a link.
        failed: Told when the engine or an effect threw; the driver must be closed then.
        make_links: Makes the links, given who watches and who wakes.
        turned: Called after each turn.
    """

    def __init__(
        self,
        engine: Engine[EventT | LinkOpened | LinkClosed | Received | Unsent, EffectT],
        perform: Callable[[EffectT], None],
        failed: Callable[[BaseException], None],
        make_links: Callable[[LoopWait], LinkTable],
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._wait = LoopWait(self.loop, self.turn)
        self.wake = self._wait.wake
        self._links = make_links(self._wait)
        self._driver: Driver[EventT, EffectT] = Driver(engine, self._links, perform, time.monotonic)
        self._failed = failed
        self._turned = turned
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._closed = False

    def turn(self) -> None:
        """Let the engine have what has arrived; called by the loop, so nothing is raised."""
        try:
            self._run(None)
        except Exception as error:
            self._failed(error)

    def handle(self, event: EventT) -> None:
        """Feed one event. Whatever it throws, except for misuse, leaves an engine that cannot be trusted."""
        try:
            self._run(event)
        except LocalProtocolError:
            raise
        except BaseException as error:
            self._failed(error)
            raise

    def _run(self, event: EventT | None) -> None:
        if self._closed:
            return
        if self._busy:
            # From within an effect: a loop may run a new task at once. The engine must not be entered twice.
            self.loop.call_soon(self._run, event)
            return
        self._busy = True
        try:
            if event is not None:
                self._driver.handle(event)
            else:
                self._driver.turn()
        finally:
            self._busy = False
        self._arm()
        self._turned()

    def _arm(self) -> None:
        """Keep a timer that goes off in time; one that is early does no harm, and moving it each time costs more."""
        wait_s = self._driver.wait_s()
        if wait_s is None:
            return
        when = self.loop.time() + wait_s
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.turn()

    def stop(self) -> None:
        """Close every link and wait on nothing any more."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._links.close_all()
        self._wait.close()

    async def close(self) -> None:
        """``stop``, and give back what takes a moment, without holding the loop up."""
        await self.start_closing()

    def start_closing(self) -> asyncio.Future[None]:
        """``stop`` now; the future is done when all is given back."""
        self.stop()
        done: asyncio.Future[None] = self.loop.create_future()

        def shutdown() -> None:
            try:
                self._links.shutdown()
            finally:
                # The loop may be closed meanwhile, and then nobody waits.
                with contextlib.suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(_finish, done)

        # Not in the loop's own threads: all of them may be taken by the user's functions.
        _thread.start_new_thread(shutdown, ())
        return done

    def close_now(self) -> None:
        """``close`` for when there is no loop to wait on."""
        self.stop()
        self._links.shutdown()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class AsyncClientPump:
    """One life of an asyncio client: an engine, its links, and the calls that are open.

    Args:
        setup: The client's arguments.
    """

    def __init__(self, setup: ClientSetup) -> None:
        self._engine = setup.engine()
        limits = setup.config.limits

        def make_links(wait: LoopWait) -> LinkTable:
            return LinkTable(
                setup.config.transport,
                wait,
                wait.wake,
                message_bytes_max=limits.message_bytes_max,
                received_messages_max=2 * limits.calls_in_flight_max,
            )

        self._driver: LoopDriver[ClientEvent, ClientEffect] = LoopDriver(
            self._engine, self._perform, self._on_failure, make_links, self._cancel_overrun
        )
        self.loop = self._driver.loop
        self._calls: dict[bytes, OpenCall] = {}
        self._overrun: deque[bytes] = deque()
        """Calls to cancel, since nobody reads their parts."""
        self._over = ""
        """Why no call can be made any more."""
        self._released = False

    async def call(self, submit: Submit, on_progress: OnProgress | None = None) -> OpenCall:
        """Make a call and wait for its end.

        Raises:
            ClosedError: The pump is over.
            asyncio.CancelledError: Passed through; the call is cancelled, others are not touched.
        """
        future: asyncio.Future[None] = self.loop.create_future()

        def wake() -> None:
            if call.finished is not None:
                _finish(future)
            else:
                self.loop.call_soon(call.tell)

        call = OpenCall(submit, wake, on_progress)
        try:
            self.open(call)
            await future
        finally:
            self.cancel(submit.call_id)
        return call

    def open(self, call: OpenCall) -> None:
        """Make a call; ``call.wake`` tells of what happens to it.

        Raises:
            ClosedError: The pump is over.
        """
        if self._over:
            raise ClosedError(self._over)
        self._calls[call.submit.call_id] = call
        try:
            self._driver.handle(call.submit)
        except BaseException:
            self._calls.pop(call.submit.call_id, None)
            raise

    def cancel(self, call_id: bytes) -> bool:
        """End a call; whether it was open. In the thread of the loop only."""
        if call_id not in self._calls or self._over:
            return False
        self._driver.handle(CancelCall(call_id))
        if call_id in self._calls:
            # The engine is amid a step, and will hear of it after that.
            self._perform(abandoned(call_id, "cancelled by the caller"))
        return True

    def cancel_from_anywhere(self, call_id: bytes) -> bool:
        """``cancel`` from any thread; whether the call was open."""
        if self._here():
            return self.cancel(call_id)
        was_open = call_id in self._calls
        self.cancel_later(call_id)
        return was_open

    def _here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def cancel_later(self, call_id: bytes) -> None:
        """``cancel`` from a finalizer or another thread."""
        if call_id in self._calls:
            # The loop may be closed by now; then its calls are over too.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.cancel, call_id)

    def _perform(self, effect: ClientEffect) -> None:
        if isinstance(effect, CallFinished):
            call = self._calls.pop(effect.call_id, None)
            if call is not None:
                call.take(effect)
        elif isinstance(effect, CallProgress):
            call = self._calls.get(effect.call_id)
            if call is not None:
                call.take(effect)
                if call.overrun:
                    self._overrun.append(effect.call_id)

    def _cancel_overrun(self) -> None:
        while self._overrun:
            self.cancel(self._overrun.popleft())

    def _on_failure(self, error: BaseException) -> None:
        self._end_all(f"the client was interrupted at work by {type(error).__name__}: {error}")
        self._driver.stop()

    def _end_all(self, reason: str) -> None:
        self._over = reason
        for call_id, call in list(self._calls.items()):
            # A loop that is closed takes nothing any more; nobody waits in it either.
            with contextlib.suppress(RuntimeError):
                call.take(abandoned(call_id, reason))
        self._calls.clear()

    @property
    def over(self) -> bool:
        """Whether no call can be made any more."""
        return bool(self._over)

    def stats(self) -> ClientCounters:
        """A copy of the counters."""
        return attrs.evolve(self._engine.counters)

    def snapshot(self) -> ClientSnapshot:
        """What the client holds."""
        return self._engine.snapshot()

    def start_closing(self) -> asyncio.Future[None] | None:
        """End all calls now; the future is done when everything is given back. None: that was begun before."""
        if self._released:
            return None
        self._released = True
        if not self._over:
            self._driver.handle(AbandonAll())
            self._end_all("the client is closed")
        return self._driver.start_closing()

    def forget(self) -> None:
        """In a forked child: never touch the parent's sockets nor its loop, only let open calls know."""
        self._released = True
        self._end_all("the process was forked")

    def close_now(self) -> None:
        """``close`` for when the loop is gone."""
        if not self._released:
            self._released = True
            self._end_all(self._over or "the client's event loop is closed")
            self._driver.close_now()
